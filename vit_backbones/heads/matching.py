"""Objects and queries of a whole batch, matched by Mask2Former's costs for all outputs at once."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.task_modules.assigners import (
    ClassificationCost,
    CrossEntropyLossCost,
    DiceCost,
)
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vit_backbones.devices import upload


class Objects(NamedTuple):
    """The N objects of a batch in one row, those of the first image first.

    Attributes:
        counts: How many each of the B images has.
        labels: Classes (N,).
        masks: Masks (N, H, W), of the type they were given in.
        slots: Places (N,) in a table of B rows, each as long as the largest count.
    """

    counts: list[int]
    labels: Tensor
    masks: Tensor
    slots: Tensor

    @classmethod
    def of(cls, instances: Sequence[InstanceData]) -> 'Objects':
        """Ground truth as mmdet gives it, `labels` (n,) and `masks` (n, H, W) an image."""
        counts = [len(each.labels) for each in instances]
        labels, masks = zip(*((each.labels, each.masks) for each in instances), strict=True)
        most, device = max(counts), labels[0].device
        slots = [torch.arange(i * most, i * most + n, device=device) for i, n in enumerate(counts)]
        return cls(counts, torch.cat(labels).long(), torch.cat(masks), torch.cat(slots))

    def table(self, rows: Tensor) -> Tensor:
        """Rows (N, ...) of the objects as (B, most, ...), filled up with zeros."""
        most = max(self.counts)
        empty = rows.new_zeros(len(self.counts) * most, *rows.shape[1:])
        return empty.index_copy_(0, self.slots, rows).view(-1, most, *rows.shape[1:])


class Pairs(NamedTuple):
    """Matched queries and objects of every output, (outputs, M) each, M the same for all.

    Attributes:
        queries: Which of the B * Q queries, ascending.
        objects: Which of the N objects.
    """

    queries: Tensor
    objects: Tensor

    def of_objects(self, count: int) -> Tensor:
        """Which of the M pairs each of N objects is in, (outputs, N); the first if in none."""
        pairs = torch.arange(self.objects.shape[1], device=self.objects.device)
        first = self.objects.new_zeros(len(self.objects), count)
        return first.scatter_(1, self.objects, pairs.expand_as(self.objects))


def _cross_entropy(cost: CrossEntropyLossCost, preds: Tensor, masks: Tensor) -> Tensor:
    # of a logit x and a mask m: softplus(x) - x * m
    entropies = F.softplus(preds).sum(-1, keepdim=True) - torch.bmm(preds, masks.mT)
    return entropies / preds.shape[-1]


def _dice(cost: DiceCost, preds: Tensor, masks: Tensor) -> Tensor:
    preds = preds.sigmoid() if cost.pred_act else preds
    overlaps = torch.bmm(preds, masks.mT)
    if not cost.naive_dice:
        preds, masks = preds.square(), masks.square()
    areas = preds.sum(-1, keepdim=True) + masks.sum(-1)[:, None]
    return 1 - (2 * overlaps + cost.eps) / (areas + cost.eps)


_OF_MASKS: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    CrossEntropyLossCost: _cross_entropy,
    DiceCost: _dice,
}
COSTS = (ClassificationCost, *_OF_MASKS)


def match_costs(
    costs: Sequence[Any],
    cls_scores: Tensor,
    mask_preds: Sequence[Tensor],
    objects: Objects,
    places: Tensor,
) -> Tensor:
    """What it costs to match a query to an object: (outputs, B, Q, most), beyond the counts void.

    Args:
        costs: Costs of mmdet, of the types in `COSTS`.
        cls_scores: Logits (outputs, B, Q, classes + 1) in fp32.
        mask_preds: Logits (B, Q, h, w) of each output.
        objects: N objects.
        places: Where masks are compared, (outputs, B, P, 2), as `sample` takes them.
    """
    weight = sum(each.weight for each in costs if type(each) is ClassificationCost)
    labels = objects.table(objects.labels)[:, None].expand(*cls_scores.shape[:3], -1)
    total = -weight * cls_scores.softmax(-1).gather(-1, labels)
    rest = [each for each in costs if type(each) in _OF_MASKS]
    if rest:
        sampled = zip(mask_preds, places, _sample_objects(objects, places), strict=True)
        total = total + torch.stack([_mask_costs(rest, objects, *each) for each in sampled])
    return total


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Values (N, C, P) of maps (N, C, h, w) at places (N, P, 2) within [-1, 1], bilinear."""
    return F.grid_sample(maps, places[:, :, None], align_corners=False).squeeze(3)


def _sample_objects(objects: Objects, places: Tensor) -> Sequence[Tensor]:
    """Values (N, P) of the objects' masks for each output, at the places of their images."""
    images = objects.slots // max(objects.counts)
    own = places.transpose(0, 1).flatten(1, 2).index_select(0, images)  # (N, outputs * P, 2)
    return sample(objects.masks[:, None].float(), own).view(len(own), len(places), -1).unbind(1)


def _mask_costs(
    costs: Sequence[Any], objects: Objects, preds: Tensor, places: Tensor, sampled: Tensor
) -> Tensor:
    """Sum (B, Q, most) of the costs of masks for one output."""
    logits, masks = sample(preds.float(), places), objects.table(sampled)
    return sum(each.weight * _OF_MASKS[type(each)](each, logits, masks) for each in costs)


def match(costs: Tensor, counts: Sequence[int]) -> Pairs:
    """The pairs of least cost, for costs (outputs, B, Q, most) on any device.

    The only two waits for a GPU are here: the costs go to the host, the pairs come back.
    """
    on_host = np.from_dlpack(costs.cpu())
    threads = min(len(costs), os.cpu_count() or 1)  # scipy's matching runs without Python's lock
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(partial(_match_output, counts=counts), range(len(costs)), on_host))
    return Pairs(*upload(np.stack(found, axis=1), costs.device).unbind())


def _match_output(output: int, costs: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Queries and objects (2, M) of one output, whose costs are (B, Q, most)."""
    pairs, first = [], 0
    for image, count in enumerate(counts):
        try:
            query, target = linear_sum_assignment(costs[image, :, :count])
        except ValueError as error:
            raise ValueError(
                f'Queries and objects cannot be matched at output {output}, image {image}, '
                f'{_not_finite(costs[image, :, :count])}: {error}. The predictions are infinite or '
                f'NaN: lower the learning rate, or train in bf16 or fp32 if it was fp16.'
            ) from error
        pairs.append((query + image * costs.shape[1], target + first))
        first += count
    return np.concatenate(pairs, axis=1)


def _not_finite(costs: np.ndarray) -> str:
    return f'where {(~np.isfinite(costs)).sum()} of {costs.size} costs are not finite'
