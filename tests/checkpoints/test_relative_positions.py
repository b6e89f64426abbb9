"""Checkpoints with relative positions along each axis: SAM and ViTDet, in every spelling."""

import pytest
import timm
import torch
import torch.nn.functional as F
from detectron2_written_out import reference_block
from layouts import check_all_loaded, draw, renamed, transformers_model, write
from redraw import backbone, error, images, redraw

WINDOWS = dict(window_size=4, global_attn_indexes=(1,))
SAM = dict(WINDOWS, img_size=256, neck_chans=8)
NATIVE, RECTANGLE = (256, 256), (112, 320)
POSITIONS = [('timm', True), ('original', False)]


def load(name, weights, folder, **options):
    """A small backbone with the weights of a file."""
    return backbone(name, depth=2, width=24, checkpoint=write(weights, folder), **options)


def load_sam(weights, folder, **options):
    return load('samvit_base_patch16', weights, folder, timm_options=SAM, **options)


# SAM


def sam():
    """A small redrawn encoder of transformers, with windows in its first block."""
    pytest.importorskip('transformers')
    more = dict(mlp_dim=96, output_channels=8, image_size=256, window_size=4)
    return transformers_model('SamVision', **more, global_attn_indexes=(1,))


def metas_keys(weights):
    """As segment-anything spells them, beside the rest of the model."""
    keys = renamed(
        weights,
        (r'^vision_encoder\.', 'image_encoder.'),
        (r'patch_embed\.projection', 'patch_embed.proj'),
        (r'\.layers\.', '.blocks.'),
        (r'\.blocks\.(\d)\.layer_norm', r'.blocks.\1.norm'),
        (r'neck\.conv1', 'neck.0'),
        (r'neck\.layer_norm1', 'neck.1'),
        (r'neck\.conv2', 'neck.2'),
        (r'neck\.layer_norm2', 'neck.3'),
    )
    beside = {'prompt_encoder.not_a_point_embed.weight': draw(1, 8)}
    return keys | beside | {'mask_decoder.iou_token.weight': draw(1, 8)}


def mmpretrains_sam_keys(weights):
    """As mmpretrain's `ViTSAM` spells them, within a whole model."""
    keys = renamed(
        weights,
        (r'^vision_encoder\.', 'backbone.'),
        (r'\.layers\.(\d)\.layer_norm', r'.layers.\1.ln'),
        (r'mlp\.lin1', 'ffn.layers.0.0'),
        (r'mlp\.lin2', 'ffn.layers.1'),
        (r'neck\.conv1', 'channel_reduction.0'),
        (r'neck\.layer_norm1', 'channel_reduction.1'),
        (r'neck\.conv2', 'channel_reduction.2'),
        (r'neck\.layer_norm2', 'channel_reduction.3'),
    )
    return keys | {'head.fc.weight': draw(2, 8)}


def sam_features(model, x, antialias):
    """(B, C, h, w) of the last block, positions resampled to the grid of the images."""
    encoder = model.vision_encoder
    hidden = encoder.patch_embed.projection(x)  # (B, C, h, w)
    table = encoder.pos_embed.permute(0, 3, 1, 2)
    if table.shape != hidden.shape:
        table = F.interpolate(table, hidden.shape[-2:], mode='bicubic', antialias=antialias)
    hidden = (hidden + table).permute(0, 2, 3, 1)
    for layer in encoder.layers:
        hidden = layer(hidden)
    return hidden.permute(0, 3, 1, 2)


SAMS = {
    'SAM': metas_keys,
    'transformers SAM': dict,
    'mmpretrain SAM': mmpretrains_sam_keys,
}


@pytest.mark.parametrize(('pos_interp', 'antialias'), POSITIONS)
@pytest.mark.parametrize('layout', SAMS)
@torch.no_grad()
def test_features_equal_sams(layout, pos_interp, antialias, log, tmp_path):
    model = sam()
    vit = load_sam(SAMS[layout](model.state_dict()), tmp_path, pos_interp=pos_interp)
    check_all_loaded(log, f'{layout} keys under ')
    assert 'resized 0' in log[-1]
    x = images(*NATIVE)
    expected = model(x, output_hidden_states=True).hidden_states[-1].permute(0, 3, 1, 2)
    assert error(vit(x)[0], expected) <= 1
    x = images(*RECTANGLE)
    assert error(vit(x)[0], sam_features(model, x, antialias)) <= 1


# ViTDet


