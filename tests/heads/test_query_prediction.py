"""The upscaling of masks, which a CPU computes in another form."""

import torch
from torch.nn import functional as F

from vit_backbones.heads.query_prediction import Upscale
from vit_backbones.models.random_weights import redraw


def as_written(block, maps):
    maps = block.conv2(F.gelu(block.conv1(maps)))
    return block.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_products_of_matrices_are_the_transposed_convolution_and_its_gradients():
    block = redraw(Upscale(6)).double()
    maps = torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    given = [maps, *block.parameters()]
    found = []
    for run in (block, lambda x: as_written(block, x)):
        out = run(maps)
        assert out.shape == (2, 6, 6, 10)
        weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()
        found.append([out, *torch.autograd.grad((out * weights).sum(), given)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
