"""Any arguments of the backbone, of each family, and any images."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from encoders import config_of
from fuzzing import NONSENSE, Fuzz, is_finite, one
from hypothesis import strategies as st
from timm.models import create_model
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.timm_build import build_timm


class Family(NamedTuple):
    """A small model and its law: what it is called by, and the outputs of its blocks."""

    call: dict
    patch: int
    width: int
    depth: int
    prefix: int
    cls: bool = True
    fixed: int | None = None
    stages: bool = False


def of_timm(name, **sizes):
    sizes = sizes or dict(depth=2, embed_dim=24, num_heads=3)
    return dict(model_name=name, source=partial(build_timm, more=sizes))


def existing(make):
    return dict(model_name=make)


SIZES = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
FAMILIES = {
    'ViT': Family(dict(model_name='test_vit'), 16, 64, 6, 1),
    'ViT without norm': Family(dict(model_name='test_vit2'), 16, 64, 8, 1, cls=False),
    'DINOv2': Family(of_timm('vit_small_patch14_reg4_dinov2'), 14, 24, 2, 5),
    'SigLIP': Family(of_timm('vit_base_patch16_siglip_224'), 16, 24, 2, 0, cls=False),
    'EVA02': Family(of_timm('eva02_tiny_patch14_224'), 14, 24, 2, 1),
    'DINOv3': Family(of_timm('vit_small_patch16_dinov3'), 16, 24, 2, 5),
    'SAM': Family(of_timm('samvit_base_patch16'), 16, 24, 2, 0, cls=False),
    'BEiT': Family(of_timm('beit_base_patch16_224'), 16, 24, 2, 1, fixed=224),
    'relative': Family(of_timm('test_vit_relpos'), 16, 24, 2, 0, cls=False, fixed=160),
    'Swin': Family(
        of_timm('swin_tiny_patch4_window7_224', embed_dim=8, depths=(1, 1), num_heads=(1, 2)),
        *(4, 8, 2, 0),
        cls=False,
        stages=True,
    ),
    'sizes': Family(dict(arch=SIZES), 16, 24, 4, 1),
    'transformers DINOv2': Family(
        dict(model_name=config_of('dinov2_with_registers'), source='transformers'), 14, 32, 2, 5
    ),
    'transformers CLIP': Family(
        dict(model_name=config_of('clip_vision_model'), source='transformers'), 32, 32, 2, 1
    ),
    'transformers Swin': Family(
        dict(model_name=config_of('swin'), source='transformers'), 4, 16, 2, 0, False, stages=True
    ),
    'torchvision': Family(existing(lambda: VisionTransformer(32, 8, 3, 2, 24, 48)), 8, 24, 3, 1),
    'existing timm': Family(existing(lambda: create_model('test_vit')), 16, 64, 6, 1),
}
PAIR = one(32, 48, (32, 48), [70, 33], 8, (1, 1), 224)
LEGAL = dict(
    pretrained=one(None, False),
    checkpoint=one(None, ''),
    checkpoint_path=one(None, ''),
    features_only=one(True),
    allow_partial=one(True, False),
    img_size=PAIR,
    patch_size=one(8, 16, (16, 8), [4, 4], 14, 20),
    in_channels=one(1, 3, 4, 5, np.int64(3)),
    out_indices=one(-1, 0, 1, [0, -1], (1, 0), 'last4', 'even4', [0, 0], (-1,), range(2), 2, [3]),
    out_type=one('featmap', 'cls', 'cls_token', 'raw', 'avg_featmap'),
    with_cls_token=one(None, True, False),
    cls_readout=one('ignore', 'add', 'concat'),
    pool=one('cls', 'avg', 'max', 'cls+avg', 'gem', 'attn', 'model'),
    norm=one('last', 'all', 'none'),
    final_norm=one(None, True, False),
    out_stride=one(1, 4, 7, 8, 16, 32, 100),
    pos_interp=one('timm', 'original'),
    drop_path_rate=one(0, 0.1, 0.99, np.float32(0.5)),
    with_cp=one(True, False),
    frozen_stages=one(-1, 0, 1, 2, 6),
    window_size=one(None, 0, 1, 2, 14, 100),
    window_block_indexes=one((), (0,), [1, 0], 1, range(2), (0, 0)),
    use_rel_pos=one(True, False),
    mask_padding=one(True, False),
    lora=one(dict(), dict(r=2), dict(targets=['qkv', 'proj']), dict(targets='fc1'), dict(r=0)),
    init_cfg=one(None, dict(type='Normal', layer='Linear'), []),
    qkv_bias=one(None, True, False),
    patch_cfg=one(None, dict(), dict(padding=2), dict(padding='corner'), dict(stride=4)),
    layer_scale_init_value=one(None, 0.0, 1e-5, 1),
    arch=one(None, 'deit-t', SIZES, dict(SIZES, num_heads=0), dict(SIZES, num_heads=5)),
    source=one('timm', 'torchvision', 'sapiens', 'lightly', 'transformers', 'jax'),
    model_name=one('test_vit', 'test_vit.no', 'test-vit', 'vit_b_16', None),
)
SELDOM = {'arch', 'source', 'model_name', 'qkv_bias', 'patch_cfg', 'layer_scale_init_value'}
TOGETHER = one(
    dict(window_size=2, window_block_indexes=(0,)),
    dict(window_size=1, window_block_indexes=[1], mask_padding=True),
    dict(out_type='featmap', cls_readout='concat', out_stride=7),
    dict(img_size=(32, 48), patch_size=8),
    dict(with_cls_token=False, out_indices=(0, 1)),
)
LATER = ('out_type', 'pool', 'norm', 'cls_readout', 'out_stride', 'input_size', 'image_sizes')
SIDES = one(1, 5, 14, 16, 31, 32, 33, 47, 64, 97)
IMAGES = one(
    *['fits'] * 120,
    *('channels', 'rank', 'double', 'half', 'ints', 'bytes', 'bools', 'complex', 'no side'),
    *('array', 'None', 'list', 'one image', 'infinite'),
)


@st.composite
def calls(draw):
    """A family, some arguments, one in three with something wrong, and a kind of images."""
    family = draw(one(*FAMILIES))
    usual = sorted(LEGAL.keys() - SELDOM)
    names = draw(st.sets(one(*usual), max_size=2))
    given = {name: draw(LEGAL[name]) for name in sorted(names)}
    wrong = draw(st.integers(0, 11))
    if wrong < 2:
        given |= draw(TOGETHER)
    if wrong in (2, 3, 4):
        name = draw(one(*sorted(LEGAL)))
        given[name] = draw(NONSENSE)
        family = draw(one('ViT', 'sizes')) if name in SELDOM else family  # others would be large
    if wrong == 5:
        family, name = draw(one('ViT', 'sizes')), draw(one(*sorted(SELDOM)))
        given[name] = draw(LEGAL[name])
    size = draw(SIDES), draw(SIDES)
    if (fixed := FAMILIES[family].fixed) and draw(st.booleans()):
        size = draw(one((fixed, fixed), (fixed - 1, fixed - 15)))
    later = {}
    if draw(st.integers(0, 4)) == 0:
        name = draw(one(*LATER))
        later[name] = draw(st.one_of(LEGAL.get(name, PAIR), LEGAL.get(name, PAIR), NONSENSE))
    return family, given, later, (draw(one(*[1, 2] * 9, 0)), *size), draw(IMAGES)


def images_of(kind, batch, channels, height, width):
    shape = (batch, channels + (kind == 'channels'), height * (kind != 'no side'), width)
    x = torch.ones(shape)
    return {
        'rank': lambda: x[..., None],
        'one image': lambda: x[0] if batch else x.flatten(2),
        'double': x.double,
        'half': x.half,
        'ints': x.long,
        'bytes': x.byte,
        'bools': x.bool,
        'complex': lambda: x.to(torch.complex64),
        'array': x.numpy,
        'None': lambda: None,
        'list': lambda: [x],
        'infinite': lambda: x * math.inf,
    }.get(kind, lambda: x)()


def attempt(drawn):
    """Only weights that cannot be had are a `RuntimeError`."""
    try:
        check(drawn)
    except RuntimeError as error:
        if drawn[1].get('pretrained') is not True:
            raise NotImplementedError from error
        raise


def check(drawn):
    name, given, later, (batch, height, width), kind = drawn
    family = FAMILIES[name]
    call = family.call | given
    if callable(call.get('model_name')):
        backbone = ViTFeatBackbone.from_module(call.pop('model_name')(), **call).eval()
    else:
        backbone = ViTFeatBackbone(**call).eval()
    backbone.init_weights()
    for setting, value in later.items():
        if setting == 'input_size':
            backbone.set_input_size(value)
        elif setting == 'image_sizes':
            backbone.set_image_sizes(value)
        else:
            setattr(backbone, setting, value)
            given = given | later
    x = images_of(kind, batch, backbone.in_channels, height, width)
    with torch.no_grad():
        outputs = backbone(x)
    assert kind in ('fits', 'infinite')
    if given.keys() & SELDOM:
        family = None if given.keys() & {'arch', 'source', 'model_name'} else family
    check_law(backbone, family, given, outputs, (batch, height, width), kind)


def check_law(backbone, family, given, outputs, sizes, kind):
    """The shapes that the arguments say, of any family by its table, and finite numbers."""
    batch, height, width = sizes
    assert isinstance(outputs, tuple)
    indices = backbone.out_indices
    assert len(outputs) == len(indices) == len(backbone.out_channels) == len(backbone.strides)
    for index, output in zip(indices, outputs, strict=True):
        assert output.dtype == torch.float32
        if kind == 'fits':
            assert is_finite(output)
        if family is not None:
            assert tuple(output.shape) == shape_of(family, given, index, sizes), index
        assert output.shape[0] == batch
    assert height
    assert width


def shape_of(family, given, index, sizes):
    """The shape of the output of a block, from the arguments."""
    batch, *image = sizes
    get = given.get
    patch = get('patch_size') or family.patch
    patch = tuple(patch) if isinstance(patch, (tuple, list)) else (patch, patch)
    steps, channels, last = patch, family.width, patch
    if family.stages:
        steps, channels = tuple(p * 2**index for p in patch), family.width * 2**index
        last = tuple(p * 2 ** (family.depth - 1) for p in patch)
    grid = [math.ceil(s / n) * n // p for s, n, p in zip(image, last, steps, strict=True)]
    cls = family.cls and get('with_cls_token') is not False
    prefix = family.prefix - (family.cls and not cls)
    if (pool := get('pool')) is not None:
        return batch, channels * (2 if pool == 'cls+avg' else 1)
    form = get('out_type', 'featmap')
    if form == 'raw':
        return batch, prefix + math.prod(grid), channels
    if form != 'featmap':
        return batch, channels
    if get('out_stride'):
        grid = [math.ceil(side / get('out_stride')) for side in image]
    return batch, channels * (2 if get('cls_readout') == 'concat' else 1), *grid


def test_any_arguments_and_images_of_a_backbone(no_network):
    assert Fuzz(attempt, [RuntimeError]).run(calls()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_arguments_and_images_of_a_backbone(no_network):
    assert Fuzz(attempt, [RuntimeError]).run(calls(), slow=True) == []
