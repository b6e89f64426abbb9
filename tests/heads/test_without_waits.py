"""A Mask2Former head whose forward pass does not wait, beside mmdet's."""

import copy
from pathlib import Path

import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.layers import MSDeformAttnPixelDecoder, SinePositionalEncoding
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from redraw import redraw
from torch._subclasses import FakeTensor, FakeTensorMode

from vit_backbones.benchmark.counting import counted
from vit_backbones.heads.grid_encoding import GridEncoding
from vit_backbones.heads.located_mask2former import LocatedMask2FormerHead
from vit_backbones.heads.masked_attention import MaskedAttention
from vit_backbones.heads.without_waits import without_waits
from vit_backbones.hosts import deformable_layers
from vit_backbones.hosts.deformable_layers import PreciseDeformableAttention

BASE_MODELS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'models'
SAMPLES = [DetDataSample(), DetDataSample()]
SIZES = {
    'wide': [(16, 24), (8, 12), (4, 6), (2, 3)],
    'odd': [(15, 9), (8, 5), (4, 3), (2, 2)],
    'tall': [(40, 4), (20, 2), (10, 1), (5, 1)],
}


def head_config():
    init_default_scope('mmdet')
    config = Config.fromfile(BASE_MODELS / 'mask2former_light.py').model.panoptic_head
    config.pop('type')
    config.update(num_things_classes=3, num_queries=7)
    config.loss_cls.class_weight = [1.0] * 3 + [0.1]
    return config


def pair(head_type=Mask2FormerHead):
    """mmdet's head and the same without waits."""
    theirs = redraw(head_type(**head_config()))
    ours = copy.deepcopy(theirs)
    without_waits(ours)
    return theirs, ours


def maps(size='wide', channels=128):
    torch.manual_seed(0)
    return [torch.randn(2, channels, *grid) for grid in SIZES[size]]


def run(head, x):
    """Classes, masks and gradients, by name."""
    x = [each.clone().requires_grad_() for each in x]
    classes, masks = head(x, SAMPLES)
    torch.manual_seed(1)
    sum((out * torch.randn_like(out)).sum() for out in (*classes, *masks)).backward()
    named = {f'classes {i}': each for i, each in enumerate(classes)}
    named |= {f'masks {i}': each for i, each in enumerate(masks)}
    named |= {f'map {i}': each.grad for i, each in enumerate(x)}
    return named | {name: value.grad for name, value in head.named_parameters()}


@pytest.mark.parametrize('head_type', [Mask2FormerHead, LocatedMask2FormerHead])
@pytest.mark.parametrize('size', SIZES)
def test_outputs_and_gradients_are_mmdets(size, head_type):
    theirs, ours = pair(head_type)
    expected, found = run(theirs, maps(size)), run(ours, maps(size))
    assert list(found) == list(expected)
    wrong = {}
    for name, value in expected.items():
        error = (found[name] - value).norm() / value.norm().clamp(min=1e-3)
        if not error <= 1e-3:
            wrong[name] = error.item()
    assert wrong == {}


def test_nothing_waits():
    theirs, ours = pair()
    x = maps()
    ours(x, SAMPLES)  # positional encodings are made once
    before, after = (counted(lambda head=head: head(x, SAMPLES)) for head in (theirs, ours))
    assert before.synchronisations > 20
    assert after.waits == {}
    assert after.operators < 0.7 * before.operators


