"""Checkpoints in the keys of other projects: features of the backbone equal the original's."""

import copy
import re
import sys
from functools import partial

import layouts
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from layouts import (
    SMALL,
    check_all_loaded,
    features,
    load,
    mmseg_model,
    transformers_model,
    write,
)
from redraw import backbone, error, images, redraw, timm_vit
from safetensors.torch import load_file

# Name of the layout, timm's model and how its weights are written out
WRITTEN = {
    'Meta DINOv2': ('vit_small_patch14_dinov2', layouts.meta_dinov2),
    'Meta DINOv2 with registers': ('vit_small_patch14_reg4_dinov2', layouts.meta_dinov2),
    'Meta DINOv2 with SwiGLU': ('vit_giant_patch14_dinov2', layouts.meta_dinov2_swiglu),
    'Meta DINOv3': ('vit_small_patch16_dinov3', layouts.meta_dinov3),
    'Meta DINOv3 with biases': ('vit_small_patch16_dinov3_qkvb', layouts.meta_dinov3),
    'Meta DINOv3 with SwiGLU': ('vit_small_plus_patch16_dinov3', layouts.meta_dinov3),
    'EVA': ('eva02_tiny_patch14_224', layouts.eva),
    'EVA with norms inside': ('eva02_base_patch14_224', layouts.eva),
    'MAE': ('vit_base_patch16_224.mae', layouts.mae),
    'mmpretrain': ('vit_tiny_patch16_224', layouts.mmpretrain),
    'mmpretrain with LayerScale': ('vit_small_patch14_dinov2', layouts.mmpretrain),
    'mmpretrain with SwiGLU': ('vit_giant_patch14_dinov2', layouts.mmpretrain),
    'mmpretrain CLIP': ('vit_base_patch32_clip_224', layouts.mmpretrain),
    'OpenCLIP': ('vit_base_patch32_clip_224', layouts.openclip),
    'OpenCLIP with rotary positions': ('vit_pe_core_tiny_patch16_384', layouts.openclip),
    'big_vision': ('vit_tiny_patch16_224', layouts.augreg),
    'big_vision SigLIP': ('vit_base_patch16_siglip_224', layouts.flax),
}


@pytest.mark.parametrize('case', WRITTEN)
@torch.no_grad()
def test_features_equal_those_of_the_weights_written_out(case, log, tmp_path):
    name, layout = WRITTEN[case]
    reference = timm_vit(name, **SMALL)
    vit = load(layout(reference.state_dict()), tmp_path, name)
    check_all_loaded(log, re.sub(r' (with .*|CLIP|SigLIP)', '', case) + ' keys')
    for size in (reference.patch_embed.img_size, (120, 180)):
        x = images(*size)
        assert error(vit(x)[0], features(reference, x)) <= 1


def native_and_rectangle(vit):
    ph, pw = vit.patch_embed.patch_size
    return images(*vit.patch_embed.img_size), images(9 * ph, 13 * pw)


def zoomed(table, grid):
    """(1, C, h, w) as big_vision resamples it: linearly, corners kept."""
    factors = (1, 1, *(new / old for new, old in zip(grid, table.shape[-2:], strict=True)))
    return torch.from_numpy(scipy.ndimage.zoom(table.numpy(), factors, order=1))


def scaled(table, grid):
    """As DINO and DINOv2 without registers resample it: by a scale that is a little too large."""
    factors = tuple((new + 0.1) / old for new, old in zip(grid, table.shape[-2:], strict=True))
    return F.interpolate(table, scale_factor=factors, mode='bicubic')


def sized(mode='bicubic', **options):
    return partial(F.interpolate, mode=mode, **options)


# By whose code the rectangle is resampled; by the size and bicubically where none is named
ORIGINAL = {
    'Meta DINOv2': scaled,
    'Meta DINOv2 with registers': sized(antialias=True),
    'Meta DINOv2 with SwiGLU': scaled,
    'OpenCLIP': sized(antialias=True),
    'OpenCLIP with rotary positions': sized('bilinear'),
    'big_vision': zoomed,
    'big_vision SigLIP': zoomed,
}


def at_size(vit, size, resample):
    """The model built for images of a size, its positions resampled by a function."""
    built = copy.deepcopy(vit)
    built.set_input_size(size)
    grid, old = built.patch_embed.grid_size, vit.patch_embed.grid_size
    if vit.pos_embed is None or grid == old:
        return built
    prefix = vit.pos_embed.shape[1] - old[0] * old[1]
    table = vit.pos_embed[:, prefix:].mT.unflatten(-1, old)
    table = resample(table, grid).flatten(2).mT  # (1, C, h, w) -> (1, h*w, C)
    built.pos_embed.data = torch.cat([vit.pos_embed[:, :prefix], table], dim=1)
    return built


