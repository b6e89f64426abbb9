"""Positions of timm's models: who resamples them how, and which grid a table is for.

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
# Who resamples how. Patterns are sought in '<layout of the file> <architecture>.<tag>'; the first
# that is found counts, and `_BICUBIC` where none is
ORIGINAL: tuple[tuple[str, Interpolation], ...] = (
    # facebookresearch/perception_models (Apache-2.0), whatever the layout
    (r'\bvit_pe_', _BILINEAR),
    # pytorch/vision (BSD-3-Clause), `interpolate_embeddings`
    (r'^torchvision ', _BICUBIC_BY_CORNERS),
    # huggingface/transformers (Apache-2.0) filters DINOv2 with registers, nothing else
    (r'^transformers .*_reg\d', TIMM),
    # transformers; mmpretrain and mmseg (Apache-2.0), `resize_pos_embed`; facebookresearch/mae
    # (CC-BY-NC-4.0) and baaivision/EVA (MIT), `interpolate_pos_embed`; facebookresearch/detectron2
    # (Apache-2.0), `get_abs_pos`
    (r'^(transformers|mmpretrain|mmseg|OpenMMLab|MAE|EVA|ViTDet) ', _BICUBIC),
    # google-research/big_vision (Apache-2.0), `resample_posemb`: SciPy's zoom of order 1, which
    # keeps the corners; their other projects do the same
    (r'^big_vision |\.(augreg|orig|sam)_|\.(v2_)?webli|\.pali', _BILINEAR_BY_CORNERS),
    # mlfoundations/open_clip (MIT), `resize_pos_embed`
    (r'^OpenCLIP |_clip_', TIMM),
    # facebookresearch/dinov2 (Apache-2.0), `interpolate_pos_encoding`: filters with registers only;
    # other ViTs with registers were trained in timm, as some without
    (r'_reg\d|\.(augreg2|sbb\d?|sw)_', TIMM),
    # dinov2 and facebookresearch/dino (Apache-2.0) add to the grid before they take the scale
    (r'dinov2|\.dino$', _SCALED),
)


def original_interpolation(vit: nn.Module) -> Interpolation:
    """Keyword arguments of `resample_positions` as the authors of a model's weights resample.

    The authors are told by the layout of the file that was loaded, if it is not timm's own
    (`vit.layout`), else by the model's architecture and tag.
    """
    config = {'architecture': '', 'tag': '', **getattr(vit, 'pretrained_cfg', {})}
    authors = f'{getattr(vit, "layout", "")} {config["architecture"]}.{config["tag"]}'
    return next((how for pattern, how in ORIGINAL if re.search(pattern, authors)), _BICUBIC)


def num_prefix_rows(vit: nn.Module) -> int | None:
    """Rows of `vit.pos_embed` in front of the patches' grid; `None` where there is no such table.

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
    """Tables of relative biases between all patches, as BEiT has: names and their modules."""
    grid = getattr(getattr(vit, 'patch_embed', None), 'grid_size', None)
    for name, module in vit.named_modules():
        table = getattr(module, 'relative_position_bias_table', None)
        if table is not None and grid is not None and tuple(module.window_size) == tuple(grid):
            yield f'{name}.relative_position_bias_table', module


def fitted_biases(vit: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tables of a file that records their grid, resized as timm does; it guesses the grid."""
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
    """Relative positions of SAM and ViTDet, one table an axis, in the lengths of the model's."""
    return {
        name: resample_relative(tensors[name], len(target))
        for name, target in vit.named_parameters()
        if name.endswith(('.rel_pos_h', '.rel_pos_w')) and name in tensors
    }


def with_positions(vit: nn.Module, table: Tensor, grid: Grid) -> nn.Module:
    """A shallow copy of the model that holds another position table; the model is left as it is."""
    patch_embed = view(vit.patch_embed)
    patch_embed.grid_size = grid
    return view(vit, {'pos_embed': table}, patch_embed=patch_embed)
