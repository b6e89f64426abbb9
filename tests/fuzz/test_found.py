"""Faults that drawn inputs found, each with the line that stands for it now."""

import json
import re

import numpy as np
import pytest
import torch
from coco_data import NAMES, build, coco, config
from own_files import DETECTOR
from redraw import backbone, timm_vit

from vit_backbones import ViTFeatBackbone
from vit_backbones.config import load_config
from vit_backbones.necks import SimpleFeaturePyramid
from vit_backbones.own_data import use_own_data

SMALL = dict(depth=2, width=24)


def exactly(line):
    return f'^{re.escape(line)}$'


@pytest.mark.parametrize(
    ('given', 'kind', 'line'),
    [
        (dict(num_outs=10**30), ValueError, f'num_outs must be in [1, 12], got {10**30}'),
        (dict(num_outs=5.0), TypeError, 'num_outs takes ints, got 5.0'),
        (dict(out_channels=0), ValueError, 'out_channels must be at least 1, got 0'),
        (
            dict(out_channels=10**9),
            ValueError,
            'out_channels must be at most 65536, got 1000000000',
        ),
        (dict(out_strides='48'), TypeError, "out_strides takes a sequence of ints, got '48'"),
        (dict(in_strides=[16, None]), TypeError, 'in_strides takes ints, got None'),
        (
            dict(in_channels=3, out_strides=[4]),
            ValueError,
            'in_channels=3 cannot be halved 2 times: give maps of at least 4 channels, or coarser '
            'out_strides',
        ),
        (
            dict(norm_cfg='BN'),
            TypeError,
            "norm_cfg must be None or a dict as dict(type='...'), got 'BN'",
        ),
        (
            dict(norm_cfg=dict(type='GN', num_groups=3)),
            ValueError,
            "norm_cfg={'type': 'GN', 'num_groups': 3} gives no layer for maps of 8 channels: "
            'num_channels (8) must be divisible by num_groups (3)',
        ),
        (
            dict(norm_cfg=dict(type='BN1d')),
            ValueError,
            "norm_cfg={'type': 'BN1d'} gives no layer for maps of 8 channels: expected 2D or 3D "
            'input (got 4D input)',
        ),
        (
            dict(act_cfg=dict(type='ReLU', x=1)),
            ValueError,
            "act_cfg={'type': 'ReLU', 'x': 1} gives no layer for maps of 8 channels: "
            "ReLU.__init__() got an unexpected keyword argument 'x'",
        ),
    ],
)
def test_arguments_of_a_pyramid(given, kind, line):
    with pytest.raises(kind, match=exactly(line)):
        SimpleFeaturePyramid(**dict(in_channels=16, out_channels=8) | given)


@pytest.mark.parametrize(
    ('maps', 'kind', 'line'),
    [
        (None, TypeError, 'SimpleFeaturePyramid takes a tuple of feature maps, got no tensors'),
        ([[1.0]], TypeError, 'SimpleFeaturePyramid takes a tuple of feature maps, got no tensors'),
        (
            (torch.ones(1, 16, 0, 4),),
            ValueError,
            'feature maps need at least one row and column, got [(1, 16, 0, 4)]',
        ),
        (
            (torch.ones(1, 16, 4, 4, dtype=torch.int64),),
            ValueError,
            'feature maps must be floats, got torch.int64: normalise them, as floats',
        ),
        (
            (torch.ones(1, 16, 4, 4, dtype=torch.float64),),
            ValueError,
            'feature maps are torch.float64 and the weights torch.float32: give both the same '
            'type, or use autocast',
        ),
    ],
)
def test_maps_of_a_pyramid(maps, kind, line):
    with pytest.raises(kind, match=exactly(line)):
        SimpleFeaturePyramid(16, 8)(maps)


IMAGES = torch.ones(1, 3, 32, 32)


@pytest.mark.parametrize(
    ('images', 'kind', 'line'),
    [
        (IMAGES.numpy(), TypeError, 'images must be a tensor (B, C, H, W), got ndarray'),
        (None, TypeError, 'images must be a tensor (B, C, H, W), got NoneType'),
        (IMAGES[:0], ValueError, 'images must hold at least one pixel, got (0, 3, 32, 32)'),
        (IMAGES[:, :, :0], ValueError, 'images must hold at least one pixel, got (1, 3, 0, 32)'),
        (
            IMAGES.byte(),
            ValueError,
            'images must be floats, got torch.uint8: normalise them, as floats',
        ),
        (
            IMAGES.half(),
            ValueError,
            'images are torch.float16 and the weights torch.float32: give both the same type, or '
            'use autocast',
        ),
    ],
)
def test_images(images, kind, line):
    with pytest.raises(kind, match=exactly(line)):
        backbone(**SMALL)(images)


def test_autocast_takes_images_of_half_precision():
    vit = backbone(**SMALL)
    with torch.autocast('cpu', torch.bfloat16):
        assert vit(IMAGES.bfloat16())[0].shape == (1, 24, 2, 2)


