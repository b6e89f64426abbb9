"""Patch features of images, computed once by the feature engine and kept on disk."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vit_backbones.features.extractor import Extractor, compute
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Item
from vit_backbones.files import json_of, write_whole
from vit_backbones.images import UnreadableImageError
from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.terminal import progress

_FORMAT = 3  # raised whenever the same model and image would give other files
_STRIDE = 16  # of models whose layers have several
_LARGEST = np.finfo(np.float16).max


class Features(NamedTuple):
    """A model's features of all images.

    Attributes:
        parts: Holds one array (C, h, w) of float16 for each image.
        stride: (vertical, horizontal) of their cells in pixels of `Item.size`.
        images_per_second: Speed of inference with one image at a time, by the median image,
            without reading and writing; `None` if the features come from another device or number
            of threads.
    """

    items: list[Item]
    parts: Parts
    stride: tuple[int, int]
    images_per_second: float | None


class _InHalf(Extractor):
    """Computes in fp32 and keeps half precision, with larger numbers clamped to its range."""

    def _as_array(self, output: Tensor) -> np.ndarray:
        return super()._as_array(output).clip(-_LARGEST, _LARGEST).astype(np.float16)


def compute_features(
    loaded: Loaded,
    images: Sequence[Path],
    cache: Path,
    *,
    size: Grid | None = None,
    device: torch.device,
) -> Features:
    """Run a frozen backbone over images, except those that ran before.

    The layers of `loaded`, feature maps, are joined. `cache` holds a folder per model, named by its
    weights and all else that forms the features; an image is known by its path, time and size.
    A run may be stopped at any moment. Images are resized to `size` (H, W), if given.
    """
    backbone = loaded.backbone
    if len(set(backbone.strides)) > 1:
        backbone.out_stride = _STRIDE
    stride = backbone.strides[0]
    digest = loaded.fingerprint(_FORMAT, size, backbone.strides)
    parts = Parts(cache / f'{Path(loaded.name).name}-{digest[:16]}', digest, shared=True)
    extractor = _InHalf(loaded, size=size, device=device)
    items = [_item(path, extractor, size) for path in images]
    with progress() as bar:
        missing = {item.index: [item] for item in _missing(items, parts)}
        compute(list(missing.values()), extractor, 0, parts, bar, loaded.name)
    for item, why in _missing(items, parts).items():
        raise UnreadableImageError(f'{item.path}: {why}')
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    return Features(items, parts, steps, _speed(parts.folder, extractor.seconds, device))


def _missing(items: Sequence[Item], parts: Parts) -> dict[Item, str]:
    """Images that `parts` lacks, with reasons."""
    reasons, done = parts.read(), set(parts.indices)
    other = 'another run has replaced its features: repeat this'
    return {each: reasons.get(each.index, other) for each in items if each.index not in done}


def _item(path: Path, extractor: Extractor, size: Grid | None) -> Item:
    """An image; its index stands for path, time and size of the file."""
    shown, known = extractor.loaded.reader.size(path), path.stat()
    text = repr((str(path.resolve()), known.st_mtime_ns, known.st_size))
    index = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
    item = Item(index, str(path), shown, extractor.resize(shown))
    if size is None and item.size != shown:
        height, width = item.size
        raise ValueError(f'{path}: the model takes only images of {height}x{width}: give size=H W')
    return item


def _speed(folder: Path, seconds: Sequence[float], device: torch.device) -> float | None:
    """Images per second of this run, else of the one that filled the folder, if it ran alike."""
    note, place = folder / 'speed.json', f'{device}, {torch.get_num_threads()} threads'
    if seconds:
        speed = round(1 / statistics.median(seconds), 3)
        write_whole(note, json.dumps(dict(images_per_second=speed, place=place)).encode())
    known = json_of(note.read_bytes(), note, dict) if note.exists() else {}
    return known['images_per_second'] if known.get('place') == place else None
