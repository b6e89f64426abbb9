"""The models of all sources: names, sizes, and the licence of their weights where it is stated."""

import difflib
import fnmatch
import re
from collections.abc import Iterator, Sequence

import torch

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.sources import LISTS, Model
from vit_backbones.terminal import quiet_log

MAX_BUILT = 30  # models whose sizes are shown: for that they are built, without memory
_HEADER = ('model', 'params', 'input', 'stride', 'width', 'source', 'licence of the weights')
_UNKNOWN = '-'


def list_models(pattern: str = '*', source: str | None = None) -> Iterator[str]:
    """Lines of a table of the models that `find_models` finds."""
    models = find_models(pattern, source)
    widest = max(len(model.name) for model in models)
    built = len(models) <= MAX_BUILT
    yield _line(_HEADER, widest, built)
    for model in models:
        size = 'x'.join(map(str, model.size)) if model.size else _UNKNOWN
        parameters, *steps = _sizes(model) if built else [_UNKNOWN] * 3
        row = (model.name, parameters, size, *steps, model.source, model.licence or _UNKNOWN)
        yield _line(row, widest, built)
    if not built:
        yield (
            f'{len(models)} models; a pattern that leaves {MAX_BUILT} or fewer shows parameters, '
            f'strides and widths too'
        )


def find_models(pattern: str = '*', source: str | None = None) -> list[Model]:
    """Models that match.

    Args:
        pattern: With wildcards of the shell for the whole name, without for a part of it.
        source: Only those of one library.

    Raises:
        ValueError: If no model matches (similar names are shown), or for an unknown source.
    """
    if source == 'lightly':
        raise ValueError('lightly takes the names of timm and torchvision: list those')
    if source is not None and source not in LISTS:
        raise ValueError(f'source=... must be one of {", ".join(LISTS)}, got {source!r}')
    models = [model for name in LISTS if source in (None, name) for model in LISTS[name]()]
    wanted = pattern.lower()
    wanted = wanted if re.search(r'[*?\[]', wanted) else f'*{wanted}*'
    found = [model for model in models if fnmatch.fnmatchcase(model.name.lower(), wanted)]
    if not found:
        raise ValueError(f'no model matches {pattern!r}{_advice(pattern, models)}')
    return found


def _advice(pattern: str, models: Sequence[Model]) -> str:
    """Similar names, else similar parts of names."""
    wanted = re.sub(r'[*?\[\]]', '', pattern.lower())
    whole = [model.name for model in models]
    names = dict.fromkeys([*(name.split('.')[0] for name in whole), *whole])
    parts = dict.fromkeys(part for name in names for part in re.split(r'[_.]', name))
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.8) or difflib.get_close_matches(
        wanted, parts, n=3, cutoff=0.6
    )
    return f'; did you mean {" or ".join(close)}?' if close else ''


def _sizes(model: Model) -> Sequence[str]:
    """Parameters in millions, strides and widths from the first to the last layer."""
    if model.size is None:  # the name is for models of many sizes
        return [_UNKNOWN] * 3
    try:
        with quiet_log(), torch.device('meta'):
            backbone = ViTFeatBackbone(model.name, source=model.source)
    except Exception:  # a model that cannot be built has no sizes
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
