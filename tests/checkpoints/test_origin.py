"""The layout of the file that weights came from goes with them, and so does all that it decides."""

import copy
import io
import json

import layouts
import pytest
import timm
import torch
from layouts import SMALL
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from redraw import backbone, images, redraw, timm_vit
from torch import nn
from trained_models import write_segmenter

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import read_checkpoint
from vit_backbones.checkpoints.origin import decode, encode
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.models.trained import load_trained

RECTANGLE = images(9 * 16, 13 * 16)
RAW = SMALL | dict(out_type='raw', pos_interp='original')
IMAGENET = [123.675, 116.28, 103.53]
HALF = [127.5, 127.5, 127.5]
CLIP = [122.7709, 116.746, 104.0937]
SATELLITE = [109.65, 104.805, 75.48]


def torchvisions(weights):
    from torchvision.models import VisionTransformer

    return redraw(VisionTransformer(224, 16, 2, 3, 24, 96, num_classes=5)).state_dict()


def dinov2s(weights):
    return layouts.transformers_model('Dinov2', image_size=224, patch_size=16).state_dict()


# By the layout: the name, for which timm's authors resample otherwise, and the file's keys
FILES = {
    'MAE': ('vit_tiny_patch16_224', layouts.mae),
    'Meta DINOv2': ('vit_tiny_patch16_224', layouts.meta_dinov2),
    'mmpretrain': ('vit_tiny_patch16_224', layouts.mmpretrain),
    'torchvision': ('vit_tiny_patch16_224', torchvisions),
    'transformers DINOv2': ('vit_small_patch14_reg4_dinov2', dinov2s),
    'big_vision': ('deit_tiny_patch16_224', layouts.augreg),
}


@pytest.fixture(params=FILES)
def loaded(request, tmp_path):
    """A backbone with the weights of a file, and how to build it without them."""
    name, layout = FILES[request.param]
    more = dict(timm_options=dict(reg_tokens=0, no_embed_class=False)) if 'reg' in name else {}
    options = RAW | more | dict(patch_size=16, img_size=(224, 224))
    weights = layout(timm_vit(**SMALL).state_dict())
    vit = backbone(name, **options, checkpoint=layouts.write(weights, tmp_path))
    assert decode(vit.weights_layout) == request.param
    return vit, lambda **others: backbone(name, **options, **others)


def same(vit, other):
    """Whether two backbones give the same maps and expect the same images."""
    with torch.no_grad():
        maps = torch.equal(vit(RECTANGLE)[0], other(RECTANGLE)[0])
    return maps and other.preprocess == vit.preprocess


def test_a_state_dict_keeps_it(loaded):
    vit, build = loaded
    other = build()
    with torch.no_grad():
        assert not torch.equal(vit(RECTANGLE)[0], other(RECTANGLE)[0])
    other.load_state_dict(vit.state_dict())
    assert same(vit, other)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'net.encoder.'])
def test_a_file_of_this_package_keeps_it_below_any_prefix(prefix, suffix, tmp_path):
    weights = layouts.mae(timm_vit(**SMALL).state_dict())
    vit = layouts.load(weights, tmp_path, pos_interp='original')
    path = tmp_path / f'own{suffix}'
    tensors = {prefix + name: tensor for name, tensor in vit.state_dict().items()}
    if suffix == '.pth':
        torch.save({'state_dict': tensors, 'meta': {}}, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)
    assert same(vit, backbone(**RAW, checkpoint=path))
    inside = dict(type='Pretrained', checkpoint=str(path), prefix=f'{prefix}vit.')
    other = backbone(**RAW, init_cfg=inside)
    other.init_weights()
    assert same(vit, other)


def test_a_part_of_a_file_keeps_the_grid_of_its_positions(tmp_path):
    name = 'vit_tiny_patch16_224.augreg_in21k'
    vit = backbone(name, **RAW, img_size=(96, 160)).eval()
    torch.save({f'backbone.{n}': t for n, t in vit.state_dict().items()}, tmp_path / 'a.pth')
    inside = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.vit')
    other = backbone(name, **RAW, init_cfg=inside)
    other.init_weights()
    assert torch.equal(vit.source.table(vit.vit, (14, 14), 'original'), other.vit.pos_embed)


