"""Building transformers' vision encoders by name, folder or config, and choosing their adapter.

Source: https://github.com/huggingface/transformers (Apache-2.0). The library is an optional extra,
imported only for its own models.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
from safetensors import SafetensorError
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import nn

from vit_backbones.errors import require
from vit_backbones.position import Grid
from vit_backbones.sources.base import Source, first_line, two
from vit_backbones.sources.build_options import BuildOptions, Model
from vit_backbones.sources.hub import offline_if_unreachable
from vit_backbones.sources.published import no_weights
from vit_backbones.sources.transformers_configs import encoder_config
from vit_backbones.sources.transformers_families import FAMILIES
from vit_backbones.sources.transformers_vit import Family, TransformersViT

_OLDEST = '5.9'  # before, blocks have other names; setup.py has the range

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from vit_backbones.sources.transformers_configs import Named


def build_transformers(model_name: 'Named', options: BuildOptions) -> tuple[Source, nn.Module]:
    """Build an encoder for images of any size, without pooling and head.

    `model_name` is a name on the hub such as `'facebook/dinov2-small'`, a local folder with a
    config.json, a config, its dict, or a model type such as `'dinov2'` for that type's defaults.
    Without `pretrained` it never uses the network: a name must be in the local cache.
    """
    transformers = _library()
    pretrained = options.pretrained
    config = encoder_config(transformers, model_name, pretrained)
    _set_drop_path(config, options.drop_path_rate)
    family = FAMILIES[config.model_type]
    adapt = partial(family.adapter, family._replace(**_statistics(model_name, pretrained)))
    kind = getattr(transformers, family.model)
    wanted = _changed(config, options.patch_size, options.in_channels)
    if not pretrained and isinstance(model_name, str | Path):
        _warn_of_weights(Path(model_name))
    if wanted is config and pretrained:
        vit = _pretrained(kind, model_name, config)
    else:
        vit = _build(kind, wanted)
        if pretrained:
            _transfer(adapt, _pretrained(kind, model_name, config), vit, options.pos_interp)
    source = adapt(vit)
    _grow_drop_path(vit.get_submodule(family.layers), options.drop_path_rate)
    if options.img_size is not None:
        source.set_input_size(vit, options.img_size, options.pos_interp)
    return source, vit


def wrap_transformers(model: nn.Module) -> tuple[TransformersViT, nn.Module] | None:
    """The adapter of the encoder in an existing model of transformers, and that encoder.

    The model may be the encoder itself, one of the library's backbones (without their norms of
    stages), or a whole model with heads and a text encoder. `None` for models of other libraries.
    """
    if not any(kind.__module__.startswith('transformers.') for kind in type(model).__mro__):
        return None
    found = {name: vit for name, vit in model.named_modules() if _family_of(vit) is not None}
    if len(found) == 1:
        (vit,) = found.values()
        family = _family_of(vit)
        return family.adapter(family, vit), vit
    if found:
        raise ValueError(
            f'{type(model).__name__} of transformers holds {len(found)} encoders: give one of '
            f'.{", .".join(found)}'
        )
    encoders = ', '.join(family.model for family in FAMILIES.values())
    raise ValueError(
        f'{type(model).__name__} of transformers is none of {encoders}, nor does it hold one of '
        f"them; source='timm' may have such a ViT"
    )


def list_transformers() -> Iterator[Model]:
    """The model types, each with models of many sizes."""
    return (Model(name, 'transformers') for name in FAMILIES)


def _family_of(vit: nn.Module) -> Family | None:
    """Family of an encoder of transformers; `None` for other modules."""
    transformers = _library()
    for family in FAMILIES.values():
        kinds = tuple(getattr(transformers, name) for name in (family.model, *family.alike))
        if isinstance(vit, kinds):
            return family
    return None


def _library() -> ModuleType:
    purpose, extra = "source='transformers'", 'transformers'
    library = require('transformers', purpose, 'the transformers package', extra=extra)
    if digit_version(library.__version__) < digit_version(_OLDEST):
        raise ImportError(
            f'{purpose} needs transformers {_OLDEST} or newer, and {library.__version__} is '
            f'installed: pip install vit_backbones[{extra}]'
        )
    return library


def _set_drop_path(config: 'PreTrainedConfig', rate: float) -> None:
    if hasattr(config, 'drop_path_rate'):
        config.drop_path_rate = float(rate)
    elif rate:
        raise ValueError(
            f'drop_path_rate={rate}: the {config.model_type} encoders of transformers have no '
            f'stochastic depth; leave it at 0'
        )


def _grow_drop_path(layers: nn.ModuleList, rate: float) -> None:
    """Let stochastic depth grow linearly from 0; the library gives all blocks the same."""
    for index, layer in enumerate(layers):
        drop_path = getattr(layer, 'drop_path', None)
        if hasattr(drop_path, 'drop_prob'):
            drop_path.drop_prob = rate * index / max(1, len(layers) - 1)


def _changed(
    config: 'PreTrainedConfig', patch_size: Grid | None, in_channels: int
) -> 'PreTrainedConfig':
    """The config with another patch size and number of channels, or itself if they are its own."""
    patch = patch_size or two(config.patch_size)
    if (patch, in_channels) == (two(config.patch_size), config.num_channels):
        return config
    changed = copy.deepcopy(config)
    changed.patch_size = patch[0] if patch[0] == patch[1] else patch
    changed.num_channels = in_channels
    return changed


def _build(kind: type[nn.Module], config: 'PreTrainedConfig') -> nn.Module:
    try:
        return kind(config)
    except TypeError as error:  # the library divides by the patch size
        raise ValueError(
            f'{kind.__name__} of transformers takes only square patches and images, got patch_size='
            f'{config.patch_size} and image_size={config.image_size}'
        ) from error


def _warn_of_weights(folder: Path) -> None:
    if any(folder.glob('*.safetensors')) or any(folder.glob('*.bin')):
        print_log(
            f'{folder} holds weights, which are not loaded: pretrained=True loads them',
            logger='current',
            level=logging.WARNING,
        )


def _pretrained(
    kind: type[nn.Module], model_name: str | Path, config: 'PreTrainedConfig'
) -> nn.Module:
    from vit_backbones.sources.transformers_keys import UNUSED

    try:
        with offline_if_unreachable():
            vit, report = kind.from_pretrained(
                str(model_name), config=config, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise no_weights(model_name, first_line(error)) from None
    missing = sorted(name for name in report['missing_keys'] if not UNUSED.search(name))
    if missing:
        raise RuntimeError(
            f'the pretrained weights of {model_name!r} lack {len(missing)} tensors of '
            f'{kind.__name__}, among them {", ".join(missing[:3])}'
        )
    vit.not_loaded = {name.split('.')[0] for name in report['missing_keys']}
    return vit


def _transfer(
    adapt: Callable[[nn.Module], TransformersViT],
    weights: nn.Module,
    vit: nn.Module,
    pos_interp: str,
) -> None:
    """Copy weights to a model with another patch size or number of channels."""
    vit.not_loaded = weights.not_loaded
    old, new = adapt(weights), adapt(vit)
    tensors, target, name = weights.state_dict(), vit.state_dict(), old.patch_embed_name()
    if name is None:
        raise ValueError(
            f'{type(vit).__name__} keeps the patch size and the channels of its pretrained weights'
            f': leave patch_size and in_channels out'
        )
    kernel = adapt_input_conv(target[name].shape[1], tensors[name])
    tensors[name] = resample_patch_embed(kernel, list(target[name].shape[-2:]))
    if (table := old.position_name(weights)) is not None:
        positions = old.table(weights, new.grid(vit), pos_interp)
        tensors[table] = positions.reshape(target[table].shape)
    try:
        vit.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f'{type(vit).__name__} cannot take its pretrained weights to a patch of '
            f'{vit.config.patch_size}: its relative positions are for its own patch size'
        ) from error


def _statistics(model_name: 'Named', download: bool) -> dict[str, object]:
    """`mean` and `std` (0-255) of the preprocessor_config.json beside a config, if there is one."""
    from transformers.utils import cached_file

    if not isinstance(model_name, str | Path):
        return {}
    try:
        with offline_if_unreachable(download):
            path = cached_file(
                str(model_name), 'preprocessor_config.json', local_files_only=not download
            )
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        statistics = {
            ours: tuple(round(255 * value, 4) for value in content[theirs])
            for ours, theirs in (('mean', 'image_mean'), ('std', 'image_std'))
        }
        return statistics | {'alike_normalised': True}
    except (OSError, KeyError, ValueError):  # there is none, or none for images
        return {}
