"""Choose the function that builds a model: by `model_name` and `source`, or by `arch`."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from vit_backbones.arguments import choice
from vit_backbones.sources import SOURCES, Source, wrap
from vit_backbones.sources.build_options import BuildOptions
from vit_backbones.sources.presets import build_preset, build_sapiens

_REBUILDING = ('pretrained', 'img_size', 'patch_size', 'drop_path_rate')
Build = Callable[..., tuple[Source, nn.Module]]


def choose_build(
    model_name: str | nn.Module | None,
    source: str | Build,
    arch: str | Mapping[str, int] | None,
    spelling: Mapping[str, object],
) -> tuple[str | None, Build]:
    """The model's name for messages, if it has one, and the function that builds it.

    Args:
        model_name: A name, or an existing model.
        source: A name of `SOURCES`, or a function.
        arch: mmpretrain's name or sizes of a ViT, in place of both.
        spelling: Options of mmpretrain's ViT, `None` if not given.
    """
    given = {name: value for name, value in spelling.items() if value is not None}
    if arch is not None:
        if model_name is not None or source != 'timm':
            raise ValueError('arch replaces model_name and source: give only arch, or those two')
        name = arch if isinstance(arch, str) else 'custom'
        return name, partial(build_preset, arch, **given)
    if model_name is None:
        raise ValueError('give model_name, or arch')
    if isinstance(model_name, nn.Module):
        name, build = None, partial(_wrap, model_name, source)
    else:
        build = source if callable(source) else SOURCES[choice('source', source, SOURCES)]
        name = model_name if isinstance(model_name, str) else None
        build = partial(build, model_name)
    if given and getattr(build, 'func', None) is not build_sapiens:
        raise ValueError(f"{', '.join(given)}: only with arch=... or source='sapiens'")
    return name, partial(build, **given)


def _wrap(vit: nn.Module, source: str | Build, options: BuildOptions) -> tuple[Source, nn.Module]:
    """Take an existing model; refuse options that would rebuild it."""
    rebuild = [name for name in _REBUILDING if getattr(options, name)]
    if source != 'timm':
        rebuild.insert(0, 'source')
    if rebuild:
        raise TypeError(f'an existing model is taken as it is, not with {", ".join(rebuild)}')
    source, vit = wrap(vit)
    own = source.in_channels(vit)
    if options.in_channels not in (None, own):
        raise ValueError(
            f'in_channels={options.in_channels}: the existing {type(vit).__name__} takes images of '
            f'{own} channels; leave in_channels out'
        )
    return source, vit