def test_a_converted_file_keeps_it(convert):
    mae = layouts.mae(timm_vit('test_vit', depth=None).state_dict())
    torch.save(mae, 'mae.pth')
    options = dict(pos_interp='original', out_type='raw')
    vit = ViTFeatBackbone('test_vit', checkpoint='mae.pth', **options).eval()
    convert(['mae.pth', 'out.safetensors', '--model', 'test_vit'])
    assert read_checkpoint('out.safetensors')['weights_layout'].equal(encode('MAE'))
    other = ViTFeatBackbone('test_vit', checkpoint='out.safetensors', **options).eval()
    assert same(vit, other)
    assert other.load_report == 'loaded 78 of 78 tensors, resized 0'


def test_a_file_converted_to_another_size_is_resampled_as_asked(convert):
    torch.save(layouts.mae(timm_vit('test_vit', depth=None).state_dict()), 'mae.pth')
    options = dict(pos_interp='original', out_type='raw', img_size=(96, 160))
    size = ['--img-size', '96', '160', '--pos-interp', 'original']
    convert(['mae.pth', 'out.safetensors', '--model', 'test_vit', *size])
    vit = ViTFeatBackbone('test_vit', checkpoint='mae.pth', **options).eval()
    other = ViTFeatBackbone('test_vit', checkpoint='out.safetensors', **options).eval()
    assert same(vit, other)


def test_copies_keep_it(loaded):
    vit, _ = loaded
    assert same(vit, copy.deepcopy(vit))
    buffer = io.BytesIO()
    torch.save(vit.state_dict(), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True).keys() == vit.state_dict().keys()


@pytest.mark.parametrize('update_buffers', [False, True])
def test_an_average_that_was_made_before_the_weights_gets_it_with_them(loaded, update_buffers):
    """As MMEngine's hook does, which copies the model before `init_weights`."""
    vit, build = loaded
    late = build()
    average = ExponentialMovingAverage(late, update_buffers=update_buffers)
    late.load_state_dict(vit.state_dict())
    average.update_parameters(late)
    assert same(vit, average.eval().module)


def test_another_input_size_keeps_it(loaded):
    vit, build = loaded
    other = build()
    other.load_state_dict(vit.state_dict())
    for each in (vit, other):
        each.set_input_size((96, 160))
    assert same(vit, other)
    other = build()  # the file records the other grid
    other.load_state_dict(vit.state_dict())
    table = vit.source.table(vit.vit, (14, 14), 'original')
    assert torch.equal(other.source.table(other.vit, (14, 14), 'original'), table)


def test_files_of_half_precision_keep_it(loaded):
    vit, build = loaded
    other = build()
    other.load_state_dict({name: tensor.half() for name, tensor in vit.state_dict().items()})
    assert other.weights_layout.equal(vit.weights_layout)
    assert other.preprocess == vit.preprocess


def test_the_activation_of_siglip_goes_with_its_weights(tmp_path):
    """transformers' files run with the GELU by tanh, which timm has in a few sizes only."""
    pytest.importorskip('transformers')
    name = 'vit_base_patch16_siglip_224'
    model = layouts.transformers_model('SiglipVision', intermediate_size=96, image_size=224)
    vit = layouts.load(model.state_dict(), tmp_path, name, norm='none', pos_interp='original')
    other = backbone(name, **RAW, norm='none')
    other.load_state_dict(vit.state_dict())
    assert same(vit, other)
    assert approximations(other) == {'tanh'}
    # weights of no file: timm's own
    other.load_state_dict(backbone(name, **RAW, norm='none').state_dict())
    assert approximations(other) == {'none'}


def approximations(vit):
    return {module.approximate for module in vit.modules() if isinstance(module, nn.GELU)}


ORIGINAL = """
model['backbone'].update(pos_interp='original', checkpoint='{start}')
"""


def test_a_trained_model_keeps_it_without_the_file_of_its_start(tmp_path):
    start = tmp_path / 'mae.pth'
    torch.save(layouts.mae(timm_vit('test_vit', depth=None).state_dict()), start)
    config, checkpoint = write_segmenter(tmp_path, ORIGINAL.format(start=start))
    cfg = Config.fromfile(config)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    load_checkpoint(model, checkpoint)  # redrawn weights
    start.unlink()
    trained = load_trained(config, checkpoint, device='cpu').model
    with torch.no_grad():
        for one, other in zip(model.backbone(RECTANGLE), trained.backbone(RECTANGLE), strict=True):
            assert torch.equal(one, other)
    assert trained.backbone.preprocess['mean'] == IMAGENET
    loaded = load_backbone(Choice(config=config, checkpoint=checkpoint)).backbone
    with torch.no_grad():
        for one, other in zip(model.backbone(RECTANGLE), loaded(RECTANGLE), strict=True):
            assert torch.equal(one, other)


