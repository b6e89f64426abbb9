"""Questions to each loaded image of a dataset, and what the answers of all of them show."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vit_backbones.checks.findings import Finding


class Look(NamedTuple):
    """One question.

    Attributes:
        ask: Called with an entry of the dataset after its loading transforms (`img`, `height`,
            `gt_bboxes_labels`, `gt_seg_map`, ...); gives a small value. It runs in threads.
        findings: Called with the dataset, the answers for all images in order, and the dataset's
            place in the config.
    """

    ask: Callable[[dict[str, Any]], Any]
    findings: Callable[[Any, Sequence[Any], str], Iterator[Finding]]
