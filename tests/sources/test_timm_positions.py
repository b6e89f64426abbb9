"""Whose resampling of positions a model's name stands for, and where a file's layout overrules."""

import copy

import layouts
import pytest
import torch
from redraw import backbone, error, images, timm_vit

from vit_backbones.position import resample_positions

PLAIN = dict(antialias=False)
TIMM = dict(antialias=True)
CORNERS = dict(antialias=False, mode='bilinear', align_corners=True)


@pytest.mark.parametrize(
    ('name', 'how'),
    [
        ('deit_tiny_patch16_224', PLAIN),
        ('vit_base_patch16_224.mae', PLAIN),
        ('vit_base_patch16_224.dino', dict(antialias=False, offset=0.1)),
        ('vit_tiny_patch16_224.augreg_in21k', CORNERS),
        ('vit_base_patch16_224.sam_in1k', CORNERS),
        ('vit_base_patch16_siglip_224.webli', CORNERS),
        ('vit_base_patch16_224.augreg2_in21k_ft_in1k', TIMM),
        ('vit_base_patch16_clip_224.openai', TIMM),
        ('vit_medium_patch16_reg4_gap_256.sbb_in12k', TIMM),
        ('samvit_base_patch16', PLAIN),
    ],
)
@torch.no_grad()
def test_tables_of_a_name_are_resampled_as_its_authors_do(name, how):
    vit = backbone(name, depth=1, width=24)
    source, num_prefix = vit.source, vit.source.num_position_prefix(vit.vit)
    old = source.grid(vit.vit)
    expected = resample_positions(vit.vit.pos_embed, old, (9, 13), num_prefix=num_prefix, **how)
    assert torch.equal(source.table(vit.vit, (9, 13), 'original'), expected)


@torch.no_grad()
def test_layouts_of_files_overrule_the_name(tmp_path):
    keys = layouts.mmpretrain(timm_vit(depth=2, width=24).state_dict())
    vit = layouts.load(keys, tmp_path, pos_interp='original')
    table = vit.source.table(vit.vit, (9, 13), 'original')
    expected = resample_positions(vit.vit.pos_embed, (14, 14), (9, 13), num_prefix=1, **PLAIN)
    assert torch.equal(table, expected)
    again = copy.deepcopy(vit)
    assert torch.equal(again.source.table(again.vit, (9, 13), 'original'), expected)


@torch.no_grad()
def test_models_that_resample_by_themselves_get_the_authors_table():
    """A convolutional stem in front of a plain ViT, and rectangles."""
    vit = backbone('vit_tiny_r_s16_p8_224', depth=2, width=24, pos_interp='original').eval()
    x, down = images(96, 160), vit.strides[0]
    out = vit(x)[0]
    grid = (96 // down, 160 // down)
    assert out.shape[-2:] == grid
    table = resample_positions(vit.vit.pos_embed, (7, 7), grid, num_prefix=1, **CORNERS)
    vit.vit.pos_embed, vit.vit.patch_embed.grid_size = torch.nn.Parameter(table), grid
    vit.pos_interp = 'timm'
    assert error(out, vit(x)[0]) <= 1
