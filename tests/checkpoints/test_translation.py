"""Checkpoints in the keys of other projects: what is moved, what is refused, what is said."""

import layouts
import numpy as np
import pytest
import torch
from layouts import (
    SMALL,
    check_all_loaded,
    features,
    load,
    mmseg_model,
    transformers_model,
    write,
)
from redraw import error, images, timm_vit

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints.layouts import to_timm


def test_a_file_without_the_models_cls_token_is_refused(tmp_path):
    deep = dict(depth=12, width=24)
    weights = layouts.sapiens(timm_vit(**deep).state_dict())
    with pytest.raises(ValueError, match=r'has no CLS token.* with_cls_token=False') as caught:
        load(weights, tmp_path, **deep)
    assert '\n' not in str(caught.value)


@torch.no_grad()
def test_a_cls_token_without_a_position_has_position_zero(log, tmp_path):
    weights = timm_vit(**SMALL).state_dict()
    weights['pos_embed'][:, 0] = 0
    reference = timm_vit(**SMALL)
    reference.load_state_dict(weights)
    weights['pos_embed'] = weights['pos_embed'][:, 1:]
    vit = load(layouts.flax(weights), tmp_path)
    check_all_loaded(log, 'big_vision keys')
    x = images(224, 224)
    assert error(vit(x)[0], features(reference, x)) <= 1


def test_scanned_blocks_are_taken_apart():
    weights = timm_vit('vit_base_patch16_siglip_224', **SMALL).state_dict()
    arrays = {f'params/img/{name}': array for name, array in layouts.flax(weights).items()}
    for name in [name for name in arrays if 'encoderblock_0' in name]:
        both = arrays.pop(name), arrays.pop(name.replace('block_0', 'block_1'))
        arrays[name.replace('block_0', 'block')] = np.stack(both)
    translated, _ = to_timm({n: torch.from_numpy(array) for n, array in arrays.items()})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in translated.items())
    assert {name for name in weights if 'attn_pool' not in name} == translated.keys()


@torch.no_grad()
def test_oblong_tables_are_not_taken_for_square_ones(tmp_path):
    size = dict(img_size=(224, 256))  # 14 * 16 positions and CLS: 15 * 15 rows
    reference = timm_vit(**SMALL, **size)
    vit = load(layouts.mmpretrain(reference.state_dict()), tmp_path, **size)
    assert torch.equal(vit.vit.pos_embed, reference.pos_embed)


def test_tables_of_timms_own_files_are_left_alone(tmp_path):
    name = 'deit3_small_patch16_224'  # its CLS token has no position
    reference = timm_vit(name, **SMALL)
    weights = {f'net.vit.{name}': tensor for name, tensor in reference.state_dict().items()}
    vit = load(weights, tmp_path, name)
    assert torch.equal(vit.vit.pos_embed, reference.pos_embed)


@pytest.mark.parametrize('prefix', ['image_encoder.', 'backbone.net.', 'backbone.', ''])
def test_relative_positions_are_refused_by_name(prefix, tmp_path):
    weights = timm_vit(**SMALL).state_dict() | {'blocks.0.attn.rel_pos_h': torch.ones(27, 8)}
    with pytest.raises(ValueError, match=r'rel_pos_h\), which plain ViTs do not have; .*samvit'):
        load({prefix + name: tensor for name, tensor in weights.items()}, tmp_path)


def test_relative_biases_are_refused_by_name(tmp_path):
    weights = mmseg_model('MAE').state_dict()
    weights['layers.1.attn.relative_position_bias_table'][3] = 1
    with pytest.raises(ValueError, match=r'layers\.1\.attn\.relative_position_bias_table'):
        load(weights, tmp_path)


@torch.no_grad()
def test_vitdet_without_relative_positions_loads(log, tmp_path):
    reference = timm_vit(**SMALL)
    weights = {f'backbone.net.{name}': t for name, t in reference.state_dict().items()}
    del weights['backbone.net.cls_token']
    vit = load(weights | {'backbone.simfp_2.0.bias': torch.ones(3)}, tmp_path, with_cls_token=False)
    check_all_loaded(log, "timm keys under 'backbone.net.'")
    assert torch.equal(vit.vit.pos_embed, reference.pos_embed[:, 1:])


def test_a_bias_of_keys_that_would_matter_is_refused(tmp_path):
    weights = layouts.meta_dinov3(timm_vit('vit_small_patch16_dinov3', **SMALL).state_dict())
    del weights['blocks.1.attn.qkv.bias_mask']
    with pytest.raises(ValueError, match=r'blocks\.1\.attn\.qkv\.bias'):
        load(weights, tmp_path, 'vit_small_patch16_dinov3')


def test_swapped_queries_and_keys_would_be_seen(tmp_path):
    reference = timm_vit(**SMALL)
    weights = layouts.mmpretrain(reference.state_dict())
    q, k, v = weights['layers.0.attn.qkv.weight'].chunk(3)
    weights['layers.0.attn.qkv.weight'] = torch.cat([k, q, v])
    x = images(224, 224)
    assert error(load(weights, tmp_path)(x)[0], features(reference, x)) > 1


def test_registers_stay_where_the_cls_token_is_left_out(log, tmp_path):
    reference = timm_vit('vit_small_patch14_reg4_dinov2', **SMALL)
    weights = layouts.meta_dinov2(reference.state_dict())
    vit = load(weights, tmp_path, 'vit_small_patch14_reg4_dinov2', with_cls_token=False)
    check_all_loaded(log, 'Meta DINOv2 keys')
    assert torch.equal(vit.vit.pos_embed, reference.pos_embed)


def test_a_translated_table_is_resized_too(log, tmp_path):
    weights = layouts.meta_dinov2(timm_vit('vit_small_patch14_dinov2', **SMALL).state_dict())
    options = dict(img_size=(224, 448), patch_size=16)
    load(weights, tmp_path, 'vit_small_patch14_dinov2', **options)
    assert log[0].endswith('loaded 34 of 34 tensors, resized 2, from Meta DINOv2 keys')


def test_files_of_unknown_layouts_come_back_as_they_are():
    tensors = {'stages.0.weight': torch.ones(2), 'a/b': torch.ones(1)}
    assert to_timm(tensors) == (tensors, None)


def test_timms_own_files_come_back_as_they_are():
    weights = timm_vit(**SMALL).state_dict()
    assert to_timm(weights) == (weights, None)


def test_parts_of_a_damaged_file_are_named(tmp_path):
    weights = transformers_model('ViT', intermediate_size=96, image_size=224).state_dict()
    del weights['layers.1.attention.k_proj.weight']
    with pytest.raises(ValueError, match=r'of no use in the file: blocks\.1\.attn\.q\.weight'):
        load(weights, tmp_path)


def test_sources_that_read_their_own_keys_name_whose_a_file_has(tmp_path):
    path = write(timm_vit().state_dict(), tmp_path)
    with pytest.raises(ValueError, match='it has timm keys, which plain ViTs of source timm read'):
        ViTFeatBackbone('vit_b_32', source='torchvision', checkpoint=path)


def test_keys_that_timms_filter_stumbles_over_are_one_line(tmp_path):
    transformers = pytest.importorskip('transformers')
    config = transformers.SwinConfig(embed_dim=24, depths=[1, 1], num_heads=[1, 1])
    path = write(transformers.SwinModel(config).state_dict(), tmp_path)
    with pytest.raises(ValueError, match='has keys that timm cannot convert'):
        ViTFeatBackbone('swin_tiny_patch4_window7_224', checkpoint=path)
