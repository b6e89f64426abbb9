"""Whether mmdet gives each category of a COCO file the label of the class of its name.

`CocoDataset` numbers the categories of `classes` in the order of the file, not of `classes`.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.errors import counted, some

_NAMED = 3  # names in a line
_SHORT = 10  # classes that are all written out


class Category(NamedTuple):
    """A category of a COCO file, and the number of its objects there."""

    id: Any
    name: str
    objects: int


def name_findings(
    place: str,
    path: str,
    categories: Sequence[Category],
    labels: Mapping[Any, int],
    classes: Sequence[str],
    *,
    stops: bool,
) -> Iterator[Finding]:
    """Compare the labels of categories with the classes whose labels these are.

    Args:
        place: The dataset's place in the config.
        path: The COCO file.
        categories: Those of the file, in its order.
        labels: The label that the dataset gives, by a category's id.
        classes: The dataset's classes, by label.
        stops: Whether a wrong label is an error, as in a training, or a warning.
    """
    classes, listed = list(classes), [each.name for each in categories]
    named = [each for each in categories if each.id in labels]
    wrong = [each for each in named if classes[labels[each.id] :][:1] != [each.name]]
    doubled = [name for name, times in Counter(each.name for each in named).items() if times > 1]
    unknown = [name for name in classes if name not in listed]
    effect = _effect(wrong, labels, classes)
    use = 'learned' if place.startswith('train') else 'measured'
    if doubled:
        ids = ', '.join(str(each.id) for each in named if each.name == doubled[0])
        text = (
            f'{place}: {path} has several categories of the name {doubled[0]!r} (ids {ids}), and '
            f'each gets a label of its own{effect}; merge them: one id a name'
        )
    elif unknown:
        text = (
            f'{place}.metainfo.classes has {some(map(repr, unknown), 5)}, which {path} does not '
            f'list as categories ({some(map(repr, listed), 5)}): these are never {use}{effect}; '
            f'spell them alike'
        )
    elif wrong:
        order = f'metainfo.classes={tuple(each.name for each in named)}'
        fix = order if len(named) <= _SHORT else 'the classes in that order'
        text = f'{place}: labels follow the order of the categories in {path}{effect}; write {fix}'
    else:
        return
    yield (error if stops else warning)(text)


def unused_findings(
    place: str,
    path: str,
    categories: Sequence[Category],
    labels: Mapping[Any, int],
    learned: Container[str],
) -> Iterator[Finding]:
    """Classes that are not `learned` from any file, and objects of other categories."""
    empty = [each.name for each in categories if each.id in labels and each.name not in learned]
    if empty:
        number = f'{len(empty)} of {len(labels)} classes' if len(labels) > 1 else 'the class'
        yield warning(
            f'{place}: {path} has no object of {number} ({some(map(repr, empty))}): never learned; '
            f'add objects, or leave them out'
        )
    other = [each for each in categories if each.id not in labels and each.objects]
    if other:
        number = counted(sum(each.objects for each in other), 'object')
        yield warning(
            f'{place}: {number} of {path} not learned, since metainfo.classes lacks their '
            f'categories ({some(repr(each.name) for each in other)})'
        )


def _effect(wrong: Sequence[Category], labels: Mapping[Any, int], classes: Sequence[str]) -> str:
    """`, so that ...`: which category gets which label."""
    if not wrong:
        return ''
    owners = {label: f'counts as {name!r}' for label, name in enumerate(classes)}
    gets = [
        f'{each.name!r} ({counted(each.objects, "object")}) '
        f'{owners.get(label := labels[each.id], f"gets label {label}, which no class has")}'
        for each in wrong[:_NAMED]
    ]
    more = f', and {len(wrong) - _NAMED} more are wrong' if len(wrong) > _NAMED else ''
    return f', so that {", ".join(gets)}{more}'
