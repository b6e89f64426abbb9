"""Builders of models by the `source` argument, and adapters of models that exist already."""

from collections.abc import Callable

from torch import Tensor, nn

from vit_backbones.sources.base import Source
from vit_backbones.sources.copies import twin
from vit_backbones.sources.lightly_vit import build_lightly, wrap_lightly
from vit_backbones.sources.presets import build_sapiens
from vit_backbones.sources.timm_build import build_timm, wrap_timm
from vit_backbones.sources.torchvision_vit import build_torchvision, wrap_torchvision
from vit_backbones.sources.transformers_build import build_transformers, wrap_transformers

SOURCES: dict[str, Callable[..., tuple[Source, nn.Module]]] = {
    'timm': build_timm,
    'torchvision': build_torchvision,
    'lightly': build_lightly,
    'sapiens': build_sapiens,
    'transformers': build_transformers,
}
_WRAPPERS: tuple[Callable[[nn.Module], tuple[Source, nn.Module] | None], ...] = (
    wrap_lightly,
    wrap_timm,
    wrap_torchvision,
    wrap_transformers,
)

__all__ = ['SOURCES', 'Source', 'wrap']


def wrap(vit: nn.Module) -> tuple[Source, nn.Module]:
    """The adapter of an existing model, and a copy of the ViT in it that shares its weights.

    The copy may be pruned and frozen; the model given is left as it is.

    Raises:
        ValueError: If no adapter knows the model.
    """
    shared = twin(vit, parameter=lambda weight: weight, buffer=Tensor.clone)
    for wrapper in _WRAPPERS:
        if (found := wrapper(shared)) is not None:
            return found
    raise ValueError(
        f'no source knows {type(vit).__module__}.{type(vit).__name__}; those of '
        'timm, torchvision, transformers and lightly can be wrapped'
    )
