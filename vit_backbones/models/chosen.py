"""The backbone that a command line asks for, with its weights and its normalisation."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checkpoints import names, read_checkpoint
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import model_chain
from vit_backbones.config.loading import load_config
from vit_backbones.coverage import redraw
from vit_backbones.terminal import quiet_log

_OF_WEIGHTS = ('checkpoint', 'checkpoint_path', 'init_cfg', 'pretrained')


class Choice(NamedTuple):
    """A backbone as command lines choose it.

    Attributes:
        model: Name in `source`; or else `config`.
        source: Model library.
        config: Path of an mmdet or mmseg config, whose backbone is taken.
        options: `key=value` changes of that config.
        checkpoint: Weights of the model, or a whole checkpoint that was trained with the config.
        pretrained: The library's published weights.
        random_weights: Seed of random ones; each part of the model matters with them.
        img_size: (H, W) to build for, in place of the model's or the config's.
        layers: Blocks whose output is wanted, in place of the last or the config's.
    """

    model: str | None = None
    source: str = 'timm'
    config: str | None = None
    options: Sequence[str] = ()
    checkpoint: str | None = None
    pretrained: bool = False
    random_weights: int | None = None
    img_size: Sequence[int] | None = None
    layers: str | Sequence[str | int] | None = None

    @classmethod
    def of(cls, args: Any) -> 'Choice':
        """That of arguments made by `add_backbone_options` of the tools."""
        same = {name: getattr(args, name) for name in cls._fields if name != 'options'}
        return cls(**same, options=args.cfg_options)


class Loaded(NamedTuple):
    """A backbone that is ready to run.

    Attributes:
        backbone: In eval mode; nothing in it asks for gradients.
        name: Of the model, as users wrote it.
        weights: Where they come from, in a few words.
        mean: For each channel as the model takes them, on 0-255.
        std: Likewise.
        is_bgr: Whether the model takes blue first, as configs without `bgr_to_rgb` train it.
        options: Arguments with which it was built.
    """

    backbone: ViTFeatBackbone
    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False
    options: Mapping[str, Any] = MappingProxyType({})

    def normalised(self, images: np.ndarray) -> Tensor:
        """Images (B, H, W, 3) in RGB on 0-255 as the model takes them, (B, 3, H, W) float32."""
        images = images[..., ::-1] if self.is_bgr else images
        pixels = torch.from_numpy(np.array(images, order='C')).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    def fingerprint(self, *told: Any) -> str:
        """Of what the outputs depend on beside the images: weights, arguments, normalisation.

        Args:
            *told: What they depend on else.

        Returns:
            64 hexadecimal digits.
        """
        digest = hashlib.sha256()
        for name, tensor in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
        options = {k: v for k, v in self.options.items() if k not in _OF_WEIGHTS}
        seen = options, self.mean, self.std, self.is_bgr, told
        digest.update(json.dumps(seen, default=str, sort_keys=True).encode())
        return digest.hexdigest()


def load_backbone(choice: Choice, **options: Any) -> Loaded:
    """Build the backbone that is asked for.

    Args:
        choice: What the user wrote.
        **options: Arguments of `ViTFeatBackbone`, such as `out_type` or `pool`, in place of the
            config's; what forms the output otherwise (`out_type`, `out_stride`, `cls_readout`,
            `pool`) is left out of a config's backbone when one of them is given.

    Raises:
        ValueError: If not one of `model` and `config` is given, if options have no config, if it is
            not clear where weights come from, or for what `ViTFeatBackbone` refuses.
        OSError: For files that are not there.
    """
    if (choice.model is None) == (choice.config is None):
        raise ValueError('name one of --model NAME and --config CONFIG')
    asked, preprocessor = _asked(choice)
    if choice.layers is not None:
        asked['out_indices'] = _indices(choice.layers)
    if options:
        forms = ('out_type', 'out_stride', 'cls_readout', 'pool')
        asked = {key: value for key, value in asked.items() if key not in forms}
    asked |= options
    if choice.img_size is not None:
        asked['img_size'] = tuple(choice.img_size)
    weights = _weights(choice, asked)
    with quiet_log():
        try:
            backbone = MODELS.build({'type': 'ViTFeatBackbone'} | asked)
            backbone.init_weights()  # an `init_cfg` names a file
        except (KeyError, TypeError) as error:
            raise ValueError(describe(error)) from error
    if choice.random_weights is not None:
        redraw(backbone.vit, choice.random_weights)
    expected = _normalisation(backbone.preprocess if preprocessor is None else preprocessor)
    name = choice.model or Path(choice.config).stem
    return Loaded(backbone.requires_grad_(False).eval(), name, weights, *expected, asked)


def load_neck(choice: Choice) -> nn.Module:
    """Build the neck of a config, with its weights out of the whole model's checkpoint.

    Args:
        choice: What the user wrote; its backbone is what `load_backbone` gives.

    Raises:
        ValueError: If there is no config, if it has no neck or one that takes other maps than the
            ViT's, or if the neck's weights are nowhere.
        OSError: For files that are not there.
    """
    if choice.config is None:
        raise ValueError('a neck is part of a config: give --config CONFIG')
    config = load_config(choice.config, choice.options)
    necks = (config.get('model') or {}).get('neck')
    if not necks:
        raise ValueError(f'{choice.config}: its model has no neck')
    kind = config.model.backbone.get('type')
    if config.model.backbone.get('backbone'):
        raise ValueError(
            f'{choice.config}: its neck takes the maps of {kind}, not those of the ViT'
        )
    scope = config.get('default_scope') or 'mmengine'
    with quiet_log():
        try:
            layers = [
                MODELS.build({'_scope_': scope} | each.to_dict())
                for each in (necks if isinstance(necks, list) else [necks])
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(describe(error)) from error
    neck = layers[0] if isinstance(necks, dict) else nn.Sequential(*layers)
    if choice.random_weights is not None:
        return redraw(neck, choice.random_weights).eval()
    _load_part(neck, choice.checkpoint, 'neck.')
    return neck.eval()


def _load_part(module: nn.Module, checkpoint: str | None, prefix: str) -> None:
    """Load what a whole model's checkpoint holds below a prefix."""
    tensors = {} if checkpoint is None else read_checkpoint(checkpoint)
    own = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    if not own:
        raise ValueError(
            f'{checkpoint or "no --checkpoint"} holds no weights of a {prefix[:-1]}: give '
            f'--checkpoint FILE of a training of this config, or --random-weights SEED for a trial'
        )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f'{checkpoint}: {" ".join(str(error).split())}') from error


