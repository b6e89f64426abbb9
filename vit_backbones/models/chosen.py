"""A chosen backbone or neck with its weights and its normalisation, ready to run."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checkpoints import names, read_checkpoint
from vit_backbones.checkpoints.fitting import LAYOUT_KEY
from vit_backbones.checkpoints.origin import TANH, decode
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import listed, model_chain, type_name
from vit_backbones.config.loading import load_config
from vit_backbones.errors import one_line
from vit_backbones.images import UnreadableImageError
from vit_backbones.loaders import RGB_READER, Reader, normalised_by, reader_of
from vit_backbones.models.backbone_choice import Choice
from vit_backbones.models.random_weights import redraw
from vit_backbones.sources.published import missing_with_fix
from vit_backbones.terminal import quiet_log

_OF_WEIGHTS = ('checkpoint', 'checkpoint_path', 'init_cfg', 'pretrained')


class Loaded(NamedTuple):
    """A backbone that is ready to run, in eval mode and, unless it learns, without gradients."""

    backbone: ViTFeatBackbone
    name: str  # the model's or its config's, as given
    weights: str  # their origin in a few words
    mean: tuple[float, ...]  # of each channel in the model's order, on 0-255
    std: tuple[float, ...]
    is_bgr: bool = False  # the model takes blue first, as configs without `bgr_to_rgb` train it
    options: Mapping[str, Any] = MappingProxyType({})  # arguments with which it was built
    reader: Reader = RGB_READER  # of the images that it was trained on

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image (H, W, in_channels); an `UnreadableImageError` if that fails."""
        image, taken = self.reader.read(path), self.backbone.in_channels
        if image.shape[-1] != taken:
            given = f'it has {image.shape[-1]} channels, and the model takes {taken}'
            raise UnreadableImageError(f'{path}: {given}')
        return image

    def normalised(self, images: np.ndarray) -> Tensor:
        """Normalise images (B, H, W, C) of `reader`; gives (B, C, H, W) float32."""
        images = images[..., ::-1] if self.is_bgr and images.shape[-1] == 3 else images
        images = np.array(images, np.float32, order='C')
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    def fingerprint(self, *settings: Any) -> str:
        """Hash weights, arguments, normalisation and further settings to 64 hexadecimal digits."""
        digest, layout = hashlib.sha256(), decode(self.backbone.weights_layout)
        reads_layout = self.backbone.pos_interp != 'timm' or layout == TANH
        for name, tensor in self.backbone.state_dict().items():
            if name == LAYOUT_KEY and not reads_layout:
                continue  # files of older versions have none
            digest.update(name.encode())
            digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
        options = {k: v for k, v in self.options.items() if k not in _OF_WEIGHTS}
        seen = options, self.mean, self.std, self.is_bgr, settings, *self.reader.steps
        digest.update(json.dumps(seen, default=str, sort_keys=True).encode())
        return digest.hexdigest()


def load_backbone(choice: Choice, *, learns: bool = False, **options: Any) -> Loaded:
    """Build the chosen backbone, with further arguments of `ViTFeatBackbone`, such as `pool`.

    With `learns` parameters that the library trains stay trainable.

    With any of these the config's own `out_type`, `out_stride`, `cls_readout` and `pool` do not
    count.

    Raises:
        ValueError: If the choice is incomplete or contradicts itself, or is refused when built.
        OSError: For files that are not there.
    """
    if (choice.model is None) == (choice.config is None):
        raise ValueError('name one of model=NAME and config=CONFIG')
    asked, config = _asked(choice)
    if choice.layers is not None:
        asked['out_indices'] = _indices(choice.layers)
    if options:
        forms = ('out_type', 'out_stride', 'cls_readout', 'pool')
        asked = {key: value for key, value in asked.items() if key not in forms}
    asked |= options
    if choice.img_size is not None:
        asked['img_size'] = tuple(choice.img_size)
    weights = _weights(choice, asked)
    with _quiet_set_up():
        backbone = MODELS.build({'type': 'ViTFeatBackbone'} | asked)
        backbone.init_weights()  # an `init_cfg` names a file
    if choice.random_weights is not None:
        redraw(backbone.vit, choice.random_weights)
    expected = expected_images(config, backbone)
    name = choice.model or Path(choice.config).stem
    reader = RGB_READER if config is None else reader_of(config)
    if not learns:
        backbone.requires_grad_(False)
    return Loaded(backbone.eval(), name, weights, *expected, asked, reader)


def expected_images(
    config: Config | None, backbone: ViTFeatBackbone
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Mean, std and whether channels are BGR, that a config or the weights ask for."""
    return _normalisation(_preprocess(config, backbone), backbone.in_channels)


def load_neck(choice: Choice) -> nn.Module:
    """Build the neck of a config, with its weights out of the whole model's checkpoint.

    Raises:
        ValueError: If the config has no neck behind the ViT, or the checkpoint no weights of it.
        OSError: For files that are not there.
    """
    if choice.config is None:
        raise ValueError('a neck is part of a config: give config=CONFIG')
    config = load_config(choice.config, choice.options)
    necks = (config.get('model') or {}).get('neck')
    if not necks:
        raise ValueError(f'{choice.config}: its model has no neck')
    kind = config.model.backbone.get('type')
    if config.model.backbone.get('backbone'):
        raise ValueError(f'{choice.config}: its neck takes the maps of {kind}, not of the ViT')
    scope = config.get('default_scope') or 'mmengine'
    with _quiet_set_up():
        layers = [MODELS.build({'_scope_': scope} | each.to_dict()) for each in listed(necks)]
    neck = layers[0] if isinstance(necks, dict) else nn.Sequential(*layers)
    if choice.random_weights is not None:
        return redraw(neck, choice.random_weights).eval()
    _load_part(neck, choice.checkpoint, 'neck.')
    return neck.eval()


@contextlib.contextmanager
def _quiet_set_up() -> Iterator[None]:
    """Log only warnings, and turn errors of the registries into `ValueError`s."""
    try:
        with quiet_log():
            yield
    except (KeyError, TypeError) as error:
        raise ValueError(describe(error)) from error


def _load_part(module: nn.Module, checkpoint: str | None, prefix: str) -> None:
    """Load the part of a whole model's checkpoint below a prefix."""
    tensors = {} if checkpoint is None else read_checkpoint(checkpoint)
    own = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    if not own:
        raise ValueError(
            f'{checkpoint or "no checkpoint=..."} holds no weights of a {prefix[:-1]}: give '
            f'checkpoint=FILE of a training of this config, or random_weights=SEED for a dry run'
        )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f'{checkpoint}: {one_line(error)}') from error


