"""The features that are wanted, checked before the work starts."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from vit_backbones.devices import choose_device
from vit_backbones.features.extractor import Extractor
from vit_backbones.features.feature_files import WRITERS, pyarrow
from vit_backbones.files import check_writable
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.readout import PoolingError

_MAPS = ('featmap', 'raw')


class Request(NamedTuple):
    """The features that are wanted, and where.

    Attributes:
        out: File to write: `.parquet`, `.npz` or `.safetensors`; or a folder for a data set of
            embeddings.
        pool: Pooling, in place of `out_type`.
        size: (H, W) or the shorter side.
        dtype: `'fp32'`, `'bf16'` or `'fp16'`.
        normalize: Scale embeddings to length 1.
        device: By default a GPU if there is one.
        num_workers: Threads that read images ahead.
        overwrite: Replace the output, and an unfinished run of another job.
        image_key: Of images in shards, the column of Parquet, or the extension in a tar.
    """

    out: Path
    out_type: str | None = None
    pool: str | None = None
    size: Sequence[int] | None = None
    batch_size: int = 8
    dtype: str = 'fp32'
    normalize: bool = False
    device: str | None = None
    num_workers: int = 2
    overwrite: bool = False
    image_key: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the output is a data set of many files: a folder, or a name without a suffix."""
        return self.out.is_dir() or not self.out.suffix

    @property
    def embeds(self) -> bool:
        """Whether the output holds embeddings alone, in Parquet."""
        return self.is_folder or self.out.suffix == '.parquet'


def check_request(request: Request) -> None:
    """Refuse an output that cannot be written, before the work starts."""
    out, form = request.out, request.out_type
    if not request.is_folder and out.suffix not in WRITERS:
        named = ', '.join(f'*{s}' for s in WRITERS)
        raise ValueError(f'out={out}: write to one of {named}, or a folder, a name without suffix')
    if request.image_key and not request.is_folder:
        raise ValueError('image_key=... is of shards, whose features go to a folder: out=DIR')
    if request.embeds:
        pyarrow()
        if form in _MAPS:
            raise ValueError(
                f'out={out}: Parquet holds embeddings; write out_type={form} to .npz or '
                f'.safetensors'
            )
    if request.pool and form:
        raise ValueError('pool=... gives embeddings in place of out_type=...: give one of them')
    check_writable(out, folder=request.is_folder)


def prepare(choice: Choice, request: Request) -> Extractor:
    """Load the backbone in the form that the output needs.

    Raises:
        OSError, RuntimeError, ValueError: For a wrong choice or request.
    """
    name = request.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if name == 'cuda':
        name = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
    return Extractor(
        _load(choice, request),
        size=request.size,
        dtype=request.dtype,
        normalize=request.normalize,
        joined=request.embeds,
        device=choose_device(name),
    )


def _load(choice: Choice, request: Request) -> Loaded:
    if request.pool or request.out_type:
        form = dict(pool=request.pool) if request.pool else dict(out_type=request.out_type)
        return load_backbone(choice, **form)
    if not request.embeds:
        return load_backbone(choice)
    for pool in ('model', 'cls'):
        with contextlib.suppress(PoolingError):
            return load_backbone(choice, pool=pool)
    return load_backbone(choice, pool='avg')