def _asked(choice: Choice) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """The backbone as a dict of a config, and the config's data preprocessor."""
    if choice.model is not None:
        if choice.options:
            raise ValueError('--cfg-options change a config: they go with --config, not --model')
        return dict(model_name=choice.model, source=choice.source), None
    config = load_config(choice.config, choice.options)
    model = config.get('model') or {}
    backbone = model_chain({'backbone': {}} | model)[-1]
    if str(backbone.get('type')).split('.')[-1] != 'ViTFeatBackbone':
        raise ValueError(
            f'{choice.config}: model.backbone is {backbone.get("type")!r}; a ViTFeatBackbone is '
            f'needed here'
        )
    unused = ('frozen_stages', 'drop_path_rate', 'with_cp', 'mask_padding')
    asked = {k: v for k, v in backbone.to_dict().items() if k not in unused}
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor')
    return asked, preprocessor


def _normalisation(
    preprocess: Mapping[str, Any],
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Mean, standard deviation and whether channels are BGR, of a data preprocessor."""
    mean, std = preprocess.get('mean') or [0.0] * 3, preprocess.get('std') or [1.0] * 3
    is_rgb = preprocess.get('bgr_to_rgb') or preprocess.get('rgb_to_bgr')  # both turn channels
    return tuple(map(float, mean)), tuple(map(float, std)), not is_rgb


def _weights(choice: Choice, asked: dict[str, Any]) -> str:
    """Where weights come from; `asked` is told."""
    given = {
        '--pretrained': choice.pretrained,
        '--checkpoint': choice.checkpoint is not None,
        '--random-weights': choice.random_weights is not None,
    }
    if sum(given.values()) > 1:
        raise ValueError(f'{" and ".join(k for k, v in given.items() if v)}: give one of them')
    if not any(given.values()):
        own = asked.get('checkpoint') or asked.get('checkpoint_path') or asked.get('init_cfg')
        if own or asked.get('pretrained'):
            return f'of {choice.config}'
        raise ValueError(
            'features of random weights help nobody: give --pretrained, --checkpoint FILE, or '
            '--random-weights SEED for a trial'
        )
    for key in _OF_WEIGHTS:
        asked.pop(key, None)
    asked['pretrained'] = choice.pretrained
    if choice.random_weights is not None:
        return f'random, seed {choice.random_weights}'
    if choice.pretrained:
        return 'pretrained'
    prefix = _trained_prefix(choice.checkpoint)
    if prefix is None:
        asked['checkpoint'] = choice.checkpoint
    else:
        checkpoint = dict(type='Pretrained', checkpoint=choice.checkpoint, prefix=prefix)
        asked['init_cfg'] = checkpoint
    return choice.checkpoint


def _trained_prefix(checkpoint: str) -> str | None:
    """Where our backbone stands in a whole model's checkpoint; `None` in other files."""
    held = names(checkpoint)
    for prefix in ('backbone.backbone.vit.', 'backbone.vit.'):
        if any(name.startswith(prefix) for name in held):
            return prefix
    return None


def _indices(layers: str | Sequence[str | int]) -> str | list[int]:
    layers = [layers] if isinstance(layers, str) else list(layers)
    if len(layers) == 1 and layers[0] in ('last4', 'even4'):
        return layers[0]
    try:
        return [int(each) for each in layers]
    except ValueError:
        raise ValueError(
            f"--layers takes numbers of blocks, or 'last4' or 'even4' alone, got "
            f'{" ".join(map(str, layers))!r}'
        ) from None