def vitdet_weights(cells=14, prefix='backbone.net.'):
    """Redrawn weights under detectron2's keys, made for images of cells x cells patches."""
    weights = {'pos_embed': draw(1, 197, 24), 'patch_embed.proj.weight': draw(24, 3, 16, 16) / 28}
    weights['patch_embed.proj.bias'] = draw(24)
    for block, side in ((0, 4), (1, cells)):
        for layer, rows, columns in (
            *(('attn.qkv', 72, 24), ('attn.proj', 24, 24)),
            *(('mlp.fc1', 96, 24), ('mlp.fc2', 24, 96)),
        ):
            weights[f'blocks.{block}.{layer}.weight'] = draw(rows, columns) / columns**0.5
            weights[f'blocks.{block}.{layer}.bias'] = draw(rows)
        for layer in ('norm1', 'norm2'):
            weights[f'blocks.{block}.{layer}.weight'] = 1 + draw(24) / 4
            weights[f'blocks.{block}.{layer}.bias'] = draw(24)
        for axis in 'hw':
            weights[f'blocks.{block}.attn.rel_pos_{axis}'] = draw(2 * side - 1, 8)
    return {prefix + name: tensor for name, tensor in weights.items()}


def vitdet(weights, x):
    """(B, C, h, w) as detectron2 gives it, written out."""
    w = {name.removeprefix('backbone.net.'): tensor for name, tensor in weights.items()}
    x = F.conv2d(x, w['patch_embed.proj.weight'], w['patch_embed.proj.bias'], stride=16)
    table = w['pos_embed'][:, 1:].mT.unflatten(-1, (14, 14))
    if table.shape[-2:] != x.shape[-2:]:
        table = F.interpolate(table, x.shape[-2:], mode='bicubic')
    x = (x + table).permute(0, 2, 3, 1)
    for index in (0, 1):
        name = f'blocks.{index}.'
        block = {n.removeprefix(name): t for n, t in w.items() if n.startswith(name)}
        x = reference_block(block, x, 0 if index else 4)
    return x.permute(0, 3, 1, 2)


INTO = {  # a model of timm's, or a plain one that is told to attend so
    'samvit_base_patch16': dict(timm_options=SAM | dict(img_size=224)),
    'vit_base_patch16_224': dict(
        with_cls_token=False,
        norm='none',
        window_size=4,
        window_block_indexes=(0,),
        use_rel_pos=True,
    ),
}


@pytest.mark.parametrize('name', INTO)
@pytest.mark.parametrize('prefix', ['backbone.net.', 'backbone.'])
@torch.no_grad()
def test_features_equal_vitdets(prefix, name, log, tmp_path):
    weights = vitdet_weights()
    named = {prefix + n.removeprefix('backbone.net.'): t for n, t in weights.items()}
    beside = {'backbone.simfp_2.0.bias': draw(3), 'roi_heads.mask_head.mask_fcn1.bias': draw(3)}
    beside = beside if 'net' in prefix else {'neck.simfp_2.0.bias': draw(3)}
    vit = load(name, named | beside, tmp_path, **INTO[name], pos_interp='original')
    check_all_loaded(log, f"ViTDet keys under '{prefix}'")
    for size in ((224, 224), RECTANGLE):
        assert error(vit(images(*size))[0], vitdet(weights, images(*size))) <= 1


@torch.no_grad()
def test_tables_of_another_size_are_resized_to_the_models(log, tmp_path):
    weights = vitdet_weights(cells=10)
    vit = load_sam(weights, tmp_path, pos_interp='original')
    assert log[-1].endswith("31 of 31 tensors, resized 3, from ViTDet keys under 'backbone.net.'")
    assert len(vit.vit.blocks[1].attn.rel_pos_h) == 31
    assert error(vit(images(*NATIVE))[0], vitdet(weights, images(*NATIVE))) <= 1


@torch.no_grad()
def test_files_without_relative_positions_leave_them_at_zero(log, tmp_path):
    options = dict(with_cls_token=False, norm='none')
    weights = backbone(depth=2, width=24, **options).vit.state_dict()
    vit = load('vit_tiny_patch16_224', weights, tmp_path, use_rel_pos=True, **options)
    assert 'the file has no relative positions: they start at zero' in log
    plain = load('vit_tiny_patch16_224', weights, tmp_path, **options)
    assert error(vit(images(112, 80))[0], plain(images(112, 80))[0]) <= 1


def test_the_features_depend_on_relative_positions(tmp_path):
    weights = vitdet_weights()
    other = weights | {'backbone.net.blocks.1.attn.rel_pos_w': draw(27, 8)}
    x = images(*NATIVE)
    assert error(vitdet(weights, x), vitdet(other, x)) > 1000


def test_files_of_timms_sam_are_its_own(log, tmp_path):
    vit = redraw(
        timm.create_model('samvit_base_patch16', depth=2, embed_dim=24, num_heads=3, **SAM)
    )
    ours = load_sam(vit.state_dict(), tmp_path)
    assert log[-1].endswith('loaded 31 of 31 tensors, resized 0')
    again = load_sam(ours.state_dict(), tmp_path)
    assert log[-1].endswith('loaded 31 of 31 tensors, resized 0')
    assert torch.equal(again.vit.pos_embed, vit.pos_embed)