@pytest.mark.parametrize(
    ('given', 'kind', 'line'),
    [
        (dict(init_cfg='x'), TypeError, "init_cfg takes dicts as dict(type='...'), got 'x'"),
        (dict(init_cfg=[3]), TypeError, "init_cfg takes dicts as dict(type='...'), got [3]"),
        (
            dict(init_cfg=dict(type='Pretrained')),
            ValueError,
            "init_cfg has no checkpoint, the file to read: {'type': 'Pretrained'}",
        ),
        (dict(img_size=10**30), ValueError, f'img_size must be at most 65536, got {10**30}'),
        (dict(patch_size=10**9), ValueError, 'patch_size must be at most 65536, got 1000000000'),
        (dict(checkpoint=3), TypeError, 'checkpoint must be the path of a file, got 3'),
        (dict(final_norm=3), TypeError, 'final_norm must be True or False, got 3'),
        (dict(lora=dict(r=10**9)), ValueError, 'lora.r must be at most 65536, got 1000000000'),
    ],
)
def test_arguments_of_a_backbone(given, kind, line):
    with pytest.raises(kind, match=exactly(line)):
        backbone(**SMALL, **given)


def test_an_unknown_initializer_is_refused():
    vit = backbone(**SMALL, init_cfg=dict(type='x'))
    with pytest.raises(ValueError, match=r"^init_cfg=\{'type': 'x'\}: 'x is not in the .*\w'$"):
        vit.init_weights()


@pytest.mark.parametrize(
    ('sizes', 'line'),
    [
        (224, 'sizes must be one (H, W) an image, or None, got 224'),
        ('ab', "sizes must be one (H, W) an image, or None, got 'ab'"),
        ([None], 'size must be an int or (height, width), got None'),
    ],
)
def test_image_sizes(sizes, line):
    with pytest.raises(TypeError, match=exactly(line)):
        backbone(**SMALL, mask_padding=True).set_image_sizes(sizes)


@pytest.mark.parametrize('pool', ['attn', 'model'])
def test_a_pooling_by_parts_that_are_gone_cannot_be_set_later(pool):
    """They gave all patches, or ended in an empty error."""
    vit = backbone('vit_base_patch16_siglip_224', **SMALL)
    line = (
        f'pool={pool!r} needs parts of the model that are kept only if it is built with '
        f'pool={pool!r}: build another one'
    )
    with pytest.raises(ValueError, match=exactly(line)):
        vit.pool = pool
    assert vit.pool is None


@pytest.mark.parametrize('norm', ['last', 'all'])
def test_a_final_norm_that_is_gone_cannot_be_set_later(norm):
    """The outputs were not normed, in silence."""
    vit = backbone(**SMALL, norm='none')
    line = (
        f'norm={norm!r} needs the final norm, which was removed because the model was built for '
        f'outputs without it: build another one with norm={norm!r}'
    )
    with pytest.raises(ValueError, match=exactly(line)):
        vit.norm = norm
    assert vit.norm == 'none'


def test_settings_of_a_model_without_its_last_blocks():
    vit = backbone(**SMALL, out_indices=0)
    vit.out_stride, vit.norm = 7, 'none'
    assert vit(IMAGES)[0].shape == (1, 24, 5, 5)


@pytest.mark.parametrize(('patch', 'cells'), [(14, (12, 12)), (12, (14, 14)), (20, (8, 8))])
def test_models_of_one_size_see_all_of_it_in_any_patch(patch, cells):
    """The last rows and columns were cut off."""
    vit = backbone('test_vit_relpos', **SMALL, patch_size=patch)
    assert vit(torch.ones(1, 3, 160, 160))[0].shape == (1, 24, *cells)


SIZES = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)


@pytest.mark.parametrize(
    ('given', 'kind', 'line'),
    [
        (dict(patch_cfg=3.5), TypeError, 'patch_cfg takes a dict, as dict(padding=2), got 3.5'),
        (dict(patch_cfg='x'), TypeError, "patch_cfg takes a dict, as dict(padding=2), got 'x'"),
        (dict(qkv_bias='no'), TypeError, "qkv_bias must be True or False, got 'no'"),
        (
            dict(layer_scale_init_value=-1),
            ValueError,
            'layer_scale_init_value must be a number above 0, got -1',
        ),
        (
            dict(layer_scale_init_value=1e308),
            ValueError,
            'layer_scale_init_value must be at most 65536, got 1e+308',
        ),
    ],
)
def test_arguments_beside_sizes(given, kind, line):
    with pytest.raises(kind, match=exactly(line)):
        ViTFeatBackbone(arch=SIZES, **given)


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (lambda t: t.to_sparse(), 'holds norm.bias as a sparse or quantised tensor: save it dense'),
        (lambda t: t.to('meta'), 'holds norm.bias without values: it was saved from the meta'),
    ],
)
def test_tensors_without_values(change, line, tmp_path):
    weights = timm_vit(depth=2, width=24).state_dict()
    torch.save(weights | {'norm.bias': change(weights['norm.bias'])}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=line):
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')


