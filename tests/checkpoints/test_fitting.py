"""Fitting checkpoints to a backbone: what is accepted, what is refused, what is said."""

import os
from pathlib import Path

import pytest
import timm
import torch
from redraw import backbone, error, images, timm_vit
from safetensors.torch import load_file, save_file

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import match
from vit_backbones.checkpoints.fitting import Report

SMALL = dict(depth=4, width=24)
DATA = Path(os.environ.get('VIT_BACKBONES_DATA', Path(__file__).parents[3] / 'shared'))
REAL = DATA / 'weights' / 'vit_tiny_patch16_224.safetensors'


@pytest.fixture(scope='module')
def reference():
    """The state dict of a timm model with its classifier."""
    return timm_vit(**SMALL, num_classes=5).state_dict()


def check_loaded(vit, reference):
    loaded = vit.vit.state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model'])
@pytest.mark.parametrize(
    'prefix',
    [
        *('', 'vit.', 'backbone.', 'backbone.vit.', 'model.', 'encoder.', 'module.'),
        *('module.backbone.vit.', 'module.backbone.', 'teacher.', 'student.backbone.'),
    ],
)
def test_prefixes_and_wrappers_are_taken_off(prefix, wrapper, reference, log, tmp_path):
    content = {prefix + name: tensor for name, tensor in reference.items()}
    if prefix:
        content['neck.weight'] = torch.ones(2)
    torch.save({wrapper: content} if wrapper else content, tmp_path / 'a.pth')
    check_loaded(backbone(**SMALL, checkpoint=tmp_path / 'a.pth'), reference)
    total = len(reference) - 2  # the classifier
    rest = '; of a trained model, without its neck' * prefix.startswith('backbone.')
    assert log == [f'{tmp_path}/a.pth: loaded {total} of {total} tensors, resized 0{rest}']


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_weights_are_loaded_in_fp32(dtype, reference, tmp_path):
    halves = {name: tensor.to(dtype) for name, tensor in reference.items()}
    save_file(halves, tmp_path / 'a.safetensors')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.safetensors')
    check_loaded(vit, {name: tensor.float() for name, tensor in halves.items()})


@pytest.mark.parametrize(
    'head',
    [
        'head.weight',
        'fc.bias',
        'fc_norm.weight',
        'head_dist.weight',
        'attn_pool.q.weight',
        'masked_embed',
    ],
)
def test_leftover_heads_are_accepted(head, reference, tmp_path):
    torch.save(reference | {head: torch.ones(3)}, tmp_path / 'a.pth')
    check_loaded(backbone(**SMALL, checkpoint=tmp_path / 'a.pth'), reference)


def test_leftover_pruned_parts_are_accepted(reference, tmp_path):
    torch.save(reference, tmp_path / 'a.pth')
    vit = backbone(**SMALL, out_indices=1, checkpoint=tmp_path / 'a.pth')
    assert (len(vit.vit.blocks), hasattr(vit.vit.norm, 'weight')) == (2, False)
    check_loaded(vit, reference)


