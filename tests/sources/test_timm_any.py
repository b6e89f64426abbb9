"""timm's other architectures: stages, fixed sizes, prefix tokens; features equal to timm's own."""

from functools import partial

import pytest
import timm
import torch
from _comparison import check
from redraw import copy_weights, error, images, redraw
from slow import few

from vit_backbones import SimpleFeaturePyramid, ViTFeatBackbone
from vit_backbones.sources.timm_build import build_timm

# One small model a kind: what it shows
KINDS = [
    'beit_base_patch16_224',  # relative positions for one size, CLS
    'cait_xxs24_224',  # class attention, absolute positions for one size
    'coat_lite_tiny',  # modules shared between stages
    'deit_tiny_distilled_patch16_224',  # two prefix tokens
    'levit_128s',  # 224 is no multiple of its stride 64
    'mvitv2_tiny',  # squares only, tables by position
    'pit_ti_224',  # overlapping patches
    'pvt_v2_b0',  # stages, any size
    'samvit_base_patch16',  # windows and a neck that is no norm
    'swin_tiny_patch4_window7_224',  # windows, final norm on (B, h, w, C)
    'twins_svt_small',  # position encoders between the blocks
    'vit_relpos_small_patch16_224',
    'vit_tiny_r_s16_p8_224',  # a convolutional stem
    'xcit_nano_12_p16_224',  # class attention, any size
]


def fixed(name, size=None, **options):
    """A backbone over a redrawn two-block model."""
    build = partial(build_timm, more=dict(depth=2))
    built = ViTFeatBackbone(name, source=build, img_size=size, **options)
    if 'checkpoint' not in options:
        redraw(built)
    return built.eval()


@pytest.mark.parametrize(
    'name',
    few(
        KINDS,
        'deit_tiny_distilled_patch16_224',
        'pvt_v2_b0',
        'samvit_base_patch16',
        'swin_tiny_patch4_window7_224',
        'vit_relpos_small_patch16_224',
    ),
)
def test_features_equal_timms_on_a_rectangle_and_an_odd_size(name):
    result = check('', name)
    assert (result.status, result.how) in {
        ('works', 'any size'),
        ('works', 'built at img_size'),
    }, result.how
    assert result.error <= 1


def test_stages_have_their_own_strides_and_channels():
    swin = ViTFeatBackbone('swin_tiny_patch4_window7_224', out_indices=(3, 0)).eval()
    assert (swin.strides, swin.out_channels) == ((32, 4), (768, 96))
    assert [tuple(m.shape[1:]) for m in swin(images(100, 150))] == [(768, 4, 5), (96, 32, 40)]


def test_stages_go_through_the_neck():
    pvt = ViTFeatBackbone('pvt_v2_b0', out_indices=(0, 1, 2, 3)).eval()
    neck = SimpleFeaturePyramid(pvt.out_channels, 16, in_strides=pvt.strides)
    assert [m.shape[-1] for m in neck(pvt(images(64, 128)))] == [32, 16, 8, 4]


def test_model_for_one_size_refuses_others_by_name():
    beit = fixed('beit_base_patch16_224', (250, 333))
    message = r'fixed size, built for images of 256x336, got 224x224: build it with img_size=\(224,'
    with pytest.raises(ValueError, match=message):
        beit(images(224, 224))
    assert beit(images(250, 333))[0].shape == (1, 768, 16, 21)


def test_model_for_squares_equals_timm_on_the_padded_square():
    ours = ViTFeatBackbone('convit_tiny', img_size=(150, 200), norm='none').eval()
    reference = redraw(timm.create_model('convit_tiny', img_size=208)).eval()
    copy_weights(ours.vit, reference.state_dict())
    x = images(150, 200)
    square = torch.nn.functional.pad(x, (0, 8, 0, 58))
    with torch.no_grad():
        expected = reference.forward_intermediates(square, intermediates_only=True)[-1]
        assert error(ours(x)[0], expected[:, :, :10]) <= 1


