"""Which objects of a dataset are left once its loading transforms have run, image by image."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.checks.findings import Finding, error, note, warning
from vit_backbones.checks.looks import Look
from vit_backbones.config.datasets import classes_of
from vit_backbones.errors import counted, some

_ASKED = 2000  # entries of a dataset whose objects are looked at before each training
_FEW = 1000  # one empty mask in so many is no line: COCO has some


class Given(NamedTuple):
    """Objects of one image: those that the dataset gives, and why the others are not learned."""

    path: str
    total: int
    ignored: int  # iscrowd, or without a mask that can be loaded
    empty: int  # without a pixel in their mask

    @property
    def learned(self) -> int:
        """Those that are left."""
        return self.total - self.ignored - self.empty


def _ask(loaded: dict[str, Any]) -> Given | None:
    """The objects of an entry of a dataset of mmdet."""
    if 'instances' not in loaded or 'gt_bboxes_labels' not in loaded:
        return None
    total = len(loaded['gt_bboxes_labels'])
    ignored = np.asarray(loaded.get('gt_ignore_flags', np.zeros(total)), dtype=bool)
    empty = _empty(loaded.get('gt_masks'), total) & ~ignored
    return Given(str(loaded.get('img_path')), total, int(ignored.sum()), int(empty.sum()))


def _empty(masks: Any, total: int) -> np.ndarray:
    """Which masks have no pixel; none of them where there are no masks."""
    if masks is None or len(masks) != total:
        return np.zeros(total, dtype=bool)
    if isinstance(bitmaps := masks.masks, np.ndarray):  # (N, H, W)
        return ~bitmaps.any((1, 2))
    return np.asarray(masks.areas) == 0


def _findings(dataset: Any, answers: Sequence[Any], place: str) -> Iterator[Finding]:
    known = [each for each in answers if each is not None]
    if not known:
        return
    given, learned = sum(e.total for e in known), sum(e.learned for e in known)
    source = getattr(dataset, 'ann_file', '')
    if given and not learned:
        ignored = sum(e.ignored for e in known)
        yield error(
            f'{place}: none of {counted(given, "object")} of {source} is left to learn: {ignored} '
            f'are iscrowd or have no mask that can be loaded, {given - ignored} have a mask '
            f'without a pixel'
        )
    elif (lost := sum(e.empty for e in known)) * _FEW > given:
        paths = [each.path for each in known if each.empty]
        yield warning(
            f'{place}: {lost} of {counted(given, "object")} of {source} have a mask without a '
            f'pixel ({some(paths)}): draw them larger, '
            f'or remove them'
        )
    if place.startswith('train_'):
        survey = getattr(dataset, 'coco_survey', None)
        yield kept_note('train', len(known), learned, survey.objects if survey else given)


def kept_note(split: str, images: int, objects: int, listed: int) -> Finding:
    """How many images and objects are trained on."""
    return note(f'{split}: {counted(images, "image")} with {objects} of {listed} objects')


def instance_findings(dataset: Any, place: str, *, whole: bool = True) -> Iterator[Finding]:
    """Whether the objects of a dataset of mmdet have labels of its classes, by the first entries.

    Datasets with a `coco_survey` have findings of their own. `whole` says that the split has no
    other dataset, which might have the objects that this one lacks.
    """
    classes = classes_of(dataset)
    if not classes or hasattr(dataset, 'coco_survey') or not hasattr(dataset, 'proposal_file'):
        return
    infos = [dataset.get_data_info(index) for index in range(min(len(dataset), _ASKED))]
    listed = [each for info in infos for each in info.get('instances', ())]
    labels = {each['bbox_label'] for each in listed if 'bbox_label' in each}
    if any('instances' in info for info in infos) and not listed:
        first = f'the {"first " * (len(dataset) > _ASKED)}{counted(len(infos), "image")}'
        yield error(
            f'{place}: no object of its classes ({some(map(repr, classes))}) in {first} of '
            f'{dataset.ann_file}: spell them as the annotations do'
        )
    else:
        seen = len(dataset) <= _ASKED and whole and place.startswith('train_') and bool(listed)
        yield from _label_findings(dataset, labels, classes, place, seen=seen)


def _label_findings(
    dataset: Any, labels: set[int], classes: Sequence[str], place: str, *, seen: bool
) -> Iterator[Finding]:
    """Labels without a class; and if all objects were `seen`, classes without one."""
    number = counted(len(classes), 'class')
    if wrong := [each for each in labels if not 0 <= each < len(classes)]:
        yield error(
            f'{place}: an object of {dataset.ann_file} has label {wrong[0]}, but labels of '
            f'{number} run from 0 to {len(classes) - 1}: name all classes'
        )
        return
    unseen = [name for label, name in enumerate(classes) if label not in labels]
    if seen and unseen:
        yield warning(
            f'{place}: {dataset.ann_file} has no object of {len(unseen)} of {number} '
            f'({some(map(repr, unseen))}): never learned; spell them as the annotations do, or '
            f'leave them out'
        )


OBJECTS = Look(_ask, _findings)