def test_keys_that_are_no_text_are_left_out(tmp_path):
    weights = timm_vit(depth=2, width=24).state_dict()
    torch.save(weights | {3: torch.ones(2)}, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert torch.equal(vit.vit.norm.bias, weights['norm.bias'])


@pytest.mark.parametrize(
    ('name', 'tensor', 'reason'),
    [
        ('position_grid', torch.ones(2, 2), "can't multiply sequence by non-int of type 'list'"),
        (
            'blocks.0.attn.qkv.bias_mask',
            torch.ones(5),
            'The size of tensor a (72) must match the size of tensor b (5) at non-singleton '
            'dimension 0',
        ),
    ],
)
def test_tensors_of_another_shape_than_their_keys_say(name, tensor, reason, tmp_path):
    weights = timm_vit(depth=2, width=24).state_dict() | {name: tensor}
    if 'mask' in name:
        weights['storage_tokens'] = torch.ones(1, 4, 24)
    torch.save(weights, tmp_path / 'a.pth')
    line = (
        f'checkpoint {str(tmp_path / "a.pth")!r} holds a tensor of another shape than its key '
        f'says, or damaged: {reason}'
    )
    with pytest.raises(ValueError, match=exactly(line)):
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')


def test_names_of_several_lines_are_shown_in_one(tmp_path):
    weights = timm_vit(depth=2, width=24).state_dict()
    torch.save(weights | {'a\nb': torch.ones(2)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"allow_partial=True loads what fits\): 'a\\nb'$"):
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')


def test_slashes_of_timm_keys_count_as_dots(tmp_path):
    """Only keys without one were found."""
    weights = timm_vit(depth=2, width=24).state_dict()
    named = {name.replace('.', '/'): tensor.numpy() for name, tensor in weights.items()}
    np.savez(tmp_path / 'a.npz', **named)
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.npz')
    assert torch.equal(vit.vit.patch_embed.proj.weight, weights['patch_embed.proj.weight'])


DEEP = '{"images":' * 50_000
NOT_COCO = 'no dict of images, annotations and categories: is it a COCO file?'


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('[]', f'it holds a list, {NOT_COCO}'),
        ('null', f'it holds a NoneType, {NOT_COCO}'),
        (
            '{"a"',
            "it holds no JSON that can be read (Expecting ':' delimiter: line 1 column 5 (char 4)):"
            ' is it a COCO file?',
        ),
        (
            DEEP,
            'it holds no JSON that can be read (it is nested too deep): is it a COCO file?',
        ),
    ],
)
def test_files_that_are_no_coco_file(text, line, tmp_path):
    (tmp_path / 'boxes.json').write_text(text)
    with pytest.raises(ValueError, match=exactly(f'{tmp_path}/boxes.json: {line}')):
        build(config(tmp_path))


@pytest.mark.parametrize('key', ['id', 'category_id', 'image_id'])
def test_values_that_are_no_ids(key, tmp_path):
    content = coco()
    for each in content['annotations']:
        each[key] = [1]
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'with \[1\] as {key} \(id .*\): give each its {key}$'):
        build(config(tmp_path, classes=NAMES))


def test_own_data_of_deep_json(tmp_path):
    (tmp_path / 'a.json').write_text(DEEP)
    (tmp_path / 'a.py').write_text(DETECTOR)
    cfg = load_config(tmp_path / 'a.py')
    with pytest.raises(
        ValueError, match=r"a\.json' cannot be read as JSON \(it is nested too deep\)$"
    ):
        use_own_data(cfg, tmp_path / 'a.json', folder=tmp_path / 'lists')
    assert not (tmp_path / 'lists').exists()


LITERALS = "takes literals, strings in quotes, as [dict(type='EMAHook')], got"


@pytest.mark.parametrize(
    ('option', 'line'),
    [
        ('train_cfg.max_epochs=[1,2', f'options=train_cfg.max_epochs: {LITERALS} [1,2'),
        ('train_cfg.max_epochs={[]: 1}', f'options=train_cfg.max_epochs: {LITERALS} {{[]: 1}}'),
        ("resume={'a':1}\n{'b'}", f'options=resume: {LITERALS} ' + repr("{'a':1}\n{'b'}")),
        ('a\nb=1', "options=... takes KEY=VALUE, got 'a\\nb=1'"),
        (
            'resume=' + '[' * 60 + ']' * 60,
            'options=resume: takes at most 50 levels, got ' + '[' * 60 + ']' * 60,
        ),
        (
            'train_dataloader.dataset.pipeline.².x=1',
            "options=train_dataloader.dataset.pipeline.².x: 'train_dataloader.dataset.pipeline' is "
            "a list of 4, so an index from 0 to 3 must follow, got '²'",
        ),
        (
            "train_dataloader.dataset.pipeline={'a': 1}",
            'options=train_dataloader.dataset.pipeline: it is a list of 4, got a dict: give a '
            'list, or an item as train_dataloader.dataset.pipeline.0',
        ),
    ],
)
def test_options(option, line, tmp_path):
    (tmp_path / 'a.py').write_text(DETECTOR)
    with pytest.raises(ValueError, match=exactly(line)):
        load_config(tmp_path / 'a.py', [option])
