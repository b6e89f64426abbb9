"""Lightly's ViTs: `MAEBackbone`, and the masked ViTs that hold one of timm or torchvision.

They run as the ViT inside does, but resample positions in another way, which
`pos_interp='original'` follows. Nothing here needs Lightly itself.

Source: https://github.com/lightly-ai/lightly (MIT).
"""

import difflib
import sys

import timm
import torchvision
from torch import nn

from vit_backbones.checkpoints.origin import IMAGENET
from vit_backbones.sources.base import Source
from vit_backbones.sources.build_options import BuildOptions
from vit_backbones.sources.timm_build import build_timm, close_names, wrap_timm
from vit_backbones.sources.timm_plain import TimmPlain
from vit_backbones.sources.torchvision_vit import (
    TorchvisionViT,
    build_torchvision,
    wrap_torchvision,
)


def build_lightly(
    model_name: str, options: BuildOptions, **more: object
) -> tuple[Source, nn.Module]:
    """Build the ViT inside Lightly's models by its name in torchvision or timm.

    It loads the files of Lightly's masked ViTs. `more` are further options of `build_timm`.
    """
    names = torchvision.models.list_models(include='vit_*')
    if model_name in names:
        source, vit = build_torchvision(model_name, options, **more)
    elif ':' in str(model_name) or timm.is_model(str(model_name).split('.')[0]):
        source, vit = build_timm(model_name, options, **more)
    else:
        close = difflib.get_close_matches(str(model_name), names, n=2, cutoff=0)
        raise ValueError(
            f'unknown model_name {model_name!r} for source lightly, which takes the names of ViTs '
            f'of torchvision and timm; closest: {", ".join((*close, *close_names(model_name)))}'
        )
    return _with_lightlys_positions(source, antialias=True), vit


def wrap_lightly(model: nn.Module) -> tuple[Source, nn.Module] | None:
    """The adapter of an existing model of Lightly and the ViT in it; `None` for other models."""
    modules = sys.modules.get('lightly.models.modules')
    if modules is None:  # whoever made such a model imported it
        return None
    if isinstance(model, modules.MAEBackbone):
        source, vit = wrap_torchvision(model)
        return _with_lightlys_positions(source, antialias=False), vit
    masked = modules.MaskedVisionTransformerTIMM, modules.MaskedVisionTransformerTorchvision
    if not isinstance(model, masked):
        return None
    found = wrap_torchvision(model.vit) or wrap_timm(model.vit)
    if found is None:
        return None
    source, vit = found
    return _with_lightlys_positions(source, antialias=model.antialias), vit


def _with_lightlys_positions(source: Source, *, antialias: bool) -> Source:
    """The adapter with Lightly's resampling of positions, if the ViT is a plain one."""
    if isinstance(source, TorchvisionViT):
        return _LightlyTorchvision(antialias)
    return _LightlyTimm(antialias) if type(source) is TimmPlain else source


class _Positions:
    """Resample positions bicubically by the size, without aligned corners."""

    def __init__(self, antialias: bool) -> None:
        super().__init__()
        self._antialias = antialias

    def interpolation(self, vit: nn.Module, pos_interp: str) -> dict[str, object]:
        return {'antialias': pos_interp == 'timm' or self._antialias}

    def expected(self, vit: nn.Module, layout: str, *, named: bool = False) -> dict[str, object]:
        """Lightly's transforms normalise by ImageNet's mean."""
        return dict(IMAGENET)


class _LightlyTorchvision(_Positions, TorchvisionViT):
    """A ViT of torchvision inside a model of Lightly."""


class _LightlyTimm(_Positions, TimmPlain):
    """A plain ViT of timm inside a model of Lightly."""
