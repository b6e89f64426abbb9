"""Attention of extra tokens by a mask: equal to the dense form, without its N x N tensor."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from timm.models.vision_transformer import Block
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.vision_transformer import EncoderBlock

from vit_backbones.attention.joint import QueryMask, rotary_with_extra, run_jointly
from vit_backbones.models.random_weights import redraw

BATCH, QUERIES, CELLS, WIDTH, HEADS = 2, 7, 5 * 8, 48, 3
CLOSE = dict(rtol=1e-6, atol=1e-6)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def allowed(cells=CELLS):
    """Half of the patches; none of them for the first query, all for the second."""
    mask = drawn(BATCH, QUERIES, cells, seed=1) > 0
    mask[:, 0], mask[:, 1] = False, True
    return mask


def dense(mask, num_prefix):
    """(B, 1, N, N), whether a token attends to another, written out for each query and patch."""
    batch, queries, cells = mask.shape
    whole = torch.ones(batch, 1, queries + num_prefix + cells, queries + num_prefix + cells).bool()
    for query in range(queries):
        for cell in range(cells):
            whole[:, 0, query, queries + num_prefix + cell] = mask[:, query, cell]
    return whole


def values_and_gradients(attend, *inputs):
    inputs = [each.clone().requires_grad_() for each in inputs]
    out = attend(*inputs)
    (out * drawn(*out.shape, seed=9)).sum().backward()
    return [out, *(each.grad for each in inputs)]


def tokens(num_prefix, cells=CELLS, seed=2):
    return drawn(BATCH, QUERIES + num_prefix + cells, WIDTH, seed=seed)


def timm_block(**options):
    return redraw(Block(WIDTH, HEADS, init_values=1.0, qk_norm=True, **options)).eval()


def torchvision_block():
    return redraw(EncoderBlock(HEADS, WIDTH, 2 * WIDTH, 0.0, 0.0)).eval()


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
def test_split_attention_equals_the_dense_form(num_prefix):
    length = QUERIES + num_prefix + CELLS
    parts = [drawn(BATCH, HEADS, length, 16, seed=seed) for seed in range(3)]
    whole = dense(allowed(), num_prefix)

    def written_out(query, key, value):
        scores = query @ key.transpose(-1, -2) / 4
        return scores.masked_fill(~whole, -torch.inf).softmax(-1) @ value

    mask = QueryMask(allowed(), num_prefix)
    found = values_and_gradients(mask.attend, *parts)
    torch.testing.assert_close(found, values_and_gradients(written_out, *parts), **CLOSE)


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
def test_a_block_of_timm_equals_its_own_dense_mask(num_prefix):
    block, x, mask = timm_block(), tokens(num_prefix), QueryMask(allowed(), num_prefix)
    whole = dense(allowed(), num_prefix)
    found = values_and_gradients(lambda x: run_jointly(block, x, mask), x)
    expected = values_and_gradients(lambda x: block(x, attn_mask=whole), x)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found[0] - block(x)).abs().max() > 0.1


def torchvision_by_hand(block, x, whole):
    normed = block.ln_1(x)
    hidden = (~whole).expand(-1, HEADS, -1, -1).flatten(0, 1)  # True is hidden there
    x = x + block.self_attention(normed, normed, normed, attn_mask=hidden, need_weights=False)[0]
    return x + block.mlp(block.ln_2(x))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('num_prefix', [0, 1, 5])
def test_a_block_of_torchvision_equals_its_own_dense_mask(num_prefix, training):
    block, x = torchvision_block().train(training), tokens(num_prefix)
    mask, whole = QueryMask(allowed(), num_prefix), dense(allowed(), num_prefix)
    found = values_and_gradients(lambda x: run_jointly(block, x, mask), x)
    expected = values_and_gradients(lambda x: torchvision_by_hand(block, x, whole), x)
    torch.testing.assert_close(found, expected, **CLOSE)


@torch.no_grad()
def test_pytorchs_fast_path_follows_the_mask():
    block, x = torchvision_block(), tokens(1)
    found = run_jointly(block, x, QueryMask(allowed(), 1))
    expected = torchvision_by_hand(block, x, dense(allowed(), 1))
    torch.testing.assert_close(found, expected, **CLOSE)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that an operator gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return out


@pytest.mark.parametrize('make', [timm_block, torchvision_block])
def test_no_tensor_grows_with_the_square_of_the_tokens(make):
    cells, block = 40 * 40, make()
    mask = QueryMask(allowed(cells), 1)
    with LargestTensor() as largest:
        values_and_gradients(lambda x: run_jointly(block, x, mask), tokens(1, cells))
    length = QUERIES + 1 + cells
    assert largest.elements <= BATCH * length * 4 * WIDTH  # an MLP's
    assert largest.elements < length**2


def test_without_a_mask_a_block_runs_by_itself():
    calls = []

    def block(x, **options):
        calls.append(options)
        return x

    x = tokens(1)
    assert run_jointly(block, x, None, rope='rope') is x
    assert calls == [dict(rope='rope')]


@torch.no_grad()
def test_nothing_stays_behind():
    block, attend = timm_block(), F.scaled_dot_product_attention
    x, before = tokens(1), block(tokens(1))
    run_jointly(block, x, QueryMask(allowed(), 1))
    run_jointly(block, tokens(1, 99), QueryMask(allowed(99), 1))
    assert torch.equal(block(x), before)
    assert F.scaled_dot_product_attention is attend
    state = copy.deepcopy(block).state_dict()
    assert state.keys() == timm_block().state_dict().keys()


def refused(block):
    with pytest.raises(ValueError, match='mask of queries') as caught:
        run_jointly(block, tokens(1), QueryMask(allowed(), 1))
    return str(caught.value)


def test_attention_by_itself_is_refused():
    block = timm_block()
    block.attn.fused_attn = False
    assert refused(block) == (
        'no mask of queries reaches the attention of Block: it computes its attention by itself; '
        'build it with fused attention (scaled_dot_product_attention)'
    )


class Attending(nn.Module):
    """Attention with arguments of its own."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        x = x[:, None]
        return F.scaled_dot_product_attention(x, x, x, **self.options)[:, 0]