@pytest.mark.parametrize(
    ('tensors', 'message'),
    [
        ({'header.weight': torch.ones(1)}, 'holds 1 tensors that fit nowhere .*: header.weight$'),
        ({'blocks.4.norm1.bias': torch.ones(24)}, 'fit nowhere .*: blocks.4.norm1.bias$'),
        ({'norm.bias': torch.ones(7)}, r'fit nowhere .*: norm.bias \(7,\) for \(24,\)$'),
        ({'pos_embed': torch.ones(1, 196, 24)}, r'pos_embed \(1, 196, 24\) for \(1, 197, 24\)$'),
        (
            {'norm.bias': torch.ones(24, dtype=torch.int8)},
            r'norm.bias \(24,\) of int8 for \(24,\)$',
        ),
        (
            {'patch_embed.proj.weight': torch.ones(24, 4, 8, 8, dtype=torch.uint8)},
            r'in_channels\? .* \(24, 4, 8, 8\) of uint8 for \(24, 3, 16, 16\)$',
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_tensors_that_fit_nowhere_are_refused(tensors, message, reference, tmp_path):
    torch.save(reference | tensors, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message) as caught:
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert '\n' not in str(caught.value)
    backbone(**SMALL, checkpoint=tmp_path / 'a.pth', allow_partial=True)


def test_a_missing_block_is_refused_with_the_first_ten_names(reference, tmp_path):
    less = {name: tensor for name, tensor in reference.items() if not name.startswith('blocks.1')}
    torch.save(less, tmp_path / 'a.pth')
    total = len(reference) - 2
    names = [name for name in reference if name.startswith('blocks.1')]
    with pytest.raises(ValueError, match='missing: blocks') as caught:
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert str(caught.value) == (
        f"checkpoint '{tmp_path}/a.pth' matches {total - 12} of {total} tensors; missing: "
        f'{", ".join(names[:10])} and 2 more (allow_partial=True loads the rest and leaves these '
        f'random)'
    )


@pytest.mark.parametrize(
    ('what', 'tensor'),
    [
        ('CLS token', 'cls_token'),
        ('patch embedding', 'patch_embed.proj.weight'),
        ('position table', 'pos_embed'),
    ],
)
def test_a_file_without_one_that_all_features_need_is_refused(what, tensor, tmp_path):
    """Though all but one tensor match."""
    check_vital(tmp_path, what, tensor, model_name='test_vit')


@pytest.mark.parametrize(
    ('what', 'tensor'),
    [
        ('CLS token', 'class_token'),
        ('patch embedding', 'conv_proj.weight'),
        ('position table', 'encoder.pos_embedding'),
    ],
)
def test_so_it_is_by_the_names_of_torchvision(what, tensor):
    """Whose models take seconds to build."""
    report = Report(matched=dict.fromkeys(map(str, range(149))), missing=[tensor], absent=[tensor])
    with pytest.raises(ValueError, match=f'has no {what}, which the model has as {tensor}: '):
        report.check('a.pth')


@pytest.mark.parametrize('kind', ['ViT', 'Dinov2', 'CLIPVision', 'SiglipVision', 'DINOv3ViT'])
@pytest.mark.parametrize('what', ['patch embedding', 'position table'])
def test_so_it_is_for_models_of_transformers(kind, what, tmp_path):
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, intermediate_size=24, num_hidden_layers=4, num_attention_heads=3)
    config = getattr(transformers, f'{kind}Config')(**size)
    options = dict(model_name=config, source='transformers')
    source = (vit := ViTFeatBackbone(**options)).source
    tensor = source.patch_embed_name() if 'patch' in what else source.position_name(vit.vit)
    if tensor is not None:  # DINOv3 has rotary positions
        check_vital(tmp_path, what, tensor, **options)


def check_vital(folder, what, tensor, **options):
    content = ViTFeatBackbone(**options).vit.state_dict()
    kept = content.pop(tensor)
    torch.save(content, folder / 'a.pth')
    message = rf'has no {what}, which the model has as {tensor}: .*allow_partial=True'
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone(checkpoint=folder / 'a.pth', **options)
    assert '\n' not in str(caught.value)
    vit = ViTFeatBackbone(checkpoint=folder / 'a.pth', allow_partial=True, **options)
    assert vit.vit.state_dict()[tensor].shape == kept.shape
    assert f'missing: {tensor}' in vit.load_report


def test_allow_partial_loads_what_fits(reference, log, tmp_path):
    some = {name: tensor for name, tensor in reference.items() if 'blocks.1' not in name}
    torch.save(some | {'header.weight': torch.ones(1)}, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth', allow_partial=True)
    loaded = vit.vit.state_dict()
    assert all(torch.equal(loaded[name], some[name]) for name in loaded if name in some)
    total, names = len(reference) - 2, [name for name in reference if 'blocks.1' in name]
    assert log == [
        f'{tmp_path}/a.pth: loaded {total - 12} of {total} tensors, resized 0',
        f'{tmp_path}/a.pth: allow_partial=True leaves 12 tensors of {total} random, which the file '
        f'lacks or holds otherwise: {", ".join(names[:10])} and 2 more',
    ]
    assert vit.load_report == f'{log[0].split(": ")[1]}; missing: {", ".join(names)}'


@pytest.mark.parametrize('name', ['vit_tiny_patch16_384', 'vit_tiny_patch16_224'])
def test_a_position_table_of_another_size_is_counted_as_resized(name, log, tmp_path):
    weights = timm_vit('vit_tiny_patch16_384', **SMALL).state_dict()
    torch.save(weights, tmp_path / 'a.pth')
    vit = backbone(name, **SMALL, checkpoint=tmp_path / 'a.pth')
    side = int(name[-3:]) // 16
    expected = timm.layers.resample_abs_pos_embed(weights['pos_embed'], (side, side), (24, 24))
    torch.testing.assert_close(vit.vit.pos_embed.data, expected)
    assert log[0].endswith(f'resized {int(side != 24)}')


def test_a_recorded_grid_beside_bare_names_is_used(tmp_path):
    oblong = backbone(**SMALL, img_size=(112, 448))
    names = {name.removeprefix('vit.'): tensor for name, tensor in oblong.state_dict().items()}
    torch.save(names, tmp_path / 'a.pth')
    vit = backbone(**SMALL, img_size=(112, 448), checkpoint=tmp_path / 'a.pth')
    assert torch.equal(vit.vit.pos_embed, oblong.vit.pos_embed)


def test_match_loads_nothing_by_itself():
    model = {'embed.weight': torch.zeros(2, 3, 4, 4), 'b': torch.zeros(3)}
    report = match({'b': torch.ones(3)}, model, patch_embed='embed.weight')
    assert (list(report.matched), report.missing, report.leftover) == (['b'], ['embed.weight'], [])
    assert model['b'].sum() == 0


@pytest.mark.skipif(not REAL.exists(), reason=f'{REAL} is not there; VIT_BACKBONES_DATA names it')
@torch.no_grad()
def test_real_weights_give_timms_features(log):
    vit = ViTFeatBackbone('vit_tiny_patch16_224', checkpoint=REAL, out_type='raw').eval()
    assert log == [f'{REAL}: loaded 150 of 150 tensors, resized 0']
    reference = timm.create_model('vit_tiny_patch16_224').eval()
    reference.load_state_dict(load_file(REAL))
    x = images(224, 224)
    assert error(vit(x)[0], reference.forward_features(x)) <= 1