@pytest.mark.parametrize('case', WRITTEN)
@torch.no_grad()
def test_rectangles_equal_those_of_the_weights_authors(case, log, tmp_path):
    name, layout = WRITTEN[case]
    reference = timm_vit(name, **SMALL)
    vit = load(layout(reference.state_dict()), tmp_path, name, pos_interp='original')
    check_all_loaded(log, re.sub(r' (with .*|CLIP|SigLIP)', '', case) + ' keys')
    for x in native_and_rectangle(reference):
        authors = at_size(reference, x.shape[-2:], ORIGINAL.get(case, sized()))
        assert error(vit(x)[0], features(authors, x)) <= 1


@pytest.mark.parametrize(
    'case',
    [
        'Meta DINOv2 with registers',
        'Meta DINOv2 with SwiGLU',
        'Meta DINOv3 with biases',
        'EVA',
        'EVA with norms inside',
        'OpenCLIP',
        'OpenCLIP with rotary positions',
    ],
)
def test_tensors_equal_those_of_timms_own_filter(case, tmp_path):
    name, layout = WRITTEN[case]
    reference = timm_vit(name, **SMALL)
    weights = layout(reference.state_dict())
    # timm takes blocks out of no chunks and masks no biases
    flat = {re.sub(r'^blocks\.(\d)\.\1\.', r'blocks.\1.', n): t for n, t in weights.items()}
    convert = sys.modules[type(reference).__module__].checkpoint_filter_fn
    reference.load_state_dict(convert(flat, reference), strict=False)
    vit = load(weights, tmp_path, name)
    expected = reference.state_dict()
    for name, tensor in vit.vit.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_tensors_equal_those_of_timms_npz_reader(tmp_path):
    path = write(layouts.augreg(timm_vit(**SMALL).state_dict()), tmp_path)
    reference = redraw(timm_vit(**SMALL), seed=1)
    reference.load_pretrained(path)
    vit = backbone(checkpoint=path, **SMALL)
    expected = reference.state_dict()
    for name, tensor in vit.vit.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


TRANSFORMERS = {
    'ViT': ('vit_tiny_patch16_224', 'ViT', dict(intermediate_size=96, image_size=224)),
    'ViT with distillation': (
        'deit_tiny_distilled_patch16_224',
        'DeiT',
        dict(intermediate_size=96, image_size=224),
    ),
    'DINOv2': ('vit_small_patch14_dinov2', 'Dinov2', dict(image_size=518)),
    'DINOv2 with registers': (
        'vit_small_patch14_reg4_dinov2',
        'Dinov2WithRegisters',
        dict(image_size=518, patch_size=14),
    ),
    'DINOv2 with SwiGLU': (
        'vit_giant_patch14_dinov2',
        'Dinov2',
        dict(image_size=518, use_swiglu_ffn=True),
    ),
    'DINOv3': (
        'vit_small_patch16_dinov3_qkvb',
        'DINOv3ViT',
        dict(intermediate_size=96, num_register_tokens=4, layer_norm_eps=1e-5),
    ),
    'DINOv3 with SwiGLU': (
        'vit_small_plus_patch16_dinov3_qkvb',
        'DINOv3ViT',
        dict(intermediate_size=96, num_register_tokens=4, layer_norm_eps=1e-5)
        | dict(use_gated_mlp=True, hidden_act='silu'),
    ),
}


@pytest.mark.parametrize('version', [4, 5])
@pytest.mark.parametrize('case', TRANSFORMERS)
@torch.no_grad()
def test_features_equal_transformers(case, version, log, tmp_path):
    pytest.importorskip('transformers')
    name, kind, more = TRANSFORMERS[case]
    model = transformers_model(kind, **more)
    weights = model.state_dict()
    if version == 4:  # the layout in which version 5 still saves
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / 'model.safetensors')
    vit = load(weights, tmp_path, name, pos_interp='original')
    check_all_loaded(log, f'transformers {case.split()[0]} keys')
    asked = dict(interpolate_pos_encoding=True) if kind in ('ViT', 'DeiT') else {}
    for x in native_and_rectangle(vit.vit):
        assert error(vit(x)[0], model(x, **asked).last_hidden_state) <= 1


