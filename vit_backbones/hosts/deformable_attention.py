"""Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021).

Places and weights are never rounded: they are computed with in fp32, whatever the type of the
values, and so is the sum. On CUDA by Triton's kernels, if these agree with PyTorch on the device,
which is tried at first use; elsewhere by `grid_sample`.
"""

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from vit_backbones.errors import one_line
from vit_backbones.position import Grid

_ERRORS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}  # of the kernels


def deformable_attention(
    value: Tensor,
    shapes: Tensor,
    places: Tensor,
    weights: Tensor,
    *,
    grids: Sequence[Grid] | None = None,
) -> Tensor:
    """Sums bilinear samples of every level, weighted by attention; zeros lie around the maps.

    Args:
        value: (B, sum of h * w, heads, C), the levels one after another.
        shapes: (levels, 2), h and w of each level, on the device of the values.
        places: (B, Q, heads, levels, points, 2) as x, y; 0 and 1 are the borders of the map.
        weights: (B, Q, heads, levels, points).
        grids: `shapes` as numbers. Without them, the CPU waits for those.

    Returns:
        (B, Q, heads * C) in the type of the values.
    """
    if _takes_kernels(value):
        tensors = value, shapes, places.float(), weights.float()
        return by_kernels(*(each.contiguous() for each in tensors))
    return _in_pytorch(value, grids or shapes.tolist(), wide(places), wide(weights))


def wide(tensor: Tensor) -> Tensor:
    """fp32 for the half types, which many CPU kernels lack; other types unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def shapes_on(device: torch.device, grids: Sequence[Grid]) -> Tensor:
    """(levels, 2) of the grids, by kernels that fill: `torch.tensor` waits for its copy."""
    sides = [torch.full((1,), side, device=device) for grid in grids for side in grid]
    return torch.cat(sides).view(-1, 2)


def _in_pytorch(value: Tensor, grids: Sequence[Grid], places: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    # Queries last: the sum over points then runs along contiguous memory.
    looks = (2 * places - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*heads, L, P, Q, 2)
    weights = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B*heads, L, P, Q)
    maps = wide(value).permute(0, 2, 3, 1).flatten(0, 1)  # (B*heads, C, sum of h*w)
    total = maps.new_zeros(())
    for level, flat in enumerate(maps.split([h * w for h, w in grids], dim=2)):
        # (B*heads, C, h, w) -> (B*heads, C, P, Q)
        samples = F.grid_sample(
            flat.unflatten(2, tuple(grids[level])), looks[:, level], align_corners=False
        )
        total = total + (samples * weights[:, None, level]).sum(2)
    # (B*heads, C, Q) -> (B, Q, heads*C)
    joined = total.reshape(batch, heads * channels, places.shape[1]).transpose(1, 2)
    return joined.contiguous().to(value.dtype)


# The kernels as one operator, for autograd and `torch.compile`


@torch.library.custom_op('vit_backbones::deformable_attention', mutates_args=())
def by_kernels(value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """`deformable_attention` of contiguous tensors, the last two in fp32."""
    return _kernels().forward(value, shapes, places, weights)


@torch.library.custom_op('vit_backbones::deformable_attention_backward', mutates_args=())
def _backward(
    grad_out: Tensor, value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels().backward(grad_out.contiguous(), value, shapes, places, weights)


@by_kernels.register_fake
def _(value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], places.shape[1], value.shape[2] * value.shape[3])


@_backward.register_fake
def _(grad_out: Tensor, value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Any:
    return tuple(map(torch.empty_like, (value, places, weights)))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    of_value, of_places, of_weights = _backward(grad_out, *ctx.saved_tensors)
    return of_value, None, of_places, of_weights


by_kernels.register_autograd(_gradients, setup_context=_keep)


def _kernels() -> ModuleType:
    from vit_backbones.hosts import deformable_triton  # Triton comes with torch on Linux only

    return deformable_triton


# Whether they work


def _takes_kernels(value: Tensor) -> bool:
    if not _is_on_gpu(value) or value.dtype not in _ERRORS:
        return False
    if torch.are_deterministic_algorithms_enabled():  # the kernels add in any order
        return False
    return kernels_work(value.device, value.dtype)


def _is_on_gpu(value: Tensor) -> bool:
    return value.is_cuda


@torch.compiler.assume_constant_result
def kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels agree with PyTorch on a device; if not, the log has one line."""
    return _tried(device, dtype)


@functools.cache
def _tried(device: torch.device, dtype: torch.dtype) -> bool:
    try:
        # A thread of its own has no autocast, no_grad or tracing of the caller.
        with ThreadPoolExecutor(1) as thread:
            difference = thread.submit(_difference, _kernels(), device, dtype).result()
    except Exception as error:  # of a missing library, or of any step of its compiler
        reason = f'Triton fails with {type(error).__name__}: {one_line(error)}'
    else:
        if difference <= _ERRORS[dtype]:
            return True
        name = str(dtype).removeprefix('torch.')
        reason = f"Triton's result in {name} differs by {difference:.2g}"
    _log(f'Deformable attention on {device} runs in PyTorch, which is slower: {reason}')
    return False


@functools.cache  # once for all types
def _log(line: str) -> None:
    print_log(line, 'current', level=logging.WARNING)


def _difference(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> float:
    """Largest error, of output and gradients, of a small case with places outside the maps."""
    draw = functools.partial(torch.rand, generator=torch.Generator().manual_seed(0))
    grids = [(5, 7), (3, 2)]
    value, grad_out = draw(2, 41, 3, 20).to(dtype), draw(2, 9, 60).to(dtype)
    places, weights = draw(2, 9, 3, 2, 4, 2) * 1.4 - 0.2, draw(2, 9, 3, 2, 4) / 8
    tensors = [each.to(device) for each in (value, torch.tensor(grids), places, weights)]
    found = kernels.forward(*tensors), *kernels.backward(grad_out.to(device), *tensors)

    leaves = [each.float().requires_grad_() for each in (value, places, weights)]
    out = _in_pytorch(leaves[0], grids, *leaves[1:])
    expected = out.detach(), *torch.autograd.grad(out, leaves, grad_out.float())
    errors = [
        (ours.cpu().float() - theirs).abs().max() / theirs.abs().max().clamp(min=1.0)
        for ours, theirs in zip(found, expected, strict=True)
    ]
    return torch.stack(errors).max().item()  # NaN, if one is
