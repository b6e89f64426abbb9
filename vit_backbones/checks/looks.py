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
        split_findings: Called once, with such pairs (dataset, answers) of all datasets of a split,
            and its place in the config.
    """

    ask: Callable[[dict[str, Any]], Any]
    findings: Callable[[Any, Sequence[Any], str], Iterator[Finding]]
    split_findings: Callable[[Sequence[tuple[Any, Sequence[Any]]], str], Iterator[Finding]] = (
        lambda leaves, place: iter(())
    )
