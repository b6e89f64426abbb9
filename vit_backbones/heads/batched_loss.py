"""Mask2Former's losses, of all outputs and images of a batch at once."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from vit_backbones.heads.matching import Objects, Pairs, match, match_costs, sample
from vit_backbones.heads.unbatched import why_unbatched
from vit_backbones.heads.without_waits import without_waits

_EPS = torch.finfo(torch.float32).eps  # as mmdet adds to what it divides by


class BatchedLoss(nn.Module):
    """Mixin: mmdet's Mask2Former head with the same losses, by few operators and without waits.

    The forward pass follows `without_waits`. In the loss, for every output and image, mmdet samples
    points, computes costs, matches on the host and gathers masks, and a GPU waits each time. Here
    all outputs and images share one tensor of costs and one copy to the host and back. Masks stay
    as they are until they are sampled. Costs, samples and losses are in fp32 under autocast too, as
    in the code of the paper.

    Where costs, assigner, sampler, losses or methods are not those of Mask2Former, the loss is
    mmdet's, and one line in the log names why.
    """

    _why_unbatched: str | None = None  # '' if it is batched, None until the first loss
    _class_weights: Tensor | None = None  # no buffer: those change with the model's precision

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        without_waits(self)

    def loss_by_feat(
        self,
        all_cls_scores: Sequence[Tensor],
        all_mask_preds: Sequence[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Losses by name, those of the last output first.

        Args:
            all_cls_scores: Logits (B, Q, classes + 1) of each output.
            all_mask_preds: Logits (B, Q, h, w) of each output.
            batch_gt_instances: `labels` (n,) and `masks` (n, H, W) of each image, masks of any
                type.
            batch_img_metas: Of each image; not used.
        """
        if self.is_unbatched():
            return super().loss_by_feat(
                all_cls_scores, all_mask_preds, batch_gt_instances, batch_img_metas
            )
        objects = Objects.of(batch_gt_instances)
        with torch.autocast(objects.labels.device.type, enabled=False):
            cls_scores = torch.stack(tuple(all_cls_scores)).float()
            pairs = self._match(cls_scores, all_mask_preds, objects)
            entropy, dice = self._mask_losses(all_mask_preds, objects, pairs)
            return _by_output(self._class_losses(cls_scores, objects, pairs), entropy, dice)

    def draw_points(self, *size: int, device: torch.device) -> Tensor:
        """Random points (*size, 2) within [0, 1]: all that is random in the loss."""
        return torch.rand(*size, 2, device=device)

    def is_unbatched(self) -> bool:
        """Whether the loss is mmdet's, which the log explains the first time."""
        if self._why_unbatched is None:
            self._why_unbatched = why_unbatched(self)
            if self._why_unbatched:
                print_log(
                    f"{type(self).__name__} computes mmdet's loss, one image after the other, "
                    f'which is slower on a GPU: {self._why_unbatched}',
                    logger='current',
                )
        return bool(self._why_unbatched)

    @torch.no_grad()
    def _match(self, cls_scores: Tensor, mask_preds: Sequence[Tensor], objects: Objects) -> Pairs:
        if not sum(objects.counts):
            return Pairs(*objects.slots.new_empty(2, len(cls_scores), 0))
        size = len(cls_scores), len(objects.counts), self.num_points
        places = self.draw_points(*size, device=cls_scores.device) * 2 - 1
        costs = match_costs(self.assigner.match_costs, cls_scores, mask_preds, objects, places)
        return match(costs, objects.counts)

    def _class_losses(self, cls_scores: Tensor, objects: Objects, pairs: Pairs) -> Tensor:
        """Loss of each output; a query without an object learns the last class."""
        scores = cls_scores.flatten(1, 2)  # (outputs, B * Q, classes + 1)
        labels = pairs.queries.new_full(scores.shape[:2], self.num_classes)
        labels.scatter_(1, pairs.queries, objects.labels[pairs.objects])
        weights = self._weights(scores.device)
        ignored = self.loss_cls.ignore_index
        entropies = F.cross_entropy(
            scores.flatten(0, 1),
            labels.flatten(),
            weights,
            ignore_index=-100 if ignored is None else ignored,
            reduction='none',
        )
        mean = entropies.view_as(labels).sum(1) / (weights[labels].sum(1) + _EPS)
        return self.loss_cls.loss_weight * mean

    def _weights(self, device: torch.device) -> Tensor:
        """Weights of the classes; copied to the device once."""
        if self._class_weights is None or self._class_weights.device != device:
            with torch.inference_mode(False):  # a loss after this one may have gradients
                self._class_weights = torch.tensor(self.class_weight, device=device).float()
        return self._class_weights

    def _mask_losses(
        self, mask_preds: Sequence[Tensor], objects: Objects, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and dice loss of each output, at points where predictions are uncertain."""
        found = sum(max(min(count, self.num_queries), 1) for count in objects.counts)
        num_masks = pairs.queries.new_full((), found, dtype=torch.float32)
        num_masks = reduce_mean(num_masks).clamp(min=1)
        if not pairs.queries.shape[1]:
            nothing = torch.stack([each[:, :0].float().sum() for each in mask_preds])
            return nothing, nothing
        masks = objects.masks[:, None].float()
        rows = zip(mask_preds, *pairs, pairs.of_objects(len(masks)), strict=True)
        sampled = [self._sample(each, masks, *indices) for each, *indices in rows]
        preds, targets = map(torch.stack, zip(*sampled, strict=True))  # (outputs, M, P)
        entropies = F.binary_cross_entropy_with_logits(preds, targets, reduction='none')
        rows = preds.flatten(0, 1), targets.flatten(0, 1)
        dice = self.loss_dice(*rows, reduction_override='none').view(len(preds), -1)
        entropy = self.loss_mask.loss_weight * entropies.flatten(1).sum(1)
        return entropy / (num_masks * self.num_points + _EPS), dice.sum(1) / (num_masks + _EPS)

    def _sample(
        self, preds: Tensor, masks: Tensor, queries: Tensor, objects: Tensor, owners: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and values (M, P) of the matched masks of one output."""
        logits = preds.flatten(0, 1).index_select(0, queries)[:, None].float()
        with torch.no_grad():
            places = self._uncertain_places(logits)
            # in the order of the objects and back: masks are larger than places
            values = sample(masks, places.index_select(0, owners)).squeeze(1)
        return sample(logits, places).squeeze(1), values.index_select(0, objects)

    def _uncertain_places(self, logits: Tensor) -> Tensor:
        """Places (M, P, 2): of many random ones where logits (M, 1, h, w) are near 0, and others.

        As mmdet's `get_uncertain_point_coords_with_randomness`.
        """
        many = int(self.num_points * self.oversample_ratio)
        num_uncertain = int(self.importance_sample_ratio * self.num_points)
        others = self.num_points - num_uncertain
        drawn = self.draw_points(len(logits), many + others, device=logits.device) * 2 - 1
        first, rest = drawn.split([many, others], dim=1)
        nearness = -sample(logits, first).squeeze(1).abs()
        best = nearness.topk(num_uncertain, dim=1, sorted=False).indices
        return torch.cat([first.gather(1, best[..., None].expand(-1, -1, 2)), rest], dim=1)


def _by_output(cls: Tensor, mask: Tensor, dice: Tensor) -> dict[str, Tensor]:
    """Losses (outputs,) by mmdet's names and in its order."""
    *earlier, last = zip(cls.unbind(), mask.unbind(), dice.unbind(), strict=True)
    prefixes = ['', *(f'd{output}.' for output in range(len(earlier)))]
    return {
        f'{prefix}loss_{name}': loss
        for prefix, losses in zip(prefixes, [last, *earlier], strict=True)
        for name, loss in zip(('cls', 'mask', 'dice'), losses, strict=True)
    }
