"""mmcv's layer of deformable attention and ours: numbers, types under autocast, waits."""

import copy

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops import multi_scale_deform_attn as of_mmcv
from redraw import redraw
from torch import nn

from vit_backbones.benchmark.counting import counted
from vit_backbones.hosts import deformable_layers
from vit_backbones.hosts.deformable_layers import PreciseDeformableAttention, precise

GRIDS = [(16, 24), (5, 7)]
CELLS = 16 * 24 + 5 * 7


def layers(**options):
    """mmcv's and ours, with the same weights."""
    options = dict(batch_first=True, dropout=0.0) | options
    theirs = redraw(MultiScaleDeformableAttention(32, 4, 2, 3, **options))
    ours = copy.deepcopy(theirs)
    precise(ours)
    return theirs, ours


def inputs(coordinates=2):
    torch.manual_seed(0)
    return dict(
        query=torch.randn(2, 9, 32),
        value=torch.randn(2, CELLS, 32),
        query_pos=torch.randn(2, 9, 32),
        key_padding_mask=torch.rand(2, CELLS) > 0.9,
        reference_points=torch.rand(2, 9, 2, coordinates),
        spatial_shapes=torch.tensor(GRIDS),
    )


def run(layer, **given):
    """Output and gradients of the query, the value and the parameters."""
    layer.zero_grad()
    leaves = [given[name].requires_grad_() for name in ('query', 'value')]
    for leaf in leaves:
        leaf.grad = None
    out = layer(**given)
    out.float().square().sum().backward()
    return [out.detach(), *(x.grad for x in (*leaves, *layer.parameters()))]


@pytest.mark.parametrize('coordinates', [2, 4])
@pytest.mark.parametrize('options', [{}, dict(value_proj_ratio=0.5)])
def test_equals_mmcvs_layer(options, coordinates):
    theirs, ours = layers(**options)
    given = inputs(coordinates)
    for one, other in zip(run(ours, **given), run(theirs, **given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_equals_mmcvs_layer_with_the_batch_second():
    theirs, ours = layers(batch_first=False)
    given = inputs() | dict(query_pos=None)
    for name in ('query', 'value'):
        given[name] = given[name].transpose(0, 1).contiguous()
    for one, other in zip(run(ours, **given), run(theirs, **given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_one_reference_serves_all_images_and_levels():
    _, ours = layers()
    given = inputs()
    given['reference_points'] = given['reference_points'][:1, :, :1]
    full = given | dict(reference_points=given['reference_points'].expand(2, 9, 2, 2))
    assert torch.equal(ours(**given), ours(**full))


def test_points_of_three_numbers_are_refused():
    _, ours = layers()
    with pytest.raises(ValueError, match='must have 2 or 4 numbers last, got 3: give points'):
        ours(**inputs(3))


@pytest.fixture
def seen(monkeypatch):
    """What the layer hands to the attention: values, shapes, places, weights."""
    calls, attend = [], deformable_layers.deformable_attention

    def watched(*tensors, grids):
        calls.append(tensors)
        return attend(*tensors, grids=grids)

    monkeypatch.setattr(deformable_layers, 'deformable_attention', watched)
    return calls


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_places_and_weights_are_fp32_under_autocast(seen, dtype):
    _, ours = layers()
    given = inputs()
    with torch.autocast('cpu', torch.bfloat16):
        ours(**given | dict(query=given['query'].to(dtype), query_pos=None))
    [(value, _, places, weights)] = seen
    assert (value.dtype, places.dtype, weights.dtype) == (torch.bfloat16, *[torch.float32] * 2)
    full = given | dict(query=given['query'].to(dtype).float(), query_pos=None)
    ours(**full)
    assert torch.equal(places, seen[1][2])
    assert torch.equal(weights, seen[1][3])


def test_a_layer_in_bf16_keeps_the_references_in_fp32(seen):
    _, ours = layers()
    given = inputs()
    halves = ('query', 'value', 'query_pos')
    given |= {name: given[name].bfloat16() for name in halves}
    assert ours.bfloat16()(**given).dtype == torch.bfloat16
    [(_, _, places, weights)] = seen
    assert (places.dtype, weights.dtype) == (torch.float32, torch.float32)
    offsets = ours.sampling_offsets(given['query'] + given['query_pos'])
    offsets = offsets.float().view(2, 9, 4, 2, 3, 2)
    sides = torch.tensor(GRIDS).flip(-1)[:, None]
    torch.testing.assert_close(
        places, given['reference_points'][:, :, None, :, None] + offsets / sides
    )


def test_under_autocast_it_is_nearer_to_fp64_than_mmcvs(monkeypatch):
    """As on CUDA, where mmcv casts places and weights to the type of the values."""
    attend = of_mmcv.multi_scale_deformable_attn_pytorch

    def as_on_cuda(value, shapes, places, weights):
        return attend(value, shapes, places.type_as(value), weights.type_as(value))

    theirs, ours = layers()
    given = inputs()
    exact = copy.deepcopy(theirs).double()(
        **{k: v.double() if v.is_floating_point() else v for k, v in given.items()}
    )
    monkeypatch.setattr(of_mmcv, 'multi_scale_deformable_attn_pytorch', as_on_cuda)
    errors = []
    for layer in (ours, theirs):
        with torch.autocast('cpu', torch.bfloat16):
            errors.append((layer(**given).double() - exact).abs().mean().item())
    assert errors[0] < 0.5 * errors[1]


def test_all_layers_within_a_module_are_turned_and_keep_their_parameters():
    class Other(MultiScaleDeformableAttention):
        """Has a forward pass of its own."""

    model = nn.ModuleList([nn.Sequential(MultiScaleDeformableAttention(32, 4)), Other(32, 4)])
    before = {name: id(value) for name, value in model.named_parameters()}
    precise(model)
    assert [type(model[0][0]), type(model[1])] == [PreciseDeformableAttention, Other]
    assert {name: id(value) for name, value in model.named_parameters()} == before


def test_given_grids_nothing_waits():
    _, ours = layers()
    given = inputs()
    assert counted(lambda: ours(**given, grids=GRIDS)).synchronisations == 0
    assert counted(lambda: ours(**given)).waits == {'tolist': 1}


def test_it_compiles_into_one_graph():
    _, ours = layers()
    given = inputs() | dict(grids=GRIDS)
    compiled = torch.compile(ours, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(**given), ours(**given))