@pytest.mark.parametrize('own', [dict(attn_mask=torch.ones(1).bool()), dict(is_causal=True)])
def test_a_mask_of_the_blocks_own_is_refused(own):
    message = 'no mask of queries reaches the attention of Attending: it has a mask of its own'
    assert refused(Attending(**own)) == message


class Crossing(nn.Module):
    """PyTorch's attention, but not of tokens to the same."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)
        self.options = {}

    def forward(self, x):
        return self.attention(x, x, x, **self.options)[0]


@pytest.mark.parametrize('own', [dict(add_bias_kv=True), dict(add_zero_attn=True)])
def test_pytorchs_attention_to_other_tokens_is_refused(own):
    assert refused(Crossing(**own)) == (
        'no mask of queries reaches the attention of Crossing: it attends to more than its tokens'
    )


@pytest.mark.parametrize('name', ['attn_mask', 'key_padding_mask'])
def test_a_mask_of_pytorchs_attention_is_refused(name):
    block, length = Crossing(), QUERIES + 1 + CELLS
    size = (length, length) if name == 'attn_mask' else (BATCH, length)
    block.options = {name: torch.zeros(size).bool()}
    message = 'no mask of queries reaches the attention of Crossing: it has a mask of its own'
    assert refused(block) == message


@pytest.mark.parametrize('leading', [(), (2,), (1, 2)])
def test_extra_tokens_are_not_rotated(leading):
    num_extra, num_prefix, cells, width = 5, 3, 12, 8
    rope = drawn(*leading, cells, 2 * width, seed=3)
    x = drawn(1, 2, num_extra + num_prefix + cells, width, seed=4)
    longer = rotary_with_extra(rope, num_extra)
    # as timm, which leaves out as many tokens as its prefix has
    found = torch.cat(
        [x[:, :, :num_prefix], apply_rot_embed_cat(x[:, :, num_prefix:], longer)], dim=2
    )
    kept = num_extra + num_prefix
    expected = torch.cat([x[:, :, :kept], apply_rot_embed_cat(x[:, :, kept:], rope)], dim=2)
    assert torch.equal(found, expected)


def test_without_rotary_positions_there_are_none():
    assert rotary_with_extra(None, 5) is None