def test_model_for_squares_is_not_rebuilt_for_another_size():
    convit = fixed('convit_tiny', (150, 200))
    maps = convit(images(150, 200))[0]
    convit.set_input_size((150, 200))
    convit.vit.set_input_size = lambda **size: None  # should timm learn to
    message = r'ConVit is built for 160x208 for good: build another one with img_size=\(100, 120\)'
    with pytest.raises(ValueError, match=message):
        convit.set_input_size((100, 120))
    assert torch.equal(convit(images(150, 200))[0], maps)


def test_model_that_refuses_another_size_keeps_its_own(monkeypatch):
    beit = fixed('beit_base_patch16_224')
    monkeypatch.delattr(type(beit.vit), 'set_input_size')
    with pytest.raises(ValueError, match='Beit is built for 224x224 for good'):
        beit.set_input_size((100, 120))
    monkeypatch.setattr(type(beit.vit), 'set_input_size', 0, raising=False)  # not to be called
    with pytest.raises(TypeError):
        beit.set_input_size((100, 120))
    assert beit.source.fixed_size(beit.vit) == (224, 224)


@torch.no_grad()
def test_model_for_one_size_is_rebuilt_as_if_built_for_the_other():
    beit, other = fixed('beit_base_patch16_224'), fixed('beit_base_patch16_224', (100, 120))
    beit.set_input_size((100, 120))
    beit.load_state_dict(other.state_dict())
    x = images(100, 120)
    assert torch.equal(beit(x)[0], other(x)[0])


@pytest.mark.parametrize(
    'name',
    few(
        ['beit_base_patch16_224', 'cait_xxs24_224', 'xcit_nano_12_p16_224'], 'beit_base_patch16_224'
    ),
)
def test_cls_token_that_blocks_need_is_not_dropped(name):
    with pytest.raises(ValueError, match="cannot run without its CLS token; out_type='featmap'"):
        ViTFeatBackbone(name, with_cls_token=False)


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('vit_base_patch16_siglip_224', 0),
        ('samvit_base_patch16', 0),
        ('deit_tiny_distilled_patch16_224', 2),
        ('vit_small_patch16_dinov3', 5),
    ],
)
def test_prefix_tokens_are_counted(name, count):
    backbone = fixed(name, out_type='raw')
    assert backbone.num_prefix_tokens == count
    assert backbone(images(32, 48))[0].shape[1] == count + 2 * 3


@torch.no_grad()
def test_distillation_token_stays_without_the_cls_token():
    name = 'deit_tiny_distilled_patch16_224'
    reference = redraw(timm.create_model(name, depth=2, dynamic_img_size=True)).eval()
    ours = fixed(name, with_cls_token=False, out_type='raw')
    weights = reference.state_dict()
    weights['pos_embed'] = weights['pos_embed'][:, 1:]
    copy_weights(ours.vit, weights)
    x = images(224, 224)
    tokens = reference.patch_embed(x).flatten(1, 2)
    tokens = torch.cat([reference.dist_token, tokens], dim=1) + weights['pos_embed']
    expected = reference.norm(reference.blocks(tokens))
    assert error(ours(x)[0], expected) <= 1


@torch.no_grad()
def test_checkpoint_of_another_size_is_resampled_as_timm_does(tmp_path):
    stock = redraw(timm.create_model('beit_base_patch16_224', num_classes=0, depth=2)).eval()
    torch.save(stock.state_dict(), tmp_path / 'square.pth')
    ours = fixed('beit_base_patch16_224', (256, 320), checkpoint=tmp_path / 'square.pth')
    stock.set_input_size((256, 320))
    (expected,) = stock.forward_intermediates(
        images(256, 320), indices=[1], intermediates_only=True
    )
    assert error(ours(images(256, 320))[0], expected) <= 1


def test_stages_are_frozen_by_what_needs_them():
    twins = ViTFeatBackbone('twins_svt_small', frozen_stages=2)
    trained = {n.removeprefix('vit.') for n, p in twins.named_parameters() if p.requires_grad}
    assert {name.split('.')[1] for name in trained if not name.startswith('norm')} == {'2', '3'}


def test_every_parameter_that_is_left_gets_a_gradient():
    swin = ViTFeatBackbone('swin_tiny_patch4_window7_224', out_indices=(0, 2))
    sum(m.sum() for m in swin(images(64, 64))).backward()
    assert not [n for n, p in swin.named_parameters() if p.requires_grad and p.grad is None]


