"""Patch features of images, computed once and kept on disk."""

import hashlib
import io
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vit_backbones.files import write_whole
from vit_backbones.images import read_image, resized
from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.terminal import track

_FORMAT = 2  # raised whenever the same model and image would give other files
_STRIDE = 16  # of models whose layers have several
_LARGEST = torch.finfo(torch.float16).max


class Features(NamedTuple):
    """Those of all images of a model.

    Attributes:
        files: One an image, each of an array (C, h, w) of float16.
        stride: (vertical, horizontal) of their cells in pixels of what the model saw.
        images_per_second: Of inference of one image a time, by the median image, reading and
            writing aside; `None` if they come from elsewhere, or from another device or number of
            threads.
    """

    files: list[Path]
    stride: tuple[int, int]
    images_per_second: float | None


def compute_features(
    loaded: Loaded,
    images: Sequence[Path],
    cache: Path,
    *,
    size: Grid | None = None,
    device: torch.device,
) -> Features:
    """Run a frozen backbone over images; those that ran before are not run again.

    The layers of `loaded` are concatenated. Files lie in a folder a model, named by its weights and
    all else that forms the features; those of an image are named by its path, time and size. Each
    is written whole, so that a run may be stopped at any moment.

    Args:
        loaded: Its output must be feature maps.
        images: Files.
        cache: Folder of the folders.
        size: (H, W) to resize images to; their own by default.
        device: Where to run.

    Raises:
        OSError: If a file cannot be written.
        ValueError: For an image that cannot be read, or one of a size that the model does not take.
    """
    backbone = loaded.backbone
    if len(set(backbone.strides)) > 1:
        backbone.out_stride = _STRIDE
    stride = backbone.strides[0]
    digest = loaded.fingerprint(_FORMAT, size, backbone.strides)
    folder = cache / f'{Path(loaded.name).name}-{digest[:16]}'
    files = [folder / f'{each.stem}-{_digest_of_file(each)}.npy' for each in images]
    missing = {file: image for file, image in zip(files, images, strict=True) if not file.exists()}
    backbone.to(device)
    seconds = []
    for file, image in track(missing.items(), loaded.name):
        pixels = read_image(image)
        pixels = loaded.normalised(resized(pixels, size or pixels.shape[:2])[None]).to(device)
        start = time.perf_counter()
        with torch.inference_mode():
            maps = torch.cat(backbone(pixels), 1)[0].clamp(-_LARGEST, _LARGEST).half().cpu()
        seconds.append(time.perf_counter() - start)
        content = io.BytesIO()
        np.save(content, maps.numpy())
        write_whole(file, content.getvalue())
    return Features(
        files,
        stride if isinstance(stride, tuple) else (stride, stride),
        _speed(folder, seconds, device),
    )


def _speed(folder: Path, seconds: Sequence[float], device: torch.device) -> float | None:
    """Images a second, of this run or else of the one that filled the folder, if it ran alike."""
    note, place = folder / 'speed.json', f'{device}, {torch.get_num_threads()} threads'
    if seconds:
        speed = round(1 / statistics.median(seconds), 3)
        write_whole(note, json.dumps(dict(images_per_second=speed, place=place)).encode())
    told = json.loads(note.read_text()) if note.exists() else {}
    return told['images_per_second'] if told.get('place') == place else None


def _digest_of_file(path: Path) -> str:
    known = path.stat()
    told = str(path.resolve()), known.st_mtime_ns, known.st_size
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
