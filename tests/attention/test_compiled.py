"""The backbone through `torch.compile`, in one graph."""

import pytest
import torch
from redraw import backbone, images
from torch._dynamo.utils import counters

SLOW = pytest.mark.slow
WINDOWS = dict(window_size=3, window_block_indexes=(0,))
KINDS = {
    'plain': {},
    'windows': WINDOWS,
    'positions': dict(WINDOWS, use_rel_pos=True),
    'mask': dict(WINDOWS, use_rel_pos=True, mask_padding=True),
    'recomputed': dict(WINDOWS, with_cp=True),
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'kind', [each if each == 'mask' else pytest.param(each, marks=SLOW) for each in KINDS]
)
def test_compiled_equals_eager(kind):
    vit = backbone(depth=2, width=24, norm='none', img_size=80, **KINDS[kind]).train()
    x = images(80, 112, batch=2)
    if vit.masks_padding:
        vit.set_image_sizes([(80, 112), (50, 90)])
    found = []
    for run in (vit, torch.compile(vit, fullgraph=True, backend='aot_eager')):
        vit.zero_grad()
        out = run(x)[0]
        out.square().mean().backward()
        found.append([out.detach()] + [p.grad.clone() for p in vit.parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(
    ('kind', 'most'),
    [
        ('plain', 2),
        pytest.param('windows', 6, marks=SLOW),
        pytest.param('positions', 6, marks=SLOW),
    ],
)
def test_twenty_sizes_are_compiled_few_times(kind, most):
    vit = backbone(depth=1, width=24, norm='none', img_size=80, **KINDS[kind])
    compiled = torch.compile(vit, fullgraph=True, backend='eager')
    for number in range(20):
        x = images(16 * (4 + number % 7), 16 * (11 - number % 5))
        torch.testing.assert_close(compiled(x)[0], vit(x)[0], atol=1e-4, rtol=1e-4)
    assert counters['stats']['unique_graphs'] <= most