def test_size_that_timm_refuses_is_told_in_one_line():
    with pytest.raises(
        ValueError, match="'efficientformer_l1' cannot be used: it is of fixed size 224x224"
    ):
        ViTFeatBackbone('efficientformer_l1', img_size=(256, 320))


def test_one_norm_for_stages_of_many_widths_is_refused():
    with pytest.raises(ValueError, match=r"norm='all': the final norm of swin_tiny.*last stage"):
        ViTFeatBackbone('swin_tiny_patch4_window7_224', out_indices=(0, 3), norm='all')


class TestFromModule:
    def test_outputs_are_those_of_the_model(self):
        stock = redraw(timm.create_model('vit_tiny_patch16_224', depth=2)).eval()
        ours = ViTFeatBackbone.from_module(stock, out_type='raw').eval()
        assert error(ours(images(224, 224))[0], stock.forward_features(images(224, 224))) <= 1

    def test_model_that_took_one_size_takes_any(self):
        stock = redraw(timm.create_model('vit_tiny_patch16_224', depth=2)).eval()
        dynamic = timm.create_model('vit_tiny_patch16_224', depth=2, dynamic_img_size=True).eval()
        dynamic.load_state_dict(stock.state_dict())
        ours = ViTFeatBackbone.from_module(stock, out_type='raw').eval()
        assert error(ours(images(96, 160))[0], dynamic.forward_features(images(96, 160))) <= 1

    def test_model_is_left_unchanged(self):
        stock = timm.create_model('vit_tiny_patch16_224', depth=2)
        before = {name: (id(p), p.requires_grad) for name, p in stock.named_parameters()}
        ViTFeatBackbone.from_module(stock, out_indices=0, frozen_stages=1, with_cls_token=False)
        assert before == {name: (id(p), p.requires_grad) for name, p in stock.named_parameters()}
        with pytest.raises(AssertionError, match='model'):
            stock(images(96, 160))

    def test_weights_are_shared(self):
        stock = timm.create_model('vit_tiny_patch16_224', depth=2)
        ours = ViTFeatBackbone.from_module(stock)
        stock.blocks[0].attn.qkv.weight.data.fill_(7.0)
        assert (ours.vit.blocks[0].attn.qkv.weight == 7).all()

    def test_weights_survive_init_weights(self):
        ours = ViTFeatBackbone.from_module(timm.create_model('vit_tiny_patch16_224', depth=2))
        before = ours.vit.blocks[0].attn.qkv.weight.clone()
        ours.init_weights()
        assert torch.equal(ours.vit.blocks[0].attn.qkv.weight, before)

    def test_options_that_would_rebuild_are_refused(self):
        stock = timm.create_model('vit_tiny_patch16_224', depth=2)
        with pytest.raises(TypeError, match='as it is, not with pretrained, img_size'):
            ViTFeatBackbone.from_module(stock, pretrained=True, img_size=256)

    def test_weights_are_not_loaded_into_the_model(self):
        stock = timm.create_model('vit_tiny_patch16_224', depth=2)
        with pytest.raises(TypeError, match='shared with the existing model'):
            ViTFeatBackbone.from_module(stock, checkpoint='vit.pth')

    def test_pruned_model_is_told(self):
        swin = ViTFeatBackbone('swin_tiny_patch4_window7_224', out_indices=(0, 1)).vit
        with pytest.raises(ValueError, match='it has 2 layers of 4: was it pruned'):
            ViTFeatBackbone.from_module(swin)

    def test_unknown_module_is_refused_by_name(self):
        with pytest.raises(ValueError, match=r'no source knows torch.nn.modules.linear.Linear'):
            ViTFeatBackbone.from_module(torch.nn.Linear(2, 2))

    def test_a_model_that_was_not_built_by_name_is_told_to_be(self):
        swin = timm.models.SwinTransformer(depths=(1, 1), num_heads=(3, 6))
        with pytest.raises(ValueError, match=r'^SwinTransformer of timm .* timm\.create_model$'):
            ViTFeatBackbone.from_module(swin)
