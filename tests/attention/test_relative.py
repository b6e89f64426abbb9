"""Relative positions as channels of queries and keys, against a bias for each pair."""

import pytest
import torch
import torch.nn.functional as F

from vit_backbones.attention import relative
from vit_backbones.attention.relative import attend_relatively, relative_biases
from vit_backbones.attention.windows import Layout

CPU = torch.device('cpu')
DIM = 16
SCALE = DIM**-0.5


def drawn(layout, dtype=torch.float64):
    """Queries, keys and values of two images, and two tables."""
    generator = torch.Generator().manual_seed(0)
    num = layout.num_prefix + layout.grid[0] * layout.grid[1]
    shapes = [(2, 3, num, DIM)] * 3 + [(2 * side - 1, DIM) for side in layout.sides]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def by_bias(query, key, value, biases, sides, *, scale):
    """With an N x N tensor of the same biases."""
    rows, columns = biases.split(sides, dim=-1)
    bias = (rows[..., None] + columns[..., None, :]).flatten(-2)
    bias = F.pad(bias, (key.shape[2] - bias.shape[-1], 0))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


def results(layout, attend, dtype=torch.float64):
    """Output and gradients as float64."""
    tensors = [each.requires_grad_() for each in drawn(layout, dtype)]
    query, key, value, *tables = tensors
    biases = relative_biases(query, tables, layout, layout.hidden, SCALE)
    out = attend(query, key, value, biases, layout.sides, scale=SCALE)
    weights = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    own = None if layout.cells is None else layout.keys.squeeze(2)[..., None]
    (out * weights if own is None else out * weights * own).sum().backward()
    return [out.detach().double()] + [each.grad.double() for each in tensors]


def differences(found, expected):
    """The largest, as a share of the largest value of each tensor."""
    pairs = zip(found, expected, strict=True)
    return torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs])


CASES = [
    Layout((7, 7), 0, CPU),
    Layout((5, 8), 0, CPU),
    Layout((5, 8), 3, CPU),
    Layout((5, 8), 1, CPU, masked=True, cells_of_images=((5, 8), (3, 4))),
]
IDS = ['square', 'rectangle', 'prefix', 'padded']


@pytest.mark.parametrize('layout', CASES, ids=IDS)
def test_channels_equal_the_bias(layout):
    expected = results(layout, by_bias)
    assert differences(results(layout, attend_relatively), expected).max() <= 1e-12
    single = results(layout, attend_relatively, torch.float32)
    assert differences(single, results(layout, by_bias, torch.float32)).max() <= 2e-6


def test_values_of_another_width():
    """Differential attention has values twice as wide as its keys."""
    layout = CASES[0]
    query, key, value, *tables = drawn(layout)
    value = torch.cat([value, -value, value], dim=-1)
    biases = relative_biases(query, tables, layout, layout.hidden, SCALE)
    given = query, key, value, biases, layout.sides
    torch.testing.assert_close(attend_relatively(*given, scale=SCALE), by_bias(*given, scale=SCALE))


@pytest.mark.parametrize('layout', CASES[:3], ids=IDS[:3])
def test_in_bf16_channels_are_nearer_to_the_truth_than_the_bias(layout):
    expected = results(layout, by_bias)
    ours = differences(results(layout, attend_relatively, torch.bfloat16), expected)
    bias = differences(results(layout, by_bias, torch.bfloat16), expected)
    assert ours.mean() < bias.mean()


@pytest.mark.parametrize('layout', CASES, ids=IDS)
def test_blocks_of_queries_equal_the_bias(layout, monkeypatch):
    monkeypatch.setattr(relative, 'most_channels', lambda query: 0)
    monkeypatch.setattr(relative, '_QUERIES', 9)
    expected = results(layout, by_bias)
    assert differences(results(layout, attend_relatively), expected).max() <= 1e-12


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_hidden_keys_weigh_nothing(dtype):
    layout = CASES[3]
    query, key, value, *tables = drawn(layout, dtype)
    biases = relative_biases(query, tables, layout, layout.hidden, SCALE)
    out = attend_relatively(query, key, value, biases, layout.sides, scale=SCALE)
    hidden = ~layout.keys.expand(2, 1, 1, -1)[:, :, 0, :, None]
    value = value.masked_fill(hidden, 1000.0)
    again = attend_relatively(
        query, key.masked_fill(hidden, 3.0), value, biases, layout.sides, scale=SCALE
    )
    assert torch.equal(out, again)


def test_no_tensor_is_n_by_n():
    """Neither with channels nor, in training too, by blocks of queries."""
    layout = Layout((32, 32), 0, CPU)
    limit = layout.grid[0] ** 4

    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        results(layout, attend_relatively, torch.float32)
    assert max(sizes) < limit
