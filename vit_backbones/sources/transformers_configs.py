"""The config of a vision encoder of transformers, by name, folder, model type, config or dict.

Source: https://github.com/huggingface/transformers (Apache-2.0).
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from vit_backbones.sources.base import first_line
from vit_backbones.sources.hub import offline_if_unreachable
from vit_backbones.sources.transformers_families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    Named = str | Path | Mapping[str, object] | PreTrainedConfig

_PARENTS = ('clip', 'siglip', 'siglip2')  # their config holds that of a vision encoder


class _Other(NamedTuple):
    """Stands for a config of a model type that the library itself does not know."""

    model_type: str


def encoder_config(
    transformers: ModuleType, model_name: 'Named', pretrained: bool
) -> 'PreTrainedConfig':
    """The encoder's config, a copy of any that was given."""
    given = isinstance(model_name, Mapping | transformers.PreTrainedConfig)
    shown = type(model_name).__name__ if given else repr(str(model_name))  # in one line
    known = not given and str(model_name) in transformers.CONFIG_MAPPING
    is_type = known and not Path(model_name).is_dir()
    if is_type and model_name not in (*FAMILIES, *_PARENTS):
        raise _refusal(shown, model_name)
    if pretrained and (given or is_type):
        raise ValueError(f'pretrained=True needs a name on the hub or a folder, not {shown}')
    try:
        config = _config(transformers, model_name, pretrained, is_type=is_type)
    except (OSError, TypeError, ValueError) as error:
        missing = isinstance(error, OSError)
        raise (RuntimeError if missing and pretrained else ValueError)(
            f'no config for model_name {shown} of source transformers: {first_line(error)}. '
            f'Give a folder with a config.json, a config or a model type: {", ".join(FAMILIES)}'
        ) from None
    config = getattr(config, 'vision_config', config)
    if config.model_type not in FAMILIES:
        raise _refusal(shown, config.model_type)
    return config


def _refusal(shown: str, model_type: object) -> ValueError:
    return ValueError(
        f'model_name {shown} is of model type {str(model_type)!r}, which source transformers does '
        f'not know here; it knows {", ".join(FAMILIES)}'
    )


def _config(
    transformers: ModuleType, model_name: 'Named', pretrained: bool, *, is_type: bool
) -> 'PreTrainedConfig | _Other':
    if isinstance(model_name, Mapping):
        if (other := _other(transformers, model_name)) is not None:
            return other
        config = transformers.AutoConfig.for_model(**model_name)
        if unknown := set(model_name) - set(type(config)().to_dict()):
            raise ValueError(f'{type(config).__name__} has no {", ".join(sorted(unknown))}')
        return config
    if isinstance(model_name, transformers.PreTrainedConfig):
        return copy.deepcopy(model_name)
    if is_type:
        return transformers.AutoConfig.for_model(model_name)
    with offline_if_unreachable(pretrained):
        return _named(transformers, str(model_name), local_files_only=not pretrained)


def _named(
    transformers: ModuleType, name: str, *, local_files_only: bool
) -> 'PreTrainedConfig | _Other':
    """The config of a folder, or of a name on the hub; code beside it is never run."""
    if Path(name).is_dir() and not (Path(name) / 'config.json').is_file():
        raise ValueError('the folder has no config.json')
    try:
        content, _ = transformers.PreTrainedConfig.get_config_dict(
            name, local_files_only=local_files_only
        )
    except OSError:
        if '/' in name or Path(name).exists():
            raise
        version = transformers.__version__  # not the network's fault: models there have an owner
        raise ValueError(f'no folder, and no model type of transformers {version}') from None
    if (other := _other(transformers, content)) is not None:
        return other
    return transformers.AutoConfig.from_pretrained(
        name, local_files_only=local_files_only, trust_remote_code=False
    )


def _other(transformers: ModuleType, content: Mapping[str, object]) -> _Other | None:
    """The type in a config's dict if the library does not know it."""
    if (model_type := content.get('model_type')) is None:
        raise ValueError('it names no model_type')
    return None if model_type in transformers.CONFIG_MAPPING else _Other(model_type)
