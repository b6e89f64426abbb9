"""Mistakes in a COCO file, and what they leave to learn."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from vit_backbones.errors import counted, some
from vit_backbones.objects.outlines import broken_masks, odd_masks
from vit_backbones.objects.survey import (
    GONE,
    NUMBERS,
    ROUNDING,
    Kind,
    Problem,
    Survey,
    column_of,
    problem_of,
    taken,
)

_FEW = 1000  # one odd box in so many is no line: COCO has some
_CORNERS = 1 / 3  # boxes that leave the image if they are two corners, at least
_MOST = 1 / 2  # boxes that leave the image if their scale is another, at least
_IDS = {int, float, str}
_FLAG = {int, bool, float, type(None)}
# Types of the keys that mmdet and pycocotools read and that have no default
_KEYS = {
    'images': dict(id=_IDS, file_name={str}, height=NUMBERS, width=NUMBERS),
    'categories': dict(id=_IDS, name=_IDS),
    'annotations': dict(id=_IDS, image_id=_IDS, category_id=_IDS, bbox={list}, area=NUMBERS)
    | dict(iscrowd=_FLAG, ignore=_FLAG),
}
_SIZE = 'give each image the height and width of its file in pixels'
_ADVICE = {
    'height': _SIZE,
    'width': _SIZE,
    'area': 'give each object its area in pixels, of the mask or of the box',
    'bbox': 'give each object its box [x, y, width, height] in pixels',
}


class Kept(NamedTuple):
    """How many images and objects are left to learn."""

    images: int
    objects: int


def survey_of(
    content: dict[str, Any],
    *,
    classes: Sequence[str] | None,
    with_masks: bool,
    measured: bool,
    takes_rle: bool,
) -> tuple[list[Problem], Survey | None]:
    """Mistakes in the images and objects of a COCO file, and its survey.

    Args:
        content: The parsed JSON, of boxes or masks.
        classes: Names of the categories to learn, all of them for `None`.
        with_masks: Masks are learned or measured too.
        measured: pycocotools measures with this file, so that it must take each object.
        takes_rle: Masks may be RLE; those of `LoadAnnotations(poly2mask=False)` may not.

    Returns:
        The mistakes; the survey, `None` for a file that lacks lists or keys.
    """
    columns: dict[str, list[Any]] = {}
    if incomplete := list(_incomplete(content, columns)):
        return incomplete, None
    survey = Survey(content, classes, with_masks, takes_rle, columns)
    return list(_problems(survey, measured)), survey


def _problems(survey: Survey, measured: bool) -> Iterator[Problem]:
    yield from _elsewhere(survey)
    for check in (_joins(survey), _broken(survey, measured), _other_form(survey)):
        found = list(check)
        yield from found
        if any(each.stops for each in found):
            return
    yield from _left_out(survey)


def _elsewhere(survey: Survey) -> Iterator[Problem]:
    """Images that a path leads to from outside their folder, as those of linked data sets are."""
    paths = column_of(survey.images, 'file_name')
    below = f'..{os.sep}'
    wrong = np.array([os.path.isabs(p) or os.path.normpath(p).startswith(below) for p in paths])
    if wrong.any():
        first = paths[wrong.argmax()]
        then = f'{first!r} is the first; they are read from there: see that you want that'
        what = 'lie outside the folder of the images'
        yield problem_of(survey.images, wrong, what, then, name='images', stops=False)


def kept_of(
    survey: Survey, filter_cfg: dict[str, Any] | None, indices: int | Sequence[int] | None
) -> Kept:
    """What mmdet's `CocoDataset` trains on, of a file without a problem that stops.

    `filter_cfg` and `indices` are those of the dataset.
    """
    filters = filter_cfg or {}
    kept = np.full(len(survey.images), not filters.get('filter_empty_gt', False))
    kept[survey.image[survey.joins & survey.of_classes]] = True
    shorter = np.array([min(image['width'], image['height']) for image in survey.images])
    places = np.flatnonzero(kept & (shorter >= filters.get('min_size', 0)))
    places = places[taken(len(places), indices)]
    objects = np.bincount(survey.image[survey.learned], minlength=len(kept))
    return Kept(len(places), int(objects[places].sum()))


def _incomplete(content: dict[str, Any], columns: dict[str, list[Any]]) -> Iterator[Problem]:
    """Lists and keys that are missing or of another type; `columns` gets those of annotations."""
    for name, keys in _KEYS.items():
        entries = content.get(name)
        if not isinstance(entries, list) or not entries:
            yield Problem(True, f'no {name}: nothing to learn or to measure')
        elif strange := [each for each in entries if not isinstance(each, dict)]:
            yield Problem(True, f'{strange[0]!r} is among {name}, which are dicts: remove it')
        else:
            for key, kinds in keys.items():
                values = column_of(entries, key)
                if name == 'annotations':
                    columns[key] = values
                if not set(map(type, values)) <= kinds:
                    wrong = np.array([type(value) not in kinds for value in values])
                    value = values[wrong.argmax()]
                    yield problem_of(
                        entries,
                        wrong,
                        f'without {key}' if value is None else f'with {value!r} as {key}',
                        _ADVICE.get(key, f'give each its {key}'),
                        name=name,
                        stops=True,
                    )


def _joins(survey: Survey) -> Iterator[Problem]:
    """Ids that stand for several, and objects of no image or no category."""
    for name in ('images', 'categories', 'annotations'):
        ids = column_of(getattr(survey, name), 'id')
        if len(set(ids)) < len(ids):
            doubled = [each for each, times in Counter(ids).items() if times > 1]
            text = f'{counted(len(doubled), "id")} of several {name} ({some(doubled)})'
            yield Problem(True, f'{text}: number the {name} anew')
    for name, key in (('images', 'image_id'), ('categories', 'category_id')):
        known = {entry['id'] for entry in getattr(survey, name)}
        given = survey.column(key)
        if not known.issuperset(given):
            unknown = np.array([each not in known for each in given])
            yield _unknown(survey, unknown, name, key, known)


def _unknown(survey: Survey, unknown: np.ndarray, name: str, key: str, known: set[Any]) -> Problem:
    first = survey.annotations[unknown.argmax()][key]
    same = next((each for each in known if str(each) == str(first)), None)
    if same is not None:
        what = f'whose {key} is {_typed(first)}, where the id of {name} is {_typed(same)}'
        return survey.problem(unknown, what, 'write both as numbers', stops=True)
    what = f'whose {key} is none of the {len(known)} {name}, such as {first!r}'
    return survey.problem(unknown, what, f'nothing learns them; add these {name} or correct {key}')


def _typed(value: Any) -> str:
    return f'text ({value!r})' if isinstance(value, str) else f'a number ({value!r})'


def _broken(survey: Survey, measured: bool) -> Iterator[Problem]:
    """Numbers and masks on which mmdet or pycocotools fail."""
    small = np.array([not min(i['width'], i['height']) >= 1 for i in survey.images])
    if small.any():
        what = 'with a height or width below 1'
        yield problem_of(survey.images, small, what, _SIZE, name='images', stops=True)
    if not survey.whole.all():
        what = f'with a bbox such as {survey.annotations[survey.whole.argmin()]["bbox"]}'
        yield survey.problem(~survey.whole, what, _ADVICE['bbox'], stops=True)
    if not np.isfinite(survey.area).all():
        wrong = ~np.isfinite(survey.area)
        yield survey.problem(wrong, 'whose area is no finite number', _ADVICE['area'], stops=True)
    crowd = survey.column('iscrowd')
    if not {0, 1, None}.issuperset(crowd) or (measured and None in crowd):
        wrong = np.array([each not in ((0, 1) if measured else (0, 1, None)) for each in crowd])
        what = 'without iscrowd of 0 or 1'
        yield survey.problem(wrong, what, 'pycocotools fails; add iscrowd=0', stops=True)
    if survey.with_masks:
        yield from broken_masks(survey, measured)


def _other_form(survey: Survey) -> Iterator[Problem]:
    """Boxes that look like fractions of the image, like two corners, or of another scale."""
    joins, corners = survey.joins, survey.boxes[:, 2:]
    leaving = np.mean(survey.leaving[joins])
    fits = (corners > survey.boxes[:, :2]) & (corners <= survey.sides + ROUNDING)
    if survey.boxes[joins].max() <= 1 and survey.sides[joins].max() > 2:
        what, then = 'with all of bbox on 0-1', 'multiply by the width and height of the image'
    elif leaving > _CORNERS and fits[joins].all():
        what, then = 'whose bbox looks like [x1, y1, x2, y2]', 'subtract x1 from x2 and y1 from y2'
    elif leaving > _MOST:
        what = 'whose box leaves the image'
        then = 'give the boxes and the sizes of images in the pixels of the same files'
        joins = survey.leaving
    else:
        return
    yield survey.problem(joins, what, then, stops=True)


def _left_out(survey: Survey) -> Iterator[Problem]:
    """Objects that mmdet does not learn, or not as they are meant."""
    if not survey.of_classes.any():
        names = [str(category['name']) for category in survey.categories]
        wanted = some(survey.classes or ())
        yield Problem(True, f'no object is of the classes {wanted}, but of {some(names)}')
        return
    reasons = []
    for kind in chain(_odd_boxes(survey), odd_masks(survey) if survey.with_masks else ()):
        count = int(np.count_nonzero(kind.wrong))
        if count > kind.tolerated * survey.number / _FEW:
            yield survey.problem(kind.wrong, kind.what, kind.then)
            reasons.append(f'{count} {kind.what}')
            if count == survey.number:
                return
    if not survey.learned.any():
        crowd = int(np.count_nonzero(survey.crowd))
        reasons += [f'{crowd} with iscrowd=1'] if crowd else []
        text = f'none of {counted(survey.number, "annotation")} is learned: {", ".join(reasons)}'
        yield Problem(True, text)


def _odd_boxes(survey: Survey) -> Iterator[Kind]:
    lost, again = survey.outside & survey.joins, f'{GONE}; correct their bbox'
    yield Kind(lost, 'whose box is outside the image', again)
    yield Kind(survey.leaving & ~lost, 'whose box leaves the image', 'correct their bbox', True)
    yield Kind(survey.narrow, 'whose box is narrower than 1 pixel', again, True)
    yield Kind(survey.areas_gone, 'with area 0', f'{GONE}; {_ADVICE["area"]}')
    hidden = survey.ignored & ~survey.crowd
    yield Kind(hidden, 'with ignore=1', f'{GONE}, and pycocotools measures them; set iscrowd=1')
    if survey.crowd.all():
        yield Kind(survey.crowd, 'with iscrowd=1', 'nothing is learned; set 0 for single objects')
