"""Your own COCO file as mmdet and pycocotools need it: mended where that is safe, or refused."""

from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from vit_backbones.errors import counted, some
from vit_backbones.files import parsed
from vit_backbones.objects import Survey, survey_of
from vit_backbones.objects.survey import column_of

_LISTS = ('images', 'annotations', 'categories')


def mended(
    path: Path, content: dict[str, Any], *, with_masks: bool, measured: bool, takes_rle: bool
) -> tuple[dict[str, Any], int, list[str]]:
    """The content of a COCO file with only the objects that mmdet takes, their number before.

    The options are those of `survey_of`, and `path` is for messages. Images are in the order of
    their names, categories in that of their ids. Behind these two are warnings.

    Raises:
        ValueError: If it holds mistakes that cannot be mended.
    """
    warnings = []
    content['annotations'] = _completed(content['annotations'], warnings.append)
    problems, survey = survey_of(
        content, classes=None, with_masks=with_masks, measured=measured, takes_rle=takes_rle
    )
    for problem in problems:
        if problem.stops:
            raise ValueError(f'{str(path)!r}: {problem.text}')
        warnings.append(problem.text)
    _check_categories(path, survey)
    kept = survey.joins & ~survey.narrow & ~survey.outside
    whole = dict(
        info=content.get('info') or {},
        images=sorted(content['images'], key=lambda image: image['file_name']),
        annotations=list(compress(content['annotations'], kept)),
        categories=[
            dict(each, name=str(each['name']))
            for each in sorted(content['categories'], key=lambda category: category['id'])
        ],
    )
    return whole, survey.number, warnings


def _check_categories(path: Path, survey: Survey) -> None:
    text = [each['id'] for each in survey.categories if isinstance(each['id'], str)]
    if text:
        raise ValueError(f'{str(path)!r}: category id {text[0]!r} is text: write it as a number')
    unknown = ~survey.of_classes
    if unknown.any():
        number = counted(int(np.count_nonzero(unknown)), 'annotation')
        first = survey.annotations[unknown.argmax()]['category_id']
        raise ValueError(
            f'{str(path)!r}: {number} of category_id {first!r}, '
            f'which is not among the {len(survey.categories)} categories: add it to them'
        )


def parsed_coco(path: Path) -> dict[str, Any]:
    """The content of a COCO file; a `ValueError` if it is none."""
    try:
        content = parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{str(path)!r} cannot be read as JSON ({error})') from error
    for name in _LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f'{str(path)!r} is no COCO file: it has no list of {name!r}; it takes '
                f'{", ".join(map(repr, _LISTS))}'
            )
    return content


def _completed(annotations: Sequence[Any], say: Callable[[str], None]) -> list[Any]:
    """The annotations with ids, `iscrowd` and areas; those of a wrong form stay as they are."""
    if not all(isinstance(each, dict) for each in annotations):
        return list(annotations)
    ids = column_of(annotations, 'id')
    if None in ids or len(set(map(str, ids))) < len(ids):
        annotations = [each | dict(id=i) for i, each in enumerate(annotations, start=1)]
    complete, areas, crowds = [], [], []
    for each in annotations:
        area, given = _area(each.get('bbox')), each.get('area')
        changes = dict(iscrowd=each.get('iscrowd') or 0)
        if given is None or (area > 0 and given in (0, 0.0)):
            changes['area'] = area
            areas += [] if given is None else [each['id']]
        if each.get('ignore') and not changes['iscrowd']:
            changes['iscrowd'] = 1
            crowds.append(each['id'])
        complete.append(each | changes)
    for found, what in (
        (areas, 'area 0 get the area of their box'),
        (crowds, 'ignore=1 get iscrowd=1, so that neither training nor tests count them'),
    ):
        if found:
            say(f'{len(found)} of {len(complete)} annotations with {what} (id {some(found)})')
    return complete


def _area(box: Any) -> float:
    whole = isinstance(box, list) and len(box) == 4 and {*map(type, box)} <= {int, float}
    return box[2] * box[3] if whole else 0