def test_older_files_record_nothing_and_load(log):
    """They come with the model's name, as before, and the normalisation is unknown."""
    vit = backbone(**RAW)
    older = {name: tensor for name, tensor in vit.state_dict().items() if name != 'weights_layout'}
    assert vit.preprocess['mean'] == HALF
    other = backbone(**RAW)
    assert not log
    other.load_state_dict(older, strict=True)
    assert log == [
        'the file does not record whose weights it started from: '
        "pos_interp='original' resamples positions as the authors do whom 'vit_tiny_patch16_224' "
        'stands for; the checkpoint of its start, named by checkpoint=..., shows others'
    ]
    with torch.no_grad():
        assert torch.equal(vit(RECTANGLE)[0], other(RECTANGLE)[0])
    assert other.preprocess is None


def test_older_files_of_a_training_keep_the_layout_of_its_start(log, tmp_path):
    vit = layouts.load(layouts.mae(timm_vit(**SMALL).state_dict()), tmp_path, pos_interp='original')
    older = {name: tensor for name, tensor in vit.state_dict().items() if name != 'weights_layout'}
    other = backbone(**RAW, checkpoint=tmp_path / 'a.pth')
    log.clear()
    other.load_state_dict(older)
    assert not log
    assert same(vit, other)


def test_files_of_other_parts_change_nothing():
    model = nn.Module()
    model.backbone, model.head = backbone(**SMALL), nn.Linear(2, 2)
    model.load_state_dict({'head.weight': torch.ones(2, 2)}, strict=False)
    assert model.backbone.preprocess['mean'] == HALF


def test_weights_of_no_file_are_those_of_the_name():
    vit = backbone('vit_base_patch16_224.mae', **SMALL)
    assert not vit.weights_layout.any()
    assert vit.preprocess['mean'] == IMAGENET
    assert ViTFeatBackbone.from_module(timm_vit(**SMALL)).preprocess['mean'] == HALF
    other = backbone('vit_base_patch16_224.mae', **SMALL)
    other.load_state_dict(vit.state_dict())
    assert other.preprocess['mean'] == IMAGENET


def test_own_files_of_no_other_need_a_tag(tmp_path):
    """They may have started from any of the library's weights."""
    vit = backbone('vit_base_patch16_224.mae', **SMALL)
    torch.save(vit.state_dict(), tmp_path / 'a.pth')
    other = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert not other.weights_layout.any()
    assert other.preprocess is None
    named = backbone('vit_base_patch16_224.mae', **SMALL, checkpoint=tmp_path / 'a.pth')
    assert named.preprocess == vit.preprocess


def test_a_model_on_the_meta_device_has_it_too():
    with torch.device('meta'):
        vit = ViTFeatBackbone('test_vit')
    assert vit.eval().weights_layout.is_meta
    assert vit.preprocess['mean'] == HALF


LARGE = 'vit_large_patch16_dinov3'
WRITTEN = {
    'MAE': ('vit_tiny_patch16_224', layouts.mae, IMAGENET),
    'MAE under a name that says otherwise': (
        'vit_tiny_patch16_224.augreg_in21k',
        layouts.mae,
        IMAGENET,
    ),
    'Meta DINOv2': ('vit_small_patch14_dinov2', layouts.meta_dinov2, IMAGENET),
    'Meta DINOv3': ('vit_small_patch16_dinov3', layouts.meta_dinov3, IMAGENET),
    'Meta DINOv3 of satellites': (f'{LARGE}.sat493m', layouts.meta_dinov3, SATELLITE),
    'Meta DINOv3, of which timm has both': (LARGE, layouts.meta_dinov3, None),
    'EVA': ('eva02_tiny_patch14_224', layouts.eva, CLIP),
    'torchvision': ('vit_tiny_patch16_224', torchvisions, IMAGENET),
    'big_vision': ('deit_tiny_patch16_224', layouts.augreg, HALF),
    'big_vision SigLIP': ('vit_base_patch16_siglip_224', layouts.flax, HALF),
    'OpenCLIP': ('vit_base_patch32_clip_224', layouts.openclip, CLIP),
    'OpenCLIP of which timm has both': ('vit_large_patch14_clip_224', layouts.openclip, None),
    'OpenCLIP of LAION': ('vit_large_patch14_clip_224.laion2b', layouts.openclip, HALF),
    'OpenCLIP of Meta': ('vit_pe_core_tiny_patch16_384', layouts.openclip, HALF),
    'mmpretrain': ('vit_tiny_patch16_224', layouts.mmpretrain, None),
    'mmpretrain of a name with a tag': ('vit_base_patch16_224.mae', layouts.mmpretrain, IMAGENET),
    'timm': ('vit_tiny_patch16_224', dict, None),
    'timm of a name with a tag': ('vit_tiny_patch16_224.augreg_in21k_ft_in1k', dict, HALF),
    'timm, MAE': ('vit_base_patch16_224.mae', dict, IMAGENET),
    'timm, DINO': ('vit_base_patch16_224.dino', dict, IMAGENET),
}


