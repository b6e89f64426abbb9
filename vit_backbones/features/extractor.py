"""The one engine for features: it reads, resizes and normalises images and runs a backbone."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from vit_backbones.devices import DTYPES
from vit_backbones.features.parts import Parts
from vit_backbones.features.plan import Item, reason_of
from vit_backbones.images import UnreadableImageError, resized, resizing
from vit_backbones.models.chosen import Loaded


class Extractor:
    """Computes the features of images.

    `'bf16'` computes in bfloat16 (autocast) and gives float32; `'fp16'` computes in half precision
    on a GPU, in float32 on a CPU, and gives float16.

    Args:
        loaded: The backbone; it moves to the device.
        size: (H, W) to which images are resized, or one number for the shorter side; `None` leaves
            them as they are.
        longest: Longer side of images where there is no `size` and the model takes any.
        dtype: `'fp32'`, `'bf16'` or `'fp16'`.
        normalize: Scale embeddings to length 1.
        joined: Join the outputs of several layers into one, along the channels.

    Attributes:
        seconds: Time of each batch in the model and in the conversion to arrays.

    Raises:
        ValueError: For a size that the model does not take, or maps with `normalize`.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        size: Sequence[int] | None = None,
        longest: int | None = None,
        dtype: str = 'fp32',
        normalize: bool = False,
        joined: bool = True,
        device: torch.device | str = 'cpu',
    ) -> None:
        vit = loaded.backbone
        self.loaded, self._normalize, self._joined = loaded, normalize, joined
        self.fixed = vit.fixed_size
        self.resize = resizing(size, self.fixed, longest)
        self.form = vit.pool or vit.out_type
        self.embeds = self.form not in ('featmap', 'raw')
        self.layers = [str(index) for index in vit.out_indices]
        self.dtype = np.dtype(np.float16 if dtype == 'fp16' else np.float32)
        if normalize and not self.embeds:
            raise ValueError(f'normalize=True scales embeddings, and {self.form!r} gives none')
        self.device, self.seconds = torch.device(device), list[float]()
        vit.to(self.device)
        half = dtype == 'bf16' or (dtype == 'fp16' and self.device.type != 'cpu')
        self._autocast = (
            torch.autocast(self.device.type, DTYPES[dtype]) if half else contextlib.nullcontext()
        )
        self.settings: dict[str, Any] = dict(
            size=size, dtype=dtype, normalised=normalize, device=self.device.type
        )

    @property
    def names(self) -> list[str]:
        """Names of an image's outputs; empty for a single output."""
        return [] if self._joined or len(self.layers) == 1 else self.layers

    def read(self, item: Item) -> np.ndarray | str:
        """Read an image (H, W, C) and resize it, or give the reason why that fails."""
        try:
            image = self.loaded.read(item.path)
        except UnreadableImageError as error:
            return reason_of(item.path, error)
        if image.shape[:2] != item.shown:
            return 'its header gives another size'
        return resized(image, item.size)

    def read_ahead(
        self, batches: Iterable[Sequence[Item]], num_workers: int
    ) -> Iterator[tuple[Sequence[Item], list[np.ndarray | str]]]:
        """Read the images of batches; `num_workers` threads read the next ones meanwhile."""
        if not num_workers:
            yield from ((batch, [self.read(item) for item in batch]) for batch in batches)
            return
        waiting: deque = deque()
        pool = ThreadPoolExecutor(num_workers)
        try:
            for batch in batches:
                waiting.append((batch, [pool.submit(self.read, item) for item in batch]))
                if len(waiting) > 1 + num_workers // len(batch):
                    yield _arrived(*waiting.popleft())
            while waiting:
                yield _arrived(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def pixels(self, images: Sequence[np.ndarray]) -> Tensor:
        """Normalise images (H, W, C) of one size for the model: (B, C, H, W) on the device."""
        return self.loaded.normalised(np.stack(images)).to(self.device)

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Compute the features of images (H, W, C) of one size: a list of arrays for each.

        Raises:
            ValueError: If a number is not finite.
        """
        pixels = self.pixels(images)
        start = time.perf_counter()
        with self._autocast:
            outputs = self.loaded.backbone(pixels)
        arrays = [self._as_array(output) for output in self._formed(outputs)]
        self.seconds.append(time.perf_counter() - start)
        return [list(one) for one in zip(*arrays, strict=True)]

    def embed(self, path: str) -> np.ndarray:
        """Compute the embedding (C,) of one image.

        Raises:
            UnreadableImageError: If it cannot be read.
        """
        shown = self.loaded.reader.size(path)
        image = self.read(Item(0, str(path), shown, self.resize(shown)))
        if isinstance(image, str):
            raise UnreadableImageError(f'{path}: {image}')
        return self.run([image])[0][0]

    def fingerprint(self) -> str:
        """Digest of all that the features depend on except the images: weights and options."""
        return self.loaded.fingerprint(self.settings, self._joined)

    def _formed(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = [output.float() for output in outputs]
        if self._joined:
            outputs = [torch.cat(outputs, dim=1)]
        if self._normalize:
            outputs = [torch.nn.functional.normalize(output) for output in outputs]
        return outputs

    def _as_array(self, output: Tensor) -> np.ndarray:
        with np.errstate(over='ignore'):  # refused below
            array = output.cpu().numpy().astype(self.dtype)
        if not np.isfinite(array).all():
            half = 'try dtype=bf16 or fp32; in fp32 ' if self.dtype == np.float16 else ''
            raise ValueError(
                f'the features are not finite as {self.dtype}: {half}the weights are at fault'
            )
        return array


def _arrived(batch: Sequence[Item], futures: Sequence[Any]) -> tuple[Sequence[Item], list]:
    return batch, [future.result() for future in futures]


def computed(
    batches: Iterable[Sequence[Item]], extractor: Extractor, num_workers: int
) -> Iterator[tuple[list[tuple[Item, list[np.ndarray]]], dict[int, str]]]:
    """Compute batches, each of images of one size: arrays by image, and reasons by index."""
    for batch, images in extractor.read_ahead(batches, num_workers):
        both = list(zip(batch, images, strict=True))
        readable = [(item, image) for item, image in both if not isinstance(image, str)]
        outputs = extractor.run([image for _, image in readable]) if readable else []
        found = [(item, output) for (item, _), output in zip(readable, outputs, strict=True)]
        yield found, {item.index: why for item, why in both if isinstance(why, str)}


def compute(
    batches: Sequence[Sequence[Item]],
    extractor: Extractor,
    num_workers: int,
    parts: Parts,
    bar: Progress,
    doing: str = 'images',
) -> None:
    """Compute batches, each of images of one size, and keep the features in `parts`."""
    task = bar.add_task(doing, total=sum(map(len, batches)))
    try:
        for found, unreadable in computed(batches, extractor, num_workers):
            arrays = {
                f'{item.index}.{number}': array
                for item, output in found
                for number, array in enumerate(output)
            }
            parts.add(arrays, unreadable)
            bar.advance(task, len(found) + len(unreadable))
    except KeyboardInterrupt:
        parts.flush()
        raise
    parts.flush()
