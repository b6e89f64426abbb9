"""`torch.compile` for the backbone and the neck of a detector or segmenter."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from vit_backbones.checks.wiring import bare

_PARTS = ('backbone', 'neck')
# Of `torch.compile`. The first size of images is compiled as it is, and a second one so that sizes
# may vary from then on: fast for data of one size, and for all others a few compilations only.
OPTIONS: dict[str, Any] = dict(dynamic=None)


class CompileError(RuntimeError):
    """PyTorch's compiler fails; the text is one line that says to do without."""


def compile_parts(model: nn.Module) -> None:
    """Compile the backbone and the neck in place, each at its first batch.

    The names of weights stay, and so do checkpoints. Copies, as of an average of weights, are not
    compiled. Heads are not either: Mask2Former's match on the host, mmdet's sort and filter.
    """
    for part in _parts(model):
        part.compile(**OPTIONS)
        if getattr(part, 'masks_padding', False):
            print_log(
                'compile=True: with mask_padding=True each new combination of image sizes is '
                'compiled, and after eight the backbone runs uncompiled; leave one of the two out',
                logger='current',
                level=logging.WARNING,
            )


def compiler_line(error: BaseException | None, model: nn.Module) -> str | None:
    """A line for an error of the compiler of `compile_parts`, `None` for others."""
    if not any(part._compiled_call_impl for part in _parts(model)):
        return None
    while error is not None and not isinstance(error, torch._dynamo.exc.TorchDynamoException):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if 'TORCH_LOGS' not in line]  # PyTorch's advice to developers
    reason = ' '.join(lines[:2]).rstrip('.')
    return f'compile=True: PyTorch cannot compile the backbone or the neck, train without: {reason}'


def _parts(model: nn.Module) -> list[nn.Module]:
    parts = (getattr(bare(model), name, None) for name in _PARTS)
    return [part for part in parts if isinstance(part, nn.Module)]
