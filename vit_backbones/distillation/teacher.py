"""The features that a student learns, computed by its teacher or read from a disk."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.devices import amp_dtype
from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.training.feature_store import FeatureStore
from vit_backbones.training.fixed_views import VIEW

_LARGEST = torch.finfo(torch.float16).max


class Teacher:
    """A frozen model and the features that it teaches; its weights are in no checkpoint.

    Features are rounded to float16, so that those from a disk are the same. On a GPU the model
    computes in half precision.

    Args:
        loaded: The model, in the form `'raw'`.
        grid: (h, w) of the student's patches, to which those of the teacher are resampled.
        with_cls: Teach the CLS token too.
        store: Keeps the features of fixed views.
    """

    def __init__(
        self, loaded: Loaded, grid: Grid, *, with_cls: bool, store: FeatureStore | None = None
    ) -> None:
        self.loaded, self.grid, self.with_cls, self.store = loaded, grid, with_cls, store

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features of each layer."""
        return self.loaded.backbone.out_channels

    def features(self, images: Tensor, samples: Sequence[Any]) -> list[Tensor]:
        """All that is to be learned of a batch (B, 3, H, W).

        Gives patches (B, h*w, C) of the student's grid for each layer and, where it is taught,
        CLS (B, C).
        """
        if self.store is None:
            return [each.half().float() for each in self._computed(images)]
        views, size = [each.metainfo[VIEW] for each in samples], tuple(images.shape[-2:])
        kept = self.store.read(views, size)
        if kept is None:
            kept = self.store.write(views, size, self._computed(images))
        return [each.to(images.device) for each in kept]

    @torch.no_grad()
    def _computed(self, images: Tensor) -> list[Tensor]:
        model, kind = self.loaded.backbone.to(images.device), images.device.type
        half = getattr(torch, amp_dtype())
        with torch.autocast(kind, half if kind == 'cuda' else None, enabled=kind == 'cuda'):
            patches, cls = tokens_of(model, images, self.grid)
        taught = [*patches, cls] if self.with_cls else patches
        return [each.float().clamp(-_LARGEST, _LARGEST) for each in taught]


def tokens_of(
    model: ViTFeatBackbone, images: Tensor, grid: Grid
) -> tuple[list[Tensor], Tensor | None]:
    """Patches (B, h*w, C) of each layer on a grid, and the last CLS token (B, C), if there is one.

    The images are of whole patches.
    """
    layers = model(images)
    steps = [model.layer_strides[index] for index in model.out_indices]
    cls = layers[-1][:, 0] if model.has_cls_token else None
    tokens = [each[:, model.num_prefix_tokens :] for each in layers]
    size = tuple(images.shape[-2:])
    return [_on(grid, *each, size) for each in zip(tokens, steps, strict=True)], cls


def _on(grid: Grid, patches: Tensor, step: Grid, size: Grid) -> Tensor:
    """Patches (B, h*w, C) of images of a size on another grid."""
    cells = tuple(side // each for side, each in zip(size, step, strict=True))
    if cells == tuple(grid):
        return patches
    maps = patches.float().transpose(1, 2).unflatten(2, cells)
    return resampled(maps, grid).flatten(2).transpose(1, 2)


def resampled(maps: Tensor, grid: Grid) -> Tensor:
    """Maps (B, C, h, w) on another grid of the same area; a coarser one takes means."""
    if tuple(maps.shape[-2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, grid, mode='bilinear', antialias=True)