def _asked(choice: Choice) -> tuple[dict[str, Any], Config | None]:
    """The backbone as a dict of a config, and the config."""
    if choice.model is not None:
        if choice.options:
            raise ValueError('options=... change a config: they go with config=..., not model=...')
        return dict(model_name=choice.model, source=choice.source), None
    config = load_config(choice.config, choice.options)
    model = config.get('model') or {}
    backbone = model_chain({'backbone': {}} | model)[-1]
    if type_name(backbone) != 'ViTFeatBackbone':
        raise ValueError(
            f'{choice.config}: model.backbone is {backbone.get("type")!r}; a ViTFeatBackbone is '
            f'needed here'
        )
    unused = ('frozen_stages', 'drop_path_rate', 'with_cp', 'mask_padding')
    return {k: v for k, v in backbone.to_dict().items() if k not in unused}, config


def _preprocess(config: Config | None, backbone: ViTFeatBackbone) -> Mapping[str, Any]:
    """How a config normalises images: in its data preprocessor, else in its pipeline."""
    if config is None:
        return backbone.preprocess or _assumed(backbone)
    given = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor')
    if given and given.get('mean'):
        return given
    if found := normalised_by(config) or given:
        return found
    return (backbone.preprocess or _assumed(backbone)) if given is None else given


def _assumed(backbone: ViTFeatBackbone) -> Mapping[str, Any]:
    """The normalisation that a library has for a model's name, for weights that show none."""
    assumed = backbone.source.preprocess(backbone.vit)
    print_log(
        f'nothing shows which normalisation the weights of {backbone.model_name} expect: images '
        f'get mean {assumed["mean"]} and std {assumed["std"]}, RGB on 0-255, as in the library; '
        f"others come with a tag in the model's name, such as NAME.mae, or with the "
        f'data_preprocessor of a config',
        logger='current',
        level=logging.WARNING,
    )
    return assumed


def _normalisation(
    preprocess: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Mean, standard deviation and whether channels are BGR, of a data preprocessor."""
    mean = preprocess.get('mean') or [0.0] * channels
    std = preprocess.get('std') or [1.0] * channels
    for name, values in (('mean', mean), ('std', std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f'data_preprocessor.{name} has {len(values)} values, and the backbone takes '
                f'{channels} channels: give one for each'
            )
    is_rgb = preprocess.get('bgr_to_rgb') or preprocess.get('rgb_to_bgr')  # both turn channels
    return tuple(map(float, mean)), tuple(map(float, std)), not is_rgb


def _weights(choice: Choice, asked: dict[str, Any]) -> str:
    """Put the weights into `asked`, and name their origin."""
    given = {
        'pretrained=True': choice.pretrained,
        'checkpoint=...': choice.checkpoint is not None,
        'random_weights=...': choice.random_weights is not None,
        'scratch=True': choice.scratch,
    }
    if sum(given.values()) > 1:
        raise ValueError(f'{" and ".join(k for k, v in given.items() if v)}: give one of them')
    if not any(given.values()):
        own = asked.get('checkpoint') or asked.get('checkpoint_path') or asked.get('init_cfg')
        if own or asked.get('pretrained'):
            return f'of {choice.config}'
        raise ValueError(
            'features of random weights help nobody: give pretrained=True, checkpoint=FILE, or '
            'random_weights=SEED for a dry run'
        )
    for key in _OF_WEIGHTS:
        asked.pop(key, None)
    asked['pretrained'] = choice.pretrained
    if choice.random_weights is not None:
        return f'random, seed {choice.random_weights}'
    if choice.pretrained or choice.scratch:
        return 'pretrained' if choice.pretrained else 'none yet'
    with missing_with_fix(choice.source, choice.model, choice.checkpoint):
        held = names(choice.checkpoint)  # our backbone stands below a prefix in a whole model's
    for prefix in ('backbone.backbone.vit.', 'backbone.vit.'):
        if any(name.startswith(prefix) for name in held):
            start = dict(type='Pretrained', checkpoint=choice.checkpoint, prefix=prefix)
            asked['init_cfg'] = start
            break
    else:
        asked['checkpoint'] = choice.checkpoint
    return choice.checkpoint


def _indices(layers: str | Sequence[str | int]) -> str | list[int]:
    layers = [layers] if isinstance(layers, str) else list(layers)
    if len(layers) == 1 and layers[0] in ('last4', 'even4'):
        return layers[0]
    try:
        return [int(each) for each in layers]
    except ValueError:
        raise ValueError(
            f"layers=... takes numbers of blocks, or one of 'last4' and 'even4', got "
            f'{" ".join(map(str, layers))!r}'
        ) from None
