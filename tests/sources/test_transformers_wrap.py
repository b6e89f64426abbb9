"""The encoder inside any model of transformers: backbones, heads, towers of two."""

import pytest
import torch
from encoders import CONFIGS, config_of, layers, library_model, shown, transformers
from redraw import error, images, pad
from torch import nn

from vit_backbones import ViTFeatBackbone

BACKBONES = {
    'dinov2': transformers.Dinov2Backbone,
    'dinov2_with_registers': transformers.Dinov2WithRegistersBackbone,
    'dinov3_vit': transformers.DINOv3ViTBackbone,
}
# Model, what holds its encoder, and which encoder that is
WITH_HEADS = [
    (transformers.ViTForImageClassification, 'vit', 'vit'),
    (transformers.ViTForMaskedImageModeling, 'vit', 'vit'),
    (transformers.DeiTForImageClassificationWithTeacher, 'deit', 'deit'),
    (transformers.Dinov2ForImageClassification, 'dinov2', 'dinov2'),
    (transformers.BeitForImageClassification, 'beit', 'beit'),
    (transformers.BeitBackbone, 'beit', 'beit_shared'),
    (transformers.SwinForImageClassification, 'swin', 'swin'),
    (transformers.SwinBackbone, 'swin', 'swin'),
    (transformers.CLIPVisionModelWithProjection, 'vision_model', 'clip_vision_model'),
]
_TEXT = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)


def config(name, **options):
    return transformers.AutoConfig.for_model(**config_of(name), **options)


def whole(kind, vision):
    """A model of two towers."""
    return kind(kind.config_class(vision_config=config_of(vision), text_config=_TEXT))


@pytest.mark.parametrize('size', [(224, 224), (250, 333)], ids=str)
@pytest.mark.parametrize('name', BACKBONES)
@torch.no_grad()
def test_maps_equal_those_of_the_librarys_backbone(name, size):
    theirs = shown(BACKBONES[name](config(name, out_features=['stage1', 'stage2'])))
    ours = ViTFeatBackbone.from_module(theirs, out_indices=(0, 1), norm='all').eval()
    expected = theirs(pad(images(*size), CONFIGS[name][1]['patch_size'])).feature_maps
    outputs = ours(images(*size))
    assert max(error(out, ref) for out, ref in zip(outputs, expected, strict=True)) <= 1


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        (transformers.BeitBackbone, 'beit'),
        (transformers.SwinBackbone, 'swin'),
        (transformers.VitDetBackbone, 'vitdet'),
    ],
)
@torch.no_grad()
def test_maps_without_norm_equal_the_hidden_states_of_the_librarys_backbone(kind, name):
    theirs, x = shown(kind(config(name))), images(224, 160)
    ours = ViTFeatBackbone.from_module(theirs, out_indices=(0, 1), norm='none').eval()
    for out, reference in zip(ours(x), hidden_maps(theirs, x), strict=True):
        assert error(out, reference) <= 1


def hidden_maps(vit, x):
    """The last two hidden states of a backbone as maps."""
    states = vit(x, output_hidden_states=True).hidden_states[-2:]
    grid = x.shape[2] // 16, x.shape[3] // 16
    return [s if s.ndim == 4 else s[:, 1:].mT.unflatten(2, grid) for s in states]


@pytest.mark.parametrize(
    ('kind', 'part', 'name'), WITH_HEADS, ids=lambda v: getattr(v, '__name__', v)
)
@torch.no_grad()
def test_a_model_with_heads_is_its_encoder(kind, part, name):
    model, x = shown(kind(config(name))), images(224, 160)
    ours = ViTFeatBackbone.from_module(model, out_type='raw').eval()
    vit = model.get_submodule(part)
    assert error(ours(x)[0], layers(vit, pad(x, vit.config.patch_size))[-1]) <= 1


@pytest.mark.parametrize(
    ('kind', 'vision'),
    [
        (transformers.SiglipModel, 'siglip_vision_model'),
        (transformers.Siglip2Model, 'siglip2_vision_model'),
        (transformers.CLIPModel, 'clip_vision_model'),
    ],
)
@torch.no_grad()
def test_a_model_of_two_towers_is_that_of_the_images(kind, vision):
    model, x = shown(whole(kind, vision)), images(224, 160)
    ours = ViTFeatBackbone.from_module(model, out_type='raw').eval()
    assert error(ours(x)[0], layers(model.vision_model, x)[-1]) <= 1


@torch.no_grad()
def test_a_backbone_inside_a_matting_model_is_found_with_its_four_channels():
    encoder = config('vitdet', num_channels=4, out_features=['stage2'])
    matting = transformers.VitMatteConfig(
        backbone_config=encoder, hidden_size=32, fusion_hidden_sizes=[64, 32, 16, 8]
    )
    model, x = shown(transformers.VitMatteForImageMatting(matting)), images(96, 160, channels=4)
    ours = ViTFeatBackbone.from_module(model).eval()
    assert error(ours(x)[0], model.backbone(x).feature_maps[0]) <= 1


@torch.no_grad()
def test_what_automodel_gives_is_taken():
    model, x = shown(transformers.AutoModel.from_config(config('vit'))), images(96, 160)
    ours = ViTFeatBackbone.from_module(model, out_type='raw').eval()
    assert error(ours(x)[0], layers(model, x)[-1]) <= 1


def test_a_model_with_a_head_shares_its_weights_and_stays_as_it_is():
    model = transformers.Dinov2ForImageClassification(config('dinov2'))
    names = set(model.state_dict())
    ours = ViTFeatBackbone.from_module(model, out_indices=0, frozen_stages=0)
    assert set(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())
    shared = {p.data_ptr() for p in model.dinov2.parameters()}
    assert all(p.data_ptr() in shared for p in ours.parameters())


class Two(transformers.PreTrainedModel):
    """A model that holds two encoders."""

    def __init__(self):
        super().__init__(config('vit'))
        self.left, self.right = nn.Sequential(library_model('vit')), library_model('dinov2')


def bert():
    return transformers.BertModel(transformers.BertConfig(**_TEXT))


def mae():
    return transformers.ViTMAEModel(transformers.ViTMAEConfig(num_hidden_layers=1))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (mae, r"^ViTMAEModel of transformers is none of ViTModel.*source='timm'"),
        (bert, r'^BertModel of transformers is none of ViTModel'),
        (Two, r'^Two of transformers holds 2 encoders: give one of \.left\.0, \.right$'),
    ],
)
def test_refusals_are_of_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        ViTFeatBackbone.from_module(make())
    assert '\n' not in str(caught.value)
