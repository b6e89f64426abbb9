"""The common part of the adapters of timm's models: preprocessing, norm, positions, layouts.

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import contextlib
import itertools
import re
from collections.abc import Collection
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from vit_backbones.checkpoints import origin
from vit_backbones.checkpoints.layouts import OWN, to_timm
from vit_backbones.checkpoints.reshaping import spell
from vit_backbones.position import Grid
from vit_backbones.sources.base import Source
from vit_backbones.sources.timm_clip import activation_remark
from vit_backbones.sources.timm_positions import (
    TIMM,
    Interpolation,
    num_prefix_rows,
    original_interpolation,
    with_positions,
)

# Words for the width in timm's names
_WIDTHS = ('tiny', 'small', 'base', 'large', 'huge', 'giant', 'gigantic', 'so400m')


class TimmSource(Source):
    """Base of the adapters of timm's models."""

    _has_relative_positions = True

    def native_size(self, vit: nn.Module) -> Grid:
        return native_size(vit)

    def canvas(self, vit: nn.Module, size: Grid) -> Grid:
        """(H, W) of the images that the model itself gets for images of a size."""
        return self.padded(vit, size)

    def preprocess(self, vit: nn.Module) -> dict[str, object]:
        """From timm's `pretrained_cfg`."""
        return origin.preprocessing(vit.pretrained_cfg['mean'], vit.pretrained_cfg['std'])

    def expected(
        self, vit: nn.Module, layout: str, *, named: bool = False
    ) -> dict[str, object] | None:
        tags = timm.list_pretrained(f'{vit.pretrained_cfg.get("architecture")}.*')
        configs = [timm.get_pretrained_cfg(tag) for tag in tags]
        published = [origin.preprocessing(each.mean, each.std) for each in configs]
        return origin.expected(layout, self.preprocess(vit), published, named=named)

    def follow_layout(self, vit: nn.Module, layout: str) -> None:
        """SigLIP's authors and transformers approximate GELU by tanh, and timm in a few sizes."""
        before = getattr(vit, 'layout', '')
        super().follow_layout(vit, layout)
        if origin.TANH in (before, layout):
            for module in vit.modules():
                if type(module) is nn.GELU:
                    module.approximate = 'tanh' if layout == origin.TANH else 'none'

    def set_checkpointing(self, vit: nn.Module) -> None:
        """Timm's own, non-reentrant."""
        try:
            vit.set_grad_checkpointing(True)
        except AssertionError as error:
            raise ValueError(f'with_cp=True: {type(vit).__name__} cannot: {error}') from error

    def norm(self, vit: nn.Module) -> nn.Module | None:
        """Models that pool by average keep only a `fc_norm`, so `None`."""
        # beside an `encoder` it is for pooled features
        norm = None if hasattr(vit, 'encoder') else getattr(vit, 'norm', None)
        return None if isinstance(norm, nn.Identity | nn.ModuleList) else norm

    def position_name(self, vit: nn.Module) -> str | None:
        return None if num_prefix_rows(vit) is None else 'pos_embed'

    def grid(self, vit: nn.Module) -> Grid:
        return vit.patch_embed.grid_size

    def num_position_prefix(self, vit: nn.Module) -> int:
        return num_prefix_rows(vit) or 0

    def interpolation(self, vit: nn.Module, pos_interp: str) -> Interpolation:
        """`timm_positions` lists the authors."""
        return TIMM if pos_interp == 'timm' else original_interpolation(vit)

    def of_width(self, model_name: str, width: int) -> str | None:
        """By another word for the width in timm's name."""
        architecture = model_name.split('.')[0]
        for old, new in itertools.product(_WIDTHS, _WIDTHS):
            name = re.sub(rf'(?<=_){old}(?=_|$)', new, architecture)
            if name != architecture and timm.is_model(name):
                # a few architectures look into their tensors
                with contextlib.suppress(Exception), torch.device('meta'):
                    if timm.create_model(name).embed_dim == width:
                        return name
        return None

    def translate(
        self, vit: nn.Module, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], str | None]:
        """`checkpoints.layouts` lists the layouts."""
        translated, layout = to_timm(tensors, relative=self._has_relative_positions)
        foreign = layout is not None and not layout.startswith(OWN)
        if foreign:
            cls_row = self.has_cls_token(vit) and self.num_position_prefix(vit) > 0
            translated = spell(translated, vit.state_dict().keys(), cls_row=cls_row)
        return translated, layout

    def remark(
        self, vit: nn.Module, model_name: str, path: str | Path | None, names: Collection[str]
    ) -> str | None:
        return activation_remark(model_name, vit, getattr(vit, 'layout', ''), path, names)

    def _positioned(self, vit: nn.Module, grid: Grid, pos_interp: str) -> nn.Module:
        """The model with its positions resampled for a grid, where timm would do it otherwise."""
        if pos_interp == 'timm' or self.position_name(vit) is None:
            return vit
        return with_positions(vit, self.table(vit, grid, pos_interp), grid)


def native_size(vit: nn.Module) -> Grid:
    """(H, W) of the images for which timm's weights of a model are made."""
    return tuple(vit.pretrained_cfg['input_size'][-2:])
