"""Channels of the images: those of the existing model, whichever library it is of."""

import pytest
import timm
import torch
from encoders import layers, library_model, transformers
from redraw import error, images, redraw, timm_layers, timm_vit
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig

from vit_backbones import ViTFeatBackbone


def torchvision_vit(**options):
    sizes = dict(patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96)
    return VisionTransformer(image_size=224, **sizes, **options)


def torchvision_4():
    vit = torchvision_vit()
    vit.conv_proj = torch.nn.Conv2d(4, 48, 16, 16)
    return redraw(vit)


def lightly_4():
    modules = pytest.importorskip('lightly.models.modules')
    return modules.MaskedVisionTransformerTIMM(timm_vit(depth=2, in_chans=4))


def clip_classifier_4():
    vision = dict(num_channels=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    return transformers.CLIPForImageClassification(transformers.CLIPConfig(vision_config=vision))


MODELS = {
    'timm': lambda: timm_vit(depth=2, in_chans=4),
    'timm, not by name': lambda: timm.models.VisionTransformer(depth=1, in_chans=4),
    'timm, stages': lambda: timm.create_model('pvt_v2_b0', in_chans=4),
    'timm, one size': lambda: timm.create_model('beit_base_patch16_224', in_chans=4, depth=1),
    'torchvision': torchvision_4,
    'lightly': lightly_4,
    'transformers': lambda: library_model('dinov3_vit', num_channels=4),
    'transformers, patches': lambda: library_model('siglip2_vision_model', num_channels=4),
    'transformers, stages': lambda: library_model('swin', num_channels=4),
    'transformers, with a head': clip_classifier_4,
}


@pytest.mark.parametrize('make', MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_from_module_takes_the_channels_of_the_model(make):
    ours = ViTFeatBackbone.from_module(make()).eval()
    assert ours.in_channels == 4
    assert ours(images(224, 224, channels=4))[0].isfinite().all()


@pytest.mark.parametrize('make', MODELS.values(), ids=MODELS)
def test_other_channels_than_the_models_are_refused(make):
    message = r'^in_channels=3: the existing \w+ takes images of 4 channels; leave in_channels out$'
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone.from_module(make(), in_channels=3)
    assert ViTFeatBackbone.from_module(make(), in_channels=4).in_channels == 4


@torch.no_grad()
def test_features_of_four_channels_equal_the_librarys():
    x, timms = images(250, 333, channels=4), timm_vit(depth=2, in_chans=4)
    ours = ViTFeatBackbone.from_module(timms, out_type='raw', norm='none').eval()
    assert error(ours(x)[0], timm_layers(timms, x, [1])[0]) <= 1
    theirs, x = library_model('vit', num_channels=4), x[..., :240, :320]
    ours = ViTFeatBackbone.from_module(theirs, out_type='raw').eval()
    assert error(ours(x)[0], layers(theirs, x)[-1]) <= 1


def test_channels_of_a_stem_of_convolutions():
    stem = [ConvStemConfig(out_channels=8, kernel_size=16, stride=16)]
    assert ViTFeatBackbone.from_module(torchvision_vit(conv_stem_configs=stem)).in_channels == 3


@pytest.mark.parametrize(('given', 'channels'), [({}, 3), (dict(in_channels=1), 1)], ids=str)
def test_built_models_have_three_channels_unless_told(given, channels):
    ours = ViTFeatBackbone('test_vit', **given)
    assert (ours.in_channels, ours.vit.patch_embed.proj.in_channels) == (channels, channels)
