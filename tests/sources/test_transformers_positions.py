"""How positions of transformers' encoders are resampled: the library's way and the authors'."""

import pytest
import torch
import torch.nn.functional as F
from encoders import library_model
from redraw import images, timm_vit
from scipy import ndimage

from vit_backbones import ViTFeatBackbone

GRIDS = [(18, 24), (24, 18), (5, 9), (31, 7)]


def bicubic(maps, grid):
    """DeiT, https://github.com/facebookresearch/deit, main.py."""
    return F.interpolate(maps, size=grid, mode='bicubic', align_corners=False)


def dinov2(maps, grid):
    """https://github.com/facebookresearch/dinov2, `interpolate_pos_encoding`, offset 0.1."""
    scale = tuple((side + 0.1) / old for side, old in zip(grid, maps.shape[-2:], strict=True))
    return F.interpolate(maps, scale_factor=scale, mode='bicubic')


def registers(maps, grid):
    """The same file's way with `interpolate_antialias` and no offset."""
    return F.interpolate(maps, size=grid, mode='bicubic', antialias=True)


def big_vision(maps, grid):
    """https://github.com/google-research/big_vision, `resample_posemb`: SciPy's zoom of order 1."""
    zoom = [new / old for new, old in zip(grid, maps.shape[-2:], strict=True)]
    return torch.from_numpy(ndimage.zoom(maps.numpy(), (1, 1, *zoom), order=1))


def naflex(maps, grid):
    """big_vision's naflex_vit.py: `jax.image` with linear filters that widen when shrinking."""
    rows, columns = (triangles(new, old) for new, old in zip(grid, maps.shape[-2:], strict=True))
    return rows @ maps @ columns.T


def triangles(new, old):
    """(new, old) weights: triangles about each centre, as wide as the coarser of both grids."""
    step = old / new
    centres = (torch.arange(new) + 0.5) * step - 0.5
    weights = 1 - (centres[:, None] - torch.arange(old)).abs() / max(step, 1)
    weights = weights.clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


AUTHORS = {
    'deit': bicubic,
    'dinov2': dinov2,
    'dinov2_with_registers': registers,
    'siglip_vision_model': big_vision,
    'siglip2_vision_model': naflex,
}


@pytest.mark.parametrize('grid', GRIDS, ids=str)
@pytest.mark.parametrize('name', AUTHORS)
@torch.no_grad()
def test_original_positions_are_those_of_the_authors(name, grid):
    ours = ViTFeatBackbone.from_module(library_model(name), pos_interp='original')
    prefix, (rows, columns) = ours.num_prefix_tokens, ours.source.grid(ours.vit)
    prefix = 1 if name == 'dinov2_with_registers' else prefix  # registers have no position
    table = ours.vit.get_parameter(ours.source.position_name(ours.vit))
    table = table.reshape(1, -1, table.shape[-1])
    maps = AUTHORS[name](table[:, prefix:].mT.unflatten(2, (rows, columns)), grid)
    expected = torch.cat([table[:, :prefix], maps.flatten(2).mT], dim=1)
    torch.testing.assert_close(ours.source.table(ours.vit, grid, 'original'), expected)


@pytest.mark.parametrize(
    'name',
    ['vit', 'deit', 'dinov2_with_registers', 'clip_vision_model', 'siglip2_vision_model', 'vitdet'],
)
@torch.no_grad()
def test_log_tells_where_both_ways_are_one(name, log):
    vit, x = library_model(name), images(250, 333)
    first, second = (
        ViTFeatBackbone.from_module(vit, pos_interp=way).eval()(x)[0]
        for way in ('timm', 'original')
    )
    assert torch.equal(first, second)
    assert [line.partition(' ')[2] for line in log if 'pos_interp' in line] == [
        "resamples positions in one way only: pos_interp='original' changes nothing"
    ]


@pytest.mark.parametrize('name', ['dinov2', 'siglip_vision_model'])
@torch.no_grad()
def test_log_is_silent_where_the_ways_differ(name, log):
    vit, x = library_model(name), images(250, 333)
    first, second = (
        ViTFeatBackbone.from_module(vit, pos_interp=way).eval()(x)[0]
        for way in ('timm', 'original')
    )
    assert (first - second).abs().max() > 0.01
    assert [line for line in log if 'pos_interp' in line] == []


@pytest.mark.parametrize('name', ['dinov3_vit', 'beit', 'swin'])
def test_log_tells_where_there_is_no_table(name, log):
    ViTFeatBackbone.from_module(library_model(name), pos_interp='original')
    assert any('resamples no table of positions here' in line for line in log)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('vit_small_patch14_reg4_dinov2', 'resamples positions in one way only'),
        ('vit_small_patch16_dinov3', 'resamples no table of positions here'),
    ],
)
def test_log_tells_it_for_timms_models_too(name, reason, log):
    ViTFeatBackbone.from_module(timm_vit(name, depth=1), pos_interp='original')
    assert any(reason in line for line in log)
