"""Checkpoints of BEiT in the keys of every project, at their size and on a rectangle."""

import copy

import pytest
import timm
import torch
from layouts import check_all_loaded, draw, mmseg_model, renamed, transformers_model, write
from redraw import backbone, error, images, redraw
from safetensors.torch import load_file
from timm.layers import resize_rel_pos_bias_table

SQUARE, OBLONG = (64, 64), (48, 96)
TABLE = 'attn.relative_position_bias_table'


def load(name, weights, folder, **options):
    """A small backbone with the weights of a file."""
    return backbone(name, depth=2, width=24, checkpoint=write(weights, folder), **options)


def beit(**more):
    """A small redrawn BEiT of transformers for 64x64 images."""
    pytest.importorskip('transformers')
    size = dict(intermediate_size=96, image_size=64, layer_norm_eps=1e-6)
    return transformers_model('Beit', **size | more)


def load_beit(weights, folder, name='beit_base_patch16_224', size=SQUARE):
    return load(name, weights, folder, img_size=size, out_type='raw')


def resized(model, size):
    """transformers' BEiT for another size, its tables resized as timm resizes those of BEiT.

    Its own resizing is bilinear and takes height for width.
    """
    model = copy.deepcopy(model)
    cells = tuple(side // 16 for side in size)
    shape = ((2 * cells[0] - 1) * (2 * cells[1] - 1) + 3, 3)
    for bias in [m for m in model.modules() if hasattr(m, 'relative_position_bias_table')]:
        table = resize_rel_pos_bias_table(bias.relative_position_bias_table, cells, shape)
        added = table[bias.generate_relative_position_index(cells)].permute(2, 0, 1)[None]
        bias.forward = lambda *args, added=added, **options: added  # (1, heads, n, n)
    return model


@pytest.mark.parametrize('name', ['beit_base_patch16_224', 'beitv2_base_patch16_224'])
@pytest.mark.parametrize('version', [4, 5])
@pytest.mark.parametrize('kind', ['relative', 'shared_relative'])
@torch.no_grad()
def test_features_equal_transformers_beit(kind, version, name, log, tmp_path):
    model = beit(**{f'use_{kind}_position_bias': True})
    if version == 4:  # the layout in which version 5 still saves
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / 'model.safetensors')
    else:
        weights = model.state_dict()
    for size in (SQUARE, OBLONG):
        vit = load_beit(weights, tmp_path, name, size)
        check_all_loaded(log, 'transformers BEiT keys')
        assert f'resized {2 * (size is OBLONG)},' in log[-1]
        expected = resized(model, size)(images(*size)).last_hidden_state
        assert error(vit(images(*size))[0], expected) <= 1


@torch.no_grad()
def test_squares_need_no_resizing_of_transformers_tables():
    model = beit(use_relative_position_bias=True)
    x = images(*SQUARE)
    assert error(model(x).last_hidden_state, resized(model, SQUARE)(x).last_hidden_state) <= 1


def openmmlab_beit(size):
    """mmseg's BEiT of a size, redrawn with its tables."""
    model = mmseg_model('BEiT', img_size=size, final_norm=False)
    for name, parameter in model.named_parameters():
        if name.endswith(TABLE):
            parameter.data = draw(*parameter.shape)
    return model


@pytest.mark.parametrize('size', [SQUARE, OBLONG])
@torch.no_grad()
def test_features_equal_mmsegs_beit(size, log, tmp_path):
    model = openmmlab_beit(size)
    vit = load('beit_base_patch16_224', model.state_dict(), tmp_path, img_size=size)
    check_all_loaded(log, 'OpenMMLab BEiT or MAE keys')
    assert error(vit(images(*size))[0], model(images(*size))[0]) <= 1


def timm_beit(size=SQUARE):
    small = dict(img_size=size, depth=2, embed_dim=24, num_heads=3, num_classes=0)
    return redraw(timm.create_model('beit_base_patch16_224', **small)).eval()


def mmpretrains_keys(weights):
    """mmseg's, and a norm of the mean of all patches."""
    names = (r'\.norm([12])\.', r'.ln\1.'), ('^blocks', 'layers'), ('fc_norm', 'ln2')
    mlp = (r'mlp\.fc1', 'ffn.layers.0.0'), (r'mlp\.fc2', 'ffn.layers.1')
    keys = renamed(weights, *names, *mlp, (r'patch_embed\.proj', 'patch_embed.projection'))
    keys['layers.0.attn.relative_position_index'] = torch.zeros(17, 17)
    return {f'backbone.{name}': tensor for name, tensor in keys.items()}


def microsofts_keys(weights):
    """timm's, what both compute, and parts of pre-training."""
    index = {f'blocks.{i}.attn.relative_position_index': torch.zeros(17, 17) for i in (0, 1)}
    return weights | index | {'mask_token': draw(1, 1, 24), 'lm_head.bias': draw(9)}


def microsofts_shared_keys(weights):
    """One table for all blocks, as before fine-tuning."""
    keys = {name: tensor for name, tensor in weights.items() if not name.endswith(TABLE)}
    keys['rel_pos_bias.relative_position_bias_table'] = weights[f'blocks.0.{TABLE}']
    keys['rel_pos_bias.relative_position_index'] = torch.zeros(17, 17)
    return keys | {'norm.weight': draw(24), 'cls_pt_layers.0.gamma_1': draw(24)}


BEITS = {
    'OpenMMLab BEiT or MAE': mmpretrains_keys,
    'Microsoft BEiT': microsofts_keys,
    'Microsoft BEiT, shared': microsofts_shared_keys,
}


@pytest.mark.parametrize('size', [SQUARE, OBLONG])
@pytest.mark.parametrize('layout', BEITS)
@torch.no_grad()
def test_features_equal_timms_beit(layout, size, log, tmp_path):
    reference = timm_beit()
    if 'shared' in layout:
        reference.blocks[1].attn.load_state_dict(
            {TABLE[5:]: reference.blocks[0].attn.relative_position_bias_table}, strict=False
        )
    vit = load_beit(BEITS[layout](reference.state_dict()), tmp_path, size=size)
    check_all_loaded(log, f'{layout.split(",")[0]} keys')
    reference.set_input_size(size)
    assert error(vit(images(*size))[0], reference.forward_features(images(*size))) <= 1


@torch.no_grad()
def test_features_depend_on_biases(tmp_path):
    weights = timm_beit().state_dict()
    other = weights | {f'blocks.1.{TABLE}': draw(52, 3)}
    both = (load_beit(each, tmp_path)(images(*SQUARE))[0] for each in (weights, other))
    assert error(*both) > 1000