@pytest.mark.parametrize('size', ['wide', 'odd'])
def test_outputs_in_mmseg_are_mmsegs(size):
    config = Config.fromfile(BASE_MODELS.parents[1] / 'mask2former/mask2former_vit-ti_camvid.py')
    config = config.model.decode_head
    init_default_scope('mmseg')
    theirs = redraw(MODELS.build(config)).eval()
    ours = copy.deepcopy(theirs)
    without_waits(ours)
    x = maps(size, channels=config.in_channels[0])
    with torch.no_grad():
        for found, expected in zip(ours(x, SAMPLES), theirs(x, SAMPLES), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert counted(lambda: ours(x, SAMPLES)).synchronisations == 0


def test_under_autocast_all_places_are_fp32(monkeypatch):
    seen, attend = [], deformable_layers.deformable_attention

    def watched(value, shapes, places, weights, *, grids):
        seen.append((value.dtype, places.dtype, weights.dtype))
        return attend(value, shapes, places, weights, grids=grids)

    monkeypatch.setattr(deformable_layers, 'deformable_attention', watched)
    with torch.autocast('cpu', torch.bfloat16):
        pair()[1](maps(), SAMPLES)
    assert seen == [(torch.bfloat16, torch.float32, torch.float32)] * 2


def test_a_checkpoint_of_either_fits_the_other():
    theirs, ours = pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    ours.init_weights()


# The attention


def attentions(**options):
    options = dict(batch_first=True) | options
    theirs = redraw(MultiheadAttention(24, 4, **options)).eval()
    ours = copy.deepcopy(theirs)
    ours.__class__ = MaskedAttention
    return theirs, ours


def given(batch_first=True):
    torch.manual_seed(0)
    made = dict(
        query=torch.randn(2, 5, 24),
        key=torch.randn(2, 7, 24),
        value=torch.randn(2, 7, 24),
        query_pos=torch.randn(2, 5, 24),
        key_pos=torch.randn(2, 7, 24),
    )
    return made if batch_first else {k: v.transpose(0, 1) for k, v in made.items()}


def blocked(*shape):
    mask = torch.rand(shape) > 0.5
    mask[..., 0] = False
    return mask


@pytest.mark.parametrize(
    'masks',
    [
        {},
        dict(attn_mask=blocked(5, 7)),
        dict(attn_mask=blocked(8, 5, 7)),
        dict(attn_mask=torch.randn(8, 5, 7)),
        dict(key_padding_mask=blocked(2, 7)),
        dict(attn_mask=blocked(8, 5, 7), key_padding_mask=blocked(2, 7)),
    ],
)
@pytest.mark.parametrize('batch_first', [True, False])
def test_attention_equals_mmcvs(batch_first, masks):
    theirs, ours = attentions(batch_first=batch_first)
    tensors = given(batch_first) | masks
    torch.testing.assert_close(ours(**tensors), theirs(**tensors))


@pytest.mark.parametrize('left_out', [('key', 'value', 'key_pos'), ('key_pos', 'query_pos')])
def test_what_is_left_out_is_as_in_mmcv(left_out):
    theirs, ours = attentions(bias=False)
    tensors = {name: value for name, value in given().items() if name not in left_out}
    torch.testing.assert_close(ours(**tensors), theirs(**tensors))


def test_a_mask_for_all_heads_is_as_one_repeated():
    _, ours = attentions()
    mask = blocked(2, 5, 7)
    repeated = ours(**given(), attn_mask=mask.repeat_interleave(4, 0))
    assert torch.equal(ours(**given(), attn_mask=mask), repeated)


def test_dropout_is_that_of_the_weights_in_training():
    theirs, ours = attentions(attn_drop=0.5)
    outs = [[layer.train()(**given()) for _ in range(150)] for layer in (ours, theirs)]
    ours, theirs = (torch.stack(each) for each in outs)
    torch.testing.assert_close(ours.std(0).mean(), theirs.std(0).mean(), rtol=0.1, atol=0.0)


def test_other_attention_stays_as_it_is_and_with_it_a_mask_for_each_head():
    config = head_config()
    config.transformer_decoder.layer_cfg.cross_attn_cfg.add_zero_attn = True
    head = Mask2FormerHead(**config)
    without_waits(head)
    layer = head.transformer_decoder.layers[0]
    assert (type(layer.cross_attn), type(layer.self_attn)) == (MultiheadAttention, MaskedAttention)
    assert head.num_heads == 8
    assert len(head(maps(), SAMPLES)[0]) == 4


def test_a_pixel_decoder_with_other_layers_stays_mmdets():
    class Other(MultiScaleDeformableAttention):
        """Has a forward pass of its own."""

    head = Mask2FormerHead(**head_config())
    layers = head.pixel_decoder.encoder.layers
    layers[0].self_attn.__class__ = Other
    without_waits(head)
    assert type(head.pixel_decoder) is MSDeformAttnPixelDecoder
    assert [type(layer.self_attn) for layer in layers] == [Other, PreciseDeformableAttention]
    assert len(head(maps(), SAMPLES)[0]) == 4


def test_a_forward_pass_of_others_keeps_encodings_that_see_padding():
    class Padding(Mask2FormerHead):
        def forward(self, x, batch_data_samples):
            return self.decoder_positional_encoding(batch_data_samples)

    class PaddingDecoder(MSDeformAttnPixelDecoder):
        def forward(self, feats):
            return self.postional_encoding(feats)

    head = Padding(**head_config())
    head.pixel_decoder.__class__ = PaddingDecoder
    without_waits(head)
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[:, :2, :3] = False
    expected = SinePositionalEncoding(64, normalize=True)(mask)
    assert torch.equal(head(None, mask), expected)
    assert torch.equal(head.pixel_decoder(mask), expected)


# The positional encoding


def encodings(**options):
    theirs = SinePositionalEncoding(6, **options)
    ours = copy.deepcopy(theirs)
    ours.__class__ = GridEncoding
    return theirs, ours


@pytest.mark.parametrize('options', [{}, dict(normalize=True, offset=-0.5)])
def test_encoding_is_mmdets_of_each_image(options):
    theirs, ours = encodings(**options)
    for grid in ((3, 5), (1, 1), (3, 5)):
        nothing = torch.zeros(2, *grid, dtype=torch.bool)
        assert torch.equal(ours(nothing).expand(2, -1, -1, -1), theirs(nothing))
        assert torch.equal(ours(None, torch.zeros(2, 4, *grid)), ours(nothing))


def test_encodings_of_the_last_four_sizes_are_kept_outside_the_checkpoint():
    _, ours = encodings()
    masks = [torch.zeros(1, 2, columns, dtype=torch.bool) for columns in range(1, 6)]
    with torch.inference_mode():
        first = [ours(mask) for mask in masks]
    assert not any(each.is_inference() for each in first)
    assert [ours(mask) is one for mask, one in zip(masks[1:], first[1:], strict=True)] == [True] * 4
    assert ours(masks[0]) is not first[0]
    assert ours.state_dict() == {}


def test_fake_encodings_are_not_kept():
    theirs, ours = encodings()
    with FakeTensorMode():
        fake = ours(torch.zeros(1, 2, 3, dtype=torch.bool))
    assert isinstance(fake, FakeTensor)
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    assert torch.equal(ours(mask), theirs(mask))


def test_a_compiled_encoding_keeps_nothing():
    _, ours = encodings()
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    made = torch.compile(ours, fullgraph=True, backend='aot_eager')(mask)
    assert ours.__dict__.get('_kept') is None
    assert torch.equal(made, ours(mask))
