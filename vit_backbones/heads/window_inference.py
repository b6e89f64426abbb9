"""Semantic inference by few evenly spread square windows, as EoMT's authors do it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vit_backbones.arguments import pair


def window_starts(side: int, window: int) -> list[int]:
    """Where the fewest windows start that cover a side, with equal overlaps up to rounding."""
    count = -(-side // window)
    return [i * (side - window) // max(count - 1, 1) for i in range(count)]


class WindowInference:
    """Mixin for mmseg's `EncoderDecoder`: `test_cfg=dict(mode='windows', crop_size=(512, 512))`.

    Along a side of the image longer than that of a window lie ceil(side / window) windows, evenly
    spread; a shorter side has one window of its own length. With the short side of images resized
    to that of the window, they lie along the long side only. All windows of a batch run as one
    batch, or in batches of `test_cfg.window_batch`. What the head predicts is averaged where
    windows overlap: scores for heads of masks. mmseg resizes that to the image.
    """

    def inference(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Predictions (B, K, H, W) of the head on images (B, C, H, W)."""
        if self.test_cfg.get('mode') != 'windows':
            return super().inference(inputs, batch_img_metas)
        if self.test_cfg.get('crop_size') is None:
            raise ValueError(
                "test_cfg has mode='windows' without a size: add crop_size=(height, width)"
            )
        return self._by_windows(inputs, batch_img_metas)

    def _by_windows(self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]) -> Tensor:
        crop = pair('crop_size', self.test_cfg['crop_size'])
        sides = tuple(inputs.shape[-2:])
        size = torch.Size(map(min, crop, sides))
        rows, columns = map(window_starts, sides, size)
        places = [
            (..., slice(y, y + size[0]), slice(x, x + size[1])) for y in rows for x in columns
        ]
        windows = torch.cat([inputs[place] for place in places])
        own = [dict(meta, img_shape=size, pad_shape=size) for meta in metas] * len(places)
        predicted = self._predicted(windows, own).split(len(inputs))
        total = predicted[0].new_zeros(*predicted[0].shape[:2], *sides)
        counts = total.new_zeros(sides)
        for place, each in zip(places, predicted, strict=True):
            total[place] += each
            counts[place] += 1
        return total / counts

    def _predicted(self, windows: Tensor, metas: Sequence[Mapping[str, Any]]) -> Tensor:
        most = self.test_cfg.get('window_batch', len(windows))
        starts = range(0, len(windows), most)
        parts = [self.encode_decode(windows[i : i + most], metas[i : i + most]) for i in starts]
        return torch.cat(parts)
