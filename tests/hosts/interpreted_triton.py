"""Errors of the Triton kernels, which this process runs on the CPU: a JSON object on stdout."""

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported

import torch

# The package without its start, which takes longer than all the rest.
package = sys.modules['vit_backbones'] = ModuleType('vit_backbones')
package.__path__ = [str(Path(__file__).parents[2] / 'vit_backbones')]

ours = importlib.import_module('vit_backbones.hosts.deformable_attention')

THREE = [(5, 7), (3, 2), (1, 4)]


def drawn(grids, *, batch=2, queries=5, heads=3, channels=5, points=2, spread=1.8):
    """Values, places around the maps' middle, and weights."""
    value = torch.randn(batch, sum(h * w for h, w in grids), heads, channels)
    places = 0.5 + spread * (torch.rand(batch, queries, heads, len(grids), points, 2) - 0.5)
    weights = torch.rand(batch, queries, heads, len(grids), points)
    return grids, value, places, weights


def centred(grids, **options):
    """The same with places at cell centres, also just outside: the interpolation's kinks."""
    _, value, places, weights = drawn(grids, **options)
    sides = torch.tensor(grids).flip(-1)[:, None]  # (levels, 1, 2) as x, y
    return grids, value, ((places * sides).round() + 0.5) / sides, weights


def error(found, expected):
    """Of the largest magnitude, or 1; NaN where there is one."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f'{found.dtype} {tuple(found.shape)}'
    if not found.numel():
        return 0.0
    difference = (found.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max().clamp(min=1.0)).item()


def run(attend, value, places, weights, probe):
    leaves = [each.detach().clone().requires_grad_() for each in (value, places, weights)]
    out = attend(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, probe.to(out.dtype))


def errors(
    grids, value, places, weights, *, dtype=torch.float32, shapes=torch.int64, compiled=False
):
    """Of output and gradients of values, places and weights."""
    value, shapes = value.to(dtype), torch.tensor(grids, dtype=shapes)
    probe = torch.linspace(-1, 1, places.shape[1])[:, None].to(dtype)

    def expected(value, places, weights):
        return ours._in_pytorch(value, grids, places, weights)

    def found(value, places, weights):
        return ours.deformable_attention(value, shapes, places, weights)

    if compiled:
        found = torch.compile(found, fullgraph=True, backend='aot_eager')
    probe = probe.expand_as(expected(value, places, weights))
    pairs = zip(
        run(found, value, places, weights, probe),
        run(expected, value, places, weights, probe),
        strict=True,
    )
    return dict(zip(('out', 'value', 'places', 'weights'), (error(*p) for p in pairs), strict=True))


def main():
    torch.manual_seed(0)
    ours._is_on_gpu, ours._tried = (lambda value: True), (lambda device, dtype: True)
    half, brain = torch.float16, torch.bfloat16
    cases = {
        'three levels': errors(*drawn(THREE)),
        'three levels, bf16': errors(*drawn(THREE), dtype=brain),
        'three levels, fp16': errors(*drawn(THREE), dtype=half),
        'three levels, compiled': errors(*drawn(THREE), compiled=True),
        'one level, one point': errors(*drawn([(4, 9)], points=1, batch=1)),
        'sizes of 32 bits': errors(*drawn([(4, 9)], points=1), shapes=torch.int32),
        'one cell, one channel': errors(*drawn([(1, 1)], channels=1)),
        'two programs, padded channels': errors(*drawn([(3, 4)], channels=40, queries=7)),
        'no queries': errors(*drawn(THREE, queries=0)),
        'no images': errors(*drawn(THREE, batch=0)),
        'partly outside': errors(*drawn(THREE, spread=6.0)),
        'far outside': errors(*drawn(THREE, spread=1e6)),
        'centres of cells': errors(*centred(THREE)),
    }
    value, places, weights = drawn(THREE)[1:]
    places[0], places[1] = float('inf'), -1e37
    args = value, torch.tensor(THREE), places, weights
    cases['infinitely far'] = dict(out=ours.by_kernels(*args).abs().max().item())
    checked = ours._difference(ours._kernels(), torch.device('cpu'), brain)
    cases['check of a device'] = dict(bf16=checked)
    value, places, weights = (each.requires_grad_() for each in drawn(THREE, batch=1)[1:])
    operator = torch.library.opcheck(ours.by_kernels, (value, args[1], places, weights))
    print(json.dumps(dict(cases=cases, operator=operator)))


if __name__ == '__main__':
    main()