@pytest.mark.parametrize(
    ('name', 'kind', 'more'),
    [
        (
            'vit_base_patch32_clip_quickgelu_224',
            'CLIPVision',
            dict(patch_size=32, layer_norm_eps=1e-5),
        ),
        ('vit_base_patch16_siglip_224', 'SiglipVision', {}),
        ('vit_base_patch16_siglip_gap_224', 'SiglipVision', {}),
        ('vit_base_patch32_siglip_256', 'SiglipVision', dict(patch_size=32, image_size=256)),
    ],
)
@torch.no_grad()
def test_features_equal_transformers_towers(name, kind, more, log, tmp_path):
    pytest.importorskip('transformers')
    more = dict(intermediate_size=96, image_size=224) | more
    model = transformers_model(kind, **more)
    beside = {'text_model.final_layer_norm.bias': torch.ones(3), 'logit_scale': torch.ones(1)}
    tower = {f'vision_model.{name}': tensor for name, tensor in model.state_dict().items()}
    vit = load(tower | beside, tmp_path, name, norm='none', pos_interp='original')
    check_all_loaded(
        log, f"transformers {kind[:-6].replace('lip', 'LIP')} keys under 'vision_model.'"
    )
    for x in native_and_rectangle(vit.vit):
        asked = dict(interpolate_pos_encoding=True, output_hidden_states=True)
        assert error(vit(x)[0], model(x, **asked).hidden_states[-1]) <= 1


@torch.no_grad()
def test_features_equal_torchvisions(log, tmp_path):
    from torchvision.models import VisionTransformer

    model = redraw(VisionTransformer(224, 16, 2, 3, 24, 96, num_classes=5)).eval()
    vit = load(model.state_dict(), tmp_path, pos_interp='original')
    check_all_loaded(log, 'torchvision keys')
    table = model.encoder.pos_embedding
    for x in native_and_rectangle(vit.vit):
        grid = (x.shape[-2] // 16, x.shape[-1] // 16)
        maps = table[:, 1:].mT.unflatten(-1, (14, 14))
        maps = F.interpolate(maps, grid, mode='bicubic', align_corners=True)
        rows = torch.cat([table[:, :1], maps.flatten(2).mT], dim=1)
        model.encoder.pos_embedding = torch.nn.Parameter(rows)
        patches = model.conv_proj(x).flatten(2).mT
        tokens = torch.cat([model.class_token, patches], dim=1)
        assert error(vit(x)[0], model.encoder(tokens)) <= 1


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('vit_tiny_patch16_224', dict(patch_bias=True)),
        ('vit_tiny_patch16_224', dict()),  # what mmseg has by default
        ('vit_base_patch32_clip_224', dict(pre_norm=True, patch_size=32)),
    ],
    ids=['with a bias of the patches', 'without', 'neither has one'],
)
@pytest.mark.parametrize('size', [(224, 224), (250, 333)])
@torch.no_grad()
def test_features_equal_mmsegs(size, name, options, log, tmp_path):
    model = mmseg_model('VisionTransformer', **options)
    vit = load(model.state_dict(), tmp_path, name, out_type='featmap', pos_interp='original')
    check_all_loaded(log, 'mmseg keys')
    x = images(*size)
    assert error(vit(x)[0], model(x)[0]) <= 1


@torch.no_grad()
def test_layer_scales_that_the_model_lacks_are_multiplied_in(log, tmp_path):
    model = mmseg_model('MAE')
    vit = load(model.state_dict(), tmp_path, out_type='featmap')
    check_all_loaded(log, 'OpenMMLab BEiT or MAE keys')
    x = images(224, 224)
    assert error(vit(x)[0], model(x)[0]) <= 1


@torch.no_grad()
def test_features_equal_lightlys_over_timm(log, tmp_path):
    lightly = pytest.importorskip('lightly.models.modules')
    model = redraw(lightly.MaskedVisionTransformerTIMM(timm_vit(**SMALL))).eval()
    beside = {f'student.{name}': torch.ones(1) for name in model.state_dict()}
    weights = {f'teacher.{name}': tensor for name, tensor in model.state_dict().items()}
    vit = load(beside | weights, tmp_path)
    check_all_loaded(log, "timm keys under 'teacher.vit.'")
    x = images(224, 224)
    assert error(vit(x)[0], model.encode(x)) <= 1


@torch.no_grad()
def test_features_equal_lightlys_over_torchvision(log, tmp_path):
    lightly = pytest.importorskip('lightly.models.modules.masked_autoencoder')
    model = redraw(lightly.MAEBackbone(224, 16, 2, 3, 24, 96)).eval()
    vit = load({f'backbone.{n}': t for n, t in model.state_dict().items()}, tmp_path)
    check_all_loaded(log, "torchvision keys under 'backbone.'")
    x = images(224, 224)
    assert error(vit(x)[0], model.encode(x)) <= 1


@torch.no_grad()
def test_sapiens_runs_without_a_cls_token(log, tmp_path):
    size = dict(img_size=(256, 192), with_cls_token=False)
    reference = timm_vit(**SMALL, img_size=(256, 192), class_token=False, global_pool='avg')
    reference.norm, reference.fc_norm = reference.fc_norm, reference.norm
    names = reference.state_dict().items()
    keys = layouts.mmpretrain({n: t for n, t in names if not n.startswith('fc_norm')})
    vit = load(keys, tmp_path, **size)
    check_all_loaded(log, 'mmpretrain keys')
    x = images(256, 192)
    assert error(vit(x)[0], features(reference, x)) <= 1
