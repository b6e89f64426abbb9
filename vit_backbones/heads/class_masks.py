"""A mask for each class that is in a label map, of a whole batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vit_backbones.devices import upload


def class_masks(
    maps: Sequence[Tensor], classes: range, ignore_index: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Classes (n,) of each label map (1, H, W), ascending, and their masks (n, H, W).

    Labels outside `classes` have none. A GPU is waited for once a batch, not for each class.

    Args:
        maps: Label maps of one size.
        classes: Those that count.
        ignore_index: If given, the only label that may lie outside `classes`.

    Raises:
        ValueError: A map has another label.
    """
    stacked = torch.stack(tuple(maps)).flatten(1).long()  # (B, H * W)
    count = len(classes)
    outside = (stacked < classes.start) | (stacked >= classes.stop)
    places = (stacked - classes.start).masked_fill(outside, count)
    if ignore_index is not None:
        places = places.masked_fill(stacked == ignore_index, count + 1)
    present = torch.zeros(len(maps), count + 2, dtype=torch.bool, device=stacked.device)
    on_host = np.from_dlpack(present.scatter_(1, places, True).cpu().byte())
    if ignore_index is not None and on_host[:, count].any():
        label = int(stacked[places == count][0])
        raise ValueError(
            f'A label map has the label {label}, which is neither in 0 to {classes.stop - 1} nor '
            f'ignore_index={ignore_index}; num_classes={count} is too small, or the labels start '
            f'at 1 (reduce_zero_label).'
        )
    found = [np.flatnonzero(row[:count]) + classes.start for row in on_host]
    labels = upload(np.concatenate(found), stacked.device).split([len(each) for each in found])
    return [(own, each == own[:, None, None]) for each, own in zip(maps, labels, strict=True)]
