"""A backbone as it makes features of images that lie in files."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vit_backbones.devices import DTYPES
from vit_backbones.features.plan import Item, reason_of
from vit_backbones.images import UnreadableImageError, image_size, read_image, resized, resizing
from vit_backbones.models.chosen import Loaded


class Extractor:
    """Makes features.

    `'bf16'` computes in bfloat16 (autocast) and gives float32; `'fp16'` computes in half precision
    on a GPU, in float32 on a CPU, and gives float16.

    Args:
        loaded: The backbone; moved to the device.
        size: (H, W) to which images are resized, or one number for the shorter side; `None` leaves
            them as they are.
        dtype: `'fp32'`, `'bf16'` or `'fp16'`.
        normalize: Scale embeddings to length 1.
        joined: Join the embeddings of several layers into one.
        device: Where to compute.

    Raises:
        ValueError: For a size that is not that of a model of one size, for maps that should be
            normalised.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        size: Sequence[int] | None = None,
        dtype: str = 'fp32',
        normalize: bool = False,
        joined: bool = True,
        device: torch.device | str = 'cpu',
    ) -> None:
        vit = loaded.backbone
        self.loaded, self._normalize, self._joined = loaded, normalize, joined
        self.fixed = vit.fixed_size
        self.resize = resizing(size, self.fixed)
        self.form = vit.pool or vit.out_type
        self.embeds = self.form not in ('featmap', 'raw')
        self.layers = [str(index) for index in vit.out_indices]
        self.dtype = np.dtype(np.float16 if dtype == 'fp16' else np.float32)
        if normalize and not self.embeds:
            raise ValueError(f'--normalize scales embeddings, and {self.form!r} gives none')
        self.device = torch.device(device)
        vit.to(self.device)
        half = dtype == 'bf16' or (dtype == 'fp16' and self.device.type != 'cpu')
        self._autocast = (
            torch.autocast(self.device.type, DTYPES[dtype]) if half else contextlib.nullcontext()
        )
        told = dict(size=size, dtype=dtype, normalised=normalize, device=self.device.type)
        self.settings: dict[str, Any] = told

    @property
    def names(self) -> list[str]:
        """Of the outputs of an image; empty for a single one."""
        return [] if self._joined or len(self.layers) == 1 else self.layers

    def read(self, item: Item) -> np.ndarray | str:
        """An image (H, W, 3), RGB and resized; or why it cannot be read."""
        try:
            image = read_image(item.path)
        except UnreadableImageError as error:
            return reason_of(item.path, error)
        if image.shape[:2] != item.shown:
            return 'its header tells another size'
        return resized(image, item.size)

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Features of images (H, W, 3) of one size: for each one the arrays of its outputs.

        Raises:
            ValueError: If a number is not finite.
        """
        pixels = self.loaded.normalised(np.stack(images)).to(self.device)
        with self._autocast:
            outputs = self.loaded.backbone(pixels)
        arrays = [self._told(output) for output in self._formed(outputs)]
        return [list(one) for one in zip(*arrays, strict=True)]

    def embed(self, path: str) -> np.ndarray:
        """The embedding (C,) of one image.

        Raises:
            UnreadableImageError: If it cannot be read.
        """
        shown = image_size(path)
        image = self.read(Item(0, str(path), shown, self.resize(shown)))
        if isinstance(image, str):
            raise UnreadableImageError(f'{path}: {image}')
        return self.run([image])[0][0]

    def fingerprint(self) -> str:
        """Of what the features depend on beside the images: weights, options, settings."""
        return self.loaded.fingerprint(self.settings, self._joined)

    def _formed(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = [output.float() for output in outputs]
        if self._joined:
            outputs = [torch.cat(outputs, dim=1)]
        if self._normalize:
            outputs = [torch.nn.functional.normalize(output) for output in outputs]
        return outputs

    def _told(self, output: Tensor) -> np.ndarray:
        with np.errstate(over='ignore'):  # what is beyond half precision is told below
            array = output.cpu().numpy().astype(self.dtype)
        if not np.isfinite(array).all():
            raise ValueError(
                f'the features are not finite as {self.dtype}: try --dtype bf16 or fp32; in fp32 '
                f'the weights are at fault'
            )
        return array
