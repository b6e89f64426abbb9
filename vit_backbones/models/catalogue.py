"""The models of all sources: names, sizes, and the licence of their weights where it is stated."""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import timm
import torch
import torchvision

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.sources.presets import SAPIENS
from vit_backbones.sources.transformers_families import FAMILIES
from vit_backbones.terminal import quiet_log

MAX_BUILT = 30  # models of which the sizes are told: for that they are built, without memory
_HEADER = ('model', 'params', 'input', 'stride', 'width', 'source', 'licence of the weights')
_UNKNOWN = '-'


class Model(NamedTuple):
    """A model as its library lists it.

    Attributes:
        name: For `model_name`, of transformers a model type.
        source: Its library.
        size: (H, W) of the images that its weights are made for, if told.
        licence: Of its weights, if told.
    """

    name: str
    source: str
    size: tuple[int, int] | None = None
    licence: str | None = None


def print_models(pattern: str = '*', source: str | None = None) -> None:
    """Print the models that match, a line each.

    Args:
        pattern: With wildcards as of the shell for the whole name, without for a part of it.
        source: Only those of one library.

    Raises:
        ValueError: If no model matches, or for an unknown source.
    """
    models = find_models(pattern, source)
    widest = max(len(model.name) for model in models)
    built = len(models) <= MAX_BUILT
    print(_line(_HEADER, widest, built))
    for model in models:
        size = 'x'.join(map(str, model.size)) if model.size else _UNKNOWN
        parameters, *steps = _sizes(model) if built else [_UNKNOWN] * 3
        row = (model.name, parameters, size, *steps, model.source, model.licence or _UNKNOWN)
        print(_line(row, widest, built), flush=True)
    if not built:
        print(
            f'{len(models)} models; a pattern that leaves {MAX_BUILT} or fewer shows parameters, '
            f'strides and widths too'
        )


def find_models(pattern: str = '*', source: str | None = None) -> list[Model]:
    """Models that match.

    Args:
        pattern: As of `print_models`.
        source: Likewise.

    Raises:
        ValueError: Likewise; similar names are told.
    """
    if source == 'lightly':
        raise ValueError('lightly takes the names of timm and torchvision: list those')
    if source is not None and source not in _LISTS:
        raise ValueError(f'--source must be one of {", ".join(_LISTS)}, got {source!r}')
    models = [model for name in _LISTS if source in (None, name) for model in _LISTS[name]()]
    wanted = pattern.lower()
    wanted = wanted if re.search(r'[*?\[]', wanted) else f'*{wanted}*'
    found = [model for model in models if fnmatch.fnmatchcase(model.name.lower(), wanted)]
    if not found:
        raise ValueError(f'no model matches {pattern!r}{_advice(pattern, models)}')
    return found


def _advice(pattern: str, models: Sequence[Model]) -> str:
    """Names that are similar as a whole, else parts of names that are."""
    wanted = re.sub(r'[*?\[\]]', '', pattern.lower())
    whole = [model.name for model in models]
    names = dict.fromkeys([*(name.split('.')[0] for name in whole), *whole])
    parts = dict.fromkeys(part for name in names for part in re.split(r'[_.]', name))
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.8) or difflib.get_close_matches(
        wanted, parts, n=3, cutoff=0.6
    )
    return f'; did you mean {" or ".join(close)}?' if close else ''


def _timm() -> Iterator[Model]:
    """Each architecture with its published weights, one by one; those without any by themselves."""
    tagged = timm.list_pretrained()
    bare = set(timm.list_models()) - {name.split('.')[0] for name in tagged}
    for name in sorted([*tagged, *bare]):
        config = timm.get_pretrained_cfg(name)
        licence = config.license if name in tagged else None
        yield Model(name, 'timm', tuple(config.input_size[1:]), licence)


def _torchvision() -> Iterator[Model]:
    for name in torchvision.models.list_models(include='vit_*'):
        meta = torchvision.models.get_model_weights(name).DEFAULT.meta
        yield Model(name, 'torchvision', tuple(meta['min_size']), meta.get('license'))


def _sapiens() -> Iterator[Model]:
    return (Model(name, 'sapiens', (1024, 1024)) for name in SAPIENS)


def _transformers() -> Iterator[Model]:
    return (Model(name, 'transformers') for name in FAMILIES)


_LISTS: dict[str, Callable[[], Iterator[Model]]] = {
    'timm': _timm,
    'torchvision': _torchvision,
    'sapiens': _sapiens,
    'transformers': _transformers,
}


def _sizes(model: Model) -> Sequence[str]:
    """Parameters in millions, strides and widths from the first to the last layer."""
    if model.source == 'transformers':  # a type has models of many sizes
        return [_UNKNOWN] * 3
    try:
        with quiet_log(), torch.device('meta'):
            backbone = ViTFeatBackbone(model.name, source=model.source)
    except Exception:  # what cannot be built has no sizes
        return [_UNKNOWN] * 3
    number = sum(parameter.numel() for parameter in backbone.parameters())
    strides = [max(stride) for stride in backbone.layer_strides]
    widths = backbone.layer_channels
    return f'{number / 1e6:.1f} M', _span(strides), _span(widths)


def _span(values: Sequence[int]) -> str:
    first, last = values[0], values[-1]
    return f'{last}' if first == last else f'{first}-{last}'


def _line(cells: Sequence[str], widest: int, built: bool) -> str:
    name, params, size, stride, width, source, licence = cells
    sizes = f'{params:>9}  {size:>9}  {stride:>7}  {width:>9}' if built else f'{size:>9}'
    return f'{name:<{widest}}  {sizes}  {source:<12}  {licence}'.rstrip()
