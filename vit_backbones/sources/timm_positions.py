"""Positions of timm's models: how their authors resample them, and the grid of each table.

Source: https://github.com/huggingface/pytorch-image-models (Apache-2.0).
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from vit_backbones.checkpoints.fitting import GRID_KEY
from vit_backbones.position import Grid, resample_relative
from vit_backbones.sources.copies import view

Interpolation = Mapping[str, object]
TIMM: Interpolation = MappingProxyType({'antialias': True})
_BICUBIC: Interpolation = MappingProxyType({'antialias': False})
_BICUBIC_BY_CORNERS: Interpolation = MappingProxyType({'antialias': False, 'align_corners': True})
_BILINEAR: Interpolation = MappingProxyType({'antialias': False, 'mode': 'bilinear'})
_BILINEAR_BY_CORNERS: Interpolation = MappingProxyType({**_BILINEAR, 'align_corners': True})
_SCALED: Interpolation = MappingProxyType({'antialias': False, 'offset': 0.1})
# How authors resample. The first pattern found in '<layout of the file> <architecture>.<tag>'
# counts, and `_BICUBIC` without any
ORIGINAL: tuple[tuple[str, Interpolation], ...] = (
    # facebookresearch/perception_models (Apache-2.0), whatever the layout
    (r'\bvit_pe_', _BILINEAR),
    # pytorch/vision (BSD-3-Clause), `interpolate_embeddings`
    (r'^torchvision ', _BICUBIC_BY_CORNERS),
    # huggingface/transformers (Apache-2.0) filters only DINOv2 with registers
    (r'^transformers .*_reg\d', TIMM),
    # transformers; mmpretrain and mmseg (Apache-2.0), `resize_pos_embed`; facebookresearch/mae
    # (CC-BY-NC-4.0) and baaivision/EVA (MIT), `interpolate_pos_embed`; facebookresearch/detectron2
    # (Apache-2.0), `get_abs_pos`
    (r'^(transformers|mmpretrain|mmseg|OpenMMLab|MAE|EVA|ViTDet) ', _BICUBIC),
    # facebookresearch/dinov2 (Apache-2.0), `interpolate_pos_encoding`: filters only with registers
    (r'^Meta DINOv2 .*_reg\d', TIMM),
    (r'^Meta DINOv2 ', _SCALED),
    # google-research/big_vision (Apache-2.0), `resample_posemb`: SciPy's zoom of order 1, which
    # keeps the corners; their other projects do the same
    (r'^big_vision |\.(augreg|orig|sam)_|\.(v2_)?webli|\.pali', _BILINEAR_BY_CORNERS),
    # mlfoundations/open_clip (MIT), `resize_pos_embed`
    (r'^OpenCLIP |_clip_', TIMM),
    # dinov2 again; other ViTs with registers were trained in timm, and so were some without
    (r'_reg\d|\.(augreg2|sbb\d?|sw)_', TIMM),
    # facebookresearch/dino (Apache-2.0) and dinov2 add to the grid before they take the scale
    (r'dinov2|\.dino$', _SCALED),
)


def original_interpolation(vit: nn.Module) -> Interpolation:
    """Keyword arguments with which `resample_positions` does as the authors of the weights do.

    The layout of the loaded file shows the authors, if it is not timm's own (`vit.layout`);
    otherwise the model's architecture and tag do.
    """
    config = {'architecture': '', 'tag': '', **getattr(vit, 'pretrained_cfg', {})}
    authors = f'{getattr(vit, "layout", "")} {config["architecture"]}.{config["tag"]}'
    return next((how for pattern, how in ORIGINAL if re.search(pattern, authors)), _BICUBIC)


def num_prefix_rows(vit: nn.Module) -> int | None:
    """Rows of `vit.pos_embed` in front of the patches' grid; `None` without such a table.

    The table is (1, rows + h*w, C), or (1, h, w, C) in SAM.
    """
    table = getattr(vit, 'pos_embed', None)
    grid = getattr(getattr(vit, 'patch_embed', None), 'grid_size', None)
    if not isinstance(table, Tensor) or grid is None:
        return None
    if table.ndim == 4:
        return 0 if tuple(table.shape[1:3]) == tuple(grid) else None
    rows = table.shape[1] - grid[0] * grid[1]
    return rows if rows in (0, getattr(vit, 'num_prefix_tokens', 0)) else None


def biases_of_grid(vit: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of tables of relative biases between all patches, as in BEiT."""
    grid = getattr(getattr(vit, 'patch_embed', None), 'grid_size', None)
    for name, module in vit.named_modules():
        table = getattr(module, 'relative_position_bias_table', None)
        if table is not None and grid is not None and tuple(module.window_size) == tuple(grid):
            yield f'{name}.relative_position_bias_table', module


def fitted_biases(vit: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tables of such biases, resized as timm does, but from the grid that it records.

    Timm guesses the grid; tables of files that record none are left to it.
    """
    if GRID_KEY not in tensors:
        return {}
    old = tuple(tensors[GRID_KEY].tolist())
    return {
        name: resize_rel_pos_bias_table(
            tensors[name],
            module.window_size,
            module.relative_position_bias_table.shape,
            old_window_size=old,
        )
        for name, module in biases_of_grid(vit)
        if name in tensors
    }


def fitted_axes(vit: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's relative positions, a table for each axis (SAM, ViTDet), resized to the model's."""
    return {
        name: resample_relative(tensors[name], len(target))
        for name, target in vit.named_parameters()
        if name.endswith(('.rel_pos_h', '.rel_pos_w')) and name in tensors
    }


def with_positions(vit: nn.Module, table: Tensor, grid: Grid) -> nn.Module:
    """A shallow copy of the model with another position table; the model stays as it is."""
    patch_embed = view(vit.patch_embed)
    patch_embed.grid_size = grid
    return view(vit, {'pos_embed': table}, patch_embed=patch_embed)
