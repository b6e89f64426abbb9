"""The base of heads whose queries run through a ViT's blocks together with the tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit_backbones.arguments import flag, integer, pair
from vit_backbones.heads.iteration import Iteration
from vit_backbones.heads.mask2former_loss import set_losses, set_matching
from vit_backbones.heads.mask_annealing import MaskAnnealing, Span
from vit_backbones.heads.query_prediction import (
    Upscale,
    attended,
    mask_mlp,
    upscale_count,
)
from vit_backbones.position import Grid, cells
from vit_backbones.readout import JointTokens

Before = Callable[[int, JointTokens], Tensor | None]
Logits = tuple[Tensor, Tensor]  # of classes (B, Q, K + 1), and masks (B, Q, H, W)


class JointHead(nn.Module):
    """Mixin: queries that go through blocks with the tokens, and Mask2Former's loss on them.

    It stands before one of the batched Mask2Former heads, whose parts it replaces: there is no
    pixel decoder and no transformer decoder. A subclass defines `_run`.

    In training there is a prediction before each block and one behind the last, and all of them
    are supervised. A query attends to the patches in its mask; other tokens attend to everything.
    The masks go in the course of the training, see `MaskAnnealing`. What is random in it, and the
    points of the loss, depend only on the seed, the iteration and the process, so that a resumed
    training goes on as it would have.

    Args:
        num_classes: Without "no object", which is the last of the logits.
        feat_channels: Channels C of tokens and queries.
        patch_size: Of the tokens, in pixels: an int or (height, width).
        num_queries: Queries Q.
        num_blocks: Blocks with queries.
        num_upscales: Doublings of the grid for masks; by default the stride is about 4.
        annealing: As `spans` of `MaskAnnealing`: `None` for the default, `[(0, 3000)]` for the
            first block of EoMT with DINOv3.
        recompute: Compute the predictions between blocks anew in the backward pass, which saves
            memory.
        loss_cls: Changes of Mask2Former's loss, or with a `type` all of it; likewise the next two.
        loss_mask: Of masks, by cross-entropy.
        loss_dice: Of masks, by overlap.
        train_cfg: Changes of Mask2Former's `num_points`, `oversample_ratio`,
            `importance_sample_ratio`, `assigner` and `sampler`.
        test_cfg: Kept for the model.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        feat_channels: int,
        patch_size: int | Sequence[int],
        num_queries: int,
        num_blocks: int,
        num_upscales: int | None = None,
        annealing: Sequence[Span | None] | None = None,
        recompute: bool = True,
        loss_cls: Mapping[str, Any] | None = None,
        loss_mask: Mapping[str, Any] | None = None,
        loss_dice: Mapping[str, Any] | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super(AnchorFreeHead, self).__init__(init_cfg=init_cfg)  # as `Mask2FormerHead` does
        self.num_classes = integer('num_classes', num_classes, 1)
        self.num_queries = integer('num_queries', num_queries, 1)
        self.num_blocks = integer('num_blocks', num_blocks, 1)
        self.annealing = MaskAnnealing(num_blocks, annealing)
        self.recompute = flag('recompute', recompute)
        self.patch_size = pair('patch_size', patch_size)
        doublings = upscale_count(self.patch_size) if num_upscales is None else num_upscales
        self.num_upscales = integer('num_upscales', doublings, 0)
        self.query_embed = nn.Embedding(num_queries, feat_channels)
        self.cls_embed = nn.Linear(feat_channels, num_classes + 1)
        self.mask_embed = mask_mlp(feat_channels)
        self.upscale = nn.ModuleList(Upscale(feat_channels) for _ in range(self.num_upscales))
        set_losses(self, cls=loss_cls, mask=loss_mask, dice=loss_dice)
        set_matching(self, train_cfg)
        self.test_cfg = test_cfg
        self._generator: torch.Generator | None = None
        self._losing = False  # whether a loss is computed
        self._warned = False

    def init_weights(self) -> None:
        """Apply `init_cfg`; there is none of Mask2Former's decoders."""
        super(AnchorFreeHead, self).init_weights()

    def _run(self, x: Any, before: Before | None) -> JointTokens:
        """Queries and tokens after the last block, normed.

        Args:
            x: What the model's `extract_feat` gives.
            before: Called before each of the blocks with its index and the normed tokens that it
                gets; gives the patches (B, Q, h*w) that queries attend to, or `None` for all.
        """
        raise NotImplementedError

    def _input_size(self, x: Any, metas: Sequence[Mapping[str, Any]], grid: Grid) -> Grid:
        """(H, W) of the batch in pixels: of what mmdet and mmseg note, what the grid covers."""
        noted = [
            tuple(metas[0][name][:2])
            for name in ('batch_input_shape', 'pad_shape', 'img_shape')
            if name in metas[0]
        ]
        fits = [size for size in noted if self._covers(grid, size)]
        if not fits:
            raise ValueError(
                f'{grid[0]}x{grid[1]} patches of patch_size={self.patch_size} do not cover the '
                f'images, whose size is noted as {" or ".join(map(str, noted)) or "nothing"}'
            )
        return fits[0]

    def _covers(self, grid: Grid, size: Grid) -> bool:
        """Whether a grid of patches is that of images of a size."""
        return cells(size, self.patch_size) == grid

    def forward(
        self, x: Any, batch_data_samples: Sequence[Any] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of classes and of masks: of every prediction in training, else of the last one.

        Classes are (B, Q, K + 1) and masks (B, Q, 2**u * h, 2**u * w) for u doublings, of the
        patches' whole canvas.
        """
        every, outputs = self.training or self._losing, []
        keep = self.keep_probabilities()

        def before(index: int, joint: JointTokens) -> Tensor | None:
            if not every and not keep[index]:
                return None
            outputs.append(self._between(joint))
            return self._mask(outputs[-1][1], joint.tokens.grid, keep[index])

        last = self._run(x, before if every or any(keep) else None)
        outputs.append(self._logits(last.extra, last.tokens.patches, last.tokens.grid))
        kept = outputs if every else outputs[-1:]
        return tuple(map(list, zip(*kept, strict=True)))

    def keep_probabilities(self) -> tuple[float, ...]:
        """The probability of each block to keep a query's mask now.

        In validations during a training a block has all of its masks where that is above 0.5, else
        none. Tests and inference have none.
        """
        now = Iteration.current()
        if now is None:
            if self.training:
                self._warn()
            return (float(self.training),) * self.num_blocks
        keep = self.annealing.keep(now.done, now.total)
        return keep if self.training else tuple(float(each > 0.5) for each in keep)

    def loss(self, x: Any, batch_data_samples: Sequence[Any], *args: Any) -> dict[str, Tensor]:
        """Losses by name, of all predictions; arguments as in mmdet and mmseg."""
        now = Iteration.current()
        self._generator = now and now.generator(self.query_embed.weight.device)
        self._losing = True
        try:
            return super().loss(x, batch_data_samples, *args)
        finally:
            self._generator, self._losing = None, False

    def loss_by_feat(
        self,
        all_cls_scores: Sequence[Tensor],
        all_mask_preds: Sequence[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """As `BatchedLoss`; masks of images are widened to the canvas that the patches cover."""
        grid = tuple(side >> self.num_upscales for side in all_mask_preds[-1].shape[-2:])
        instances = [
            InstanceData(labels=each.labels, masks=self._on_canvas(each.masks, grid))
            for each in batch_gt_instances
        ]
        return super().loss_by_feat(all_cls_scores, all_mask_preds, instances, batch_img_metas)

    def draw_points(self, *size: int, device: torch.device) -> Tensor:
        """Random points (*size, 2) within [0, 1], those of the iteration."""
        return torch.rand(*size, 2, device=device, generator=self._generator)

    def _last(self, x: Any, metas: Sequence[Mapping[str, Any]]) -> Logits:
        """Logits of the last prediction; masks in the size of the batch."""
        cls_scores, masks = (outputs[-1] for outputs in self(x))
        grid = tuple(side >> self.num_upscales for side in masks.shape[-2:])
        height, width = self._input_size(x, metas, grid)
        canvas = F.interpolate(masks, self._canvas(grid), mode='bilinear', align_corners=False)
        return cls_scores, canvas[..., :height, :width]

    def _logits(self, queries: Tensor, patches: Tensor, grid: Grid) -> Logits:
        maps = patches.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        for block in self.upscale:
            maps = block(maps)
        masks = torch.einsum('bqc,bchw->bqhw', self.mask_embed(queries), maps)
        return self.cls_embed(queries), masks

    def _between(self, joint: JointTokens) -> Logits:
        given = joint.extra, joint.tokens.patches, joint.tokens.grid
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._logits, *given, use_reentrant=False, preserve_rng_state=False)
        return self._logits(*given)

    def _mask(self, mask_logits: Tensor, grid: Grid, keep: float) -> Tensor | None:
        """Patches (B, Q, h*w) that queries attend to; `None` for all."""
        if not keep:
            return None
        mask = attended(mask_logits, grid)
        if keep == 1:
            return mask
        draws = torch.rand(mask.shape[:2], device=mask.device, generator=self._generator)
        return mask | (draws > keep)[..., None]

    def _canvas(self, grid: Grid) -> Grid:
        return tuple(n * side for n, side in zip(grid, self.patch_size, strict=True))

    def _on_canvas(self, masks: Tensor, grid: Grid) -> Tensor:
        """Masks (n, H, W), with zeros below and right where patches reach beyond the images."""
        size = tuple(masks.shape[-2:])
        if not self._covers(grid, size):
            raise ValueError(
                f'The masks are of size {size}, and the images have {grid[0]}x{grid[1]} patches of '
                f'patch_size={self.patch_size}: pad masks with the images, by '
                f'data_preprocessor=dict(pad_mask=True, pad_seg=True) in mmdet'
            )
        (height, width), canvas = size, self._canvas(grid)
        return F.pad(masks, (0, canvas[1] - width, 0, canvas[0] - height))

    def _warn(self) -> None:
        if not self._warned:
            print_log(
                f'{type(self).__name__}: no training by MMEngine runs here, so that the iteration '
                f'is not known: the masks of attention stay on, and what is drawn depends on '
                f"PyTorch's own generator",
                logger='current',
            )
        self._warned = True
