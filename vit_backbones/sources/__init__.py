"""Model libraries by the `source` argument: builders, wrappers, lists of names."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from vit_backbones.sources.base import Source
from vit_backbones.sources.build_options import Model
from vit_backbones.sources.copies import twin

# A library is a module that defines build_<name>, and where it can wrap_<name> (existing models)
# and list_<name> (for `python -m vit_backbones list`). Later ones are the first to wrap
_LIBRARIES = {
    'timm': 'timm_build',
    'torchvision': 'torchvision_vit',
    'lightly': 'lightly_vit',
    'sapiens': 'presets',
    'transformers': 'transformers_build',
}


def _functions(kind: str) -> dict[str, Any]:
    modules = {name: import_module(f'{__name__}.{file}') for name, file in _LIBRARIES.items()}
    found = {name: getattr(module, f'{kind}_{name}', None) for name, module in modules.items()}
    return {name: function for name, function in found.items() if function}


SOURCES: dict[str, Callable[..., tuple[Source, nn.Module]]] = _functions('build')
LISTS: dict[str, Callable[[], Iterator[Model]]] = _functions('list')
_WRAPPERS: dict[str, Callable[[nn.Module], tuple[Source, nn.Module] | None]] = _functions('wrap')

__all__ = ['LISTS', 'SOURCES', 'Model', 'Source', 'wrap']


def wrap(vit: nn.Module) -> tuple[Source, nn.Module]:
    """The adapter of an existing model, and a copy of the ViT in it that shares its weights.

    The copy may be pruned and frozen; the model given stays as it is.
    """
    shared = twin(vit, Tensor.clone, parameter=lambda weight: weight)
    for wrapper in reversed(_WRAPPERS.values()):
        if (found := wrapper(shared)) is not None:
            return found
    raise ValueError(
        f'no source knows {type(vit).__module__}.{type(vit).__name__}; '
        f'models of {", ".join(_WRAPPERS)} can be wrapped'
    )