@pytest.mark.parametrize('case', WRITTEN)
def test_normalisation_follows_the_weights(case, tmp_path):
    name, layout, mean = WRITTEN[case]
    vit = layouts.load(layout(timm_vit(name, **SMALL).state_dict()), tmp_path, name)
    assert (vit.preprocess and vit.preprocess['mean']) == mean
    other = backbone(name, **SMALL)
    other.load_state_dict(vit.state_dict())
    assert other.preprocess == vit.preprocess


@pytest.mark.parametrize(
    ('kind', 'name', 'more', 'mean'),
    [
        ('ViT', 'vit_tiny_patch16_224', {}, None),
        ('ViT', 'vit_base_patch16_224.mae', {}, IMAGENET),
        ('Dinov2', 'vit_small_patch14_dinov2', dict(image_size=518), IMAGENET),
        ('CLIPVision', 'vit_base_patch32_clip_quickgelu_224', dict(patch_size=32), CLIP),
        ('SiglipVision', 'vit_base_patch16_siglip_224', {}, HALF),
    ],
)
def test_normalisation_follows_files_of_transformers(kind, name, more, mean, tmp_path):
    pytest.importorskip('transformers')
    more = dict(intermediate_size=96, image_size=224) | more
    weights = layouts.transformers_model(kind, **more).state_dict()
    vit = layouts.load(weights, tmp_path, name, norm='none')
    assert (vit.preprocess and vit.preprocess['mean']) == mean


def test_sources_of_one_normalisation_know_it(tmp_path):
    vit = timm_vit(**SMALL)
    path = layouts.write(vit.state_dict(), tmp_path)
    lightlys = backbone(source='lightly', **SMALL, checkpoint=path)
    assert lightlys.preprocess['mean'] == IMAGENET
    presets = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=96)
    file = layouts.write(layouts.mmpretrain(vit.state_dict()), tmp_path)
    assert ViTFeatBackbone(arch=presets, checkpoint=file).preprocess is None


@pytest.mark.parametrize(
    ('kind', 'mean'),
    [('vit', None), ('beit', None), ('dinov2', IMAGENET), ('siglip_vision_model', HALF)],
)
def test_families_of_several_normalisations_need_a_config_beside_theirs(kind, mean, tmp_path):
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48)
    config = transformers.AutoConfig.for_model(kind, **size)
    config.save_pretrained(tmp_path)
    first = ViTFeatBackbone(str(tmp_path), source='transformers')
    assert first.preprocess['mean'] == (mean or HALF)
    torch.save(first.state_dict(), tmp_path / 'a.pth')
    options = dict(source='transformers', checkpoint=tmp_path / 'a.pth')
    vit = ViTFeatBackbone(str(tmp_path), **options)
    assert (vit.preprocess and vit.preprocess['mean']) == mean
    beside = dict(image_mean=[0.2, 0.4, 0.6], image_std=[0.5] * 3)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(beside))
    assert ViTFeatBackbone(str(tmp_path), **options).preprocess['mean'] == [51.0, 102.0, 153.0]


def test_statistics_of_published_weights_are_timms():
    """Those of a tag that has a layout's files: no tag of timm contradicts the table."""
    of = {name: list(timm.get_pretrained_cfg(name).mean) for name in timm.list_pretrained()}
    for pattern, known in {
        '.mae': [IMAGENET],
        '_dinov2.': [IMAGENET],
        '_dinov3': [IMAGENET, SATELLITE],
        'samvit_': [IMAGENET],
        'eva02_': [CLIP],
        '_siglip_': [HALF],
        '.augreg_': [HALF],
        '_clip_': [CLIP, HALF],
        'vit_pe_': [HALF],
    }.items():
        means = [[round(255 * each, 4) for each in of[name]] for name in of if pattern in name]
        assert means, pattern
        assert all(mean in known for mean in means), pattern
