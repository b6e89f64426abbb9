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


class Teacher:
    """A frozen model and the features that it teaches; its weights are in no checkpoint.

    Features lose their mean and scale in each token, as in Wei et al., Contrastive Learning Rivals
    Masked Image Modeling in Fine-tuning via Feature Distillation, 2022, and are rounded to float16,
    so that those from a disk are the same. On a GPU the model computes in half precision.

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
    def width(self) -> int:
        """Channels of the features."""
        return self.loaded.backbone.out_channels[0]

    def features(self, images: Tensor, samples: Sequence[Any]) -> list[Tensor]:
        """What is to be learned of a batch (B, 3, H, W).

        Gives patches (B, h*w, C) of the student's grid and, where it is taught, CLS (B, C).
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
            patches, cls = tokens_of(model, images)
        maps = patches.float().transpose(1, 2).unflatten(2, cells_of(model, images))
        patches = resampled(maps, self.grid).flatten(2).transpose(1, 2)
        taught = [patches, cls.float()] if self.with_cls else [patches]
        return [F.layer_norm(each, each.shape[-1:]) for each in taught]


def tokens_of(model: ViTFeatBackbone, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Patches (B, h*w, C) of the last block, and the CLS token (B, C) of a model with one."""
    (tokens,) = model(images)
    cls = tokens[:, 0] if model.has_cls_token else None
    return tokens[:, model.num_prefix_tokens :], cls


def cells_of(model: ViTFeatBackbone, images: Tensor) -> Grid:
    """(h, w) of the patches of a batch whose images no model pads."""
    steps = model.layer_strides[-1]
    return tuple(side // step for side, step in zip(images.shape[-2:], steps, strict=True))


def resampled(maps: Tensor, grid: Grid) -> Tensor:
    """Maps (B, C, h, w) on another grid of the same area; a coarser one takes means."""
    if tuple(maps.shape[-2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, grid, mode='bilinear', antialias=True)
