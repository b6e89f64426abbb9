"""The categories of your own COCO files: one list for both splits, with each name once."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_backbones.errors import some


def join_categories(paths: dict[str, Path], contents: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Give the contents of all splits the same categories; yields a line on each that changes.

    They are those to train on, and those to validate on must be among them, under the same ids.
    Categories of one name become one.

    Raises:
        ValueError: If the splits have other categories, or a name has several meanings.
    """
    common = _common(paths, contents)
    used = {a['category_id'] for content in contents.values() for a in content['annotations']}
    by_name = defaultdict(list)
    for each in common:
        by_name[each['name']].append(each)
    merged = {}
    for name, several in by_name.items():
        with_objects = [each for each in several if each['id'] in used]
        kept = (with_objects or several)[0]
        merged |= {each['id']: kept for each in several}
        if len(several) > 1:
            ids = some([each['id'] for each in several])
            _check_meaning(paths['train'], name, with_objects)
            yield f'{paths["train"]}: {len(several)} categories are {name!r} (id {ids}), now one'
    for content in contents.values():
        for each in content['annotations']:
            each['category_id'] = merged[each['category_id']]['id']
        content['categories'] = [each for each in common if merged[each['id']] is each]


def _common(paths: dict[str, Path], contents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The categories to train on, which must have those to validate on under the same ids."""
    categories = contents['train']['categories']
    names = {each['id']: each['name'] for each in categories}
    for each in contents.get('val', {}).get('categories', ()):
        if names.get(each['id']) != each['name']:
            other = f'is {names[each["id"]]!r} in' if each['id'] in names else 'is missing in'
            raise ValueError(
                f'category {each["id"]} is {each["name"]!r} in {str(paths["val"])!r} and {other} '
                f'{str(paths["train"])!r}: give both files the same categories'
            )
    return categories


def _check_meaning(path: Path, name: str, categories: list[dict[str, Any]]) -> None:
    above = sorted({str(each.get('supercategory')) for each in categories})
    if len(above) > 1:
        raise ValueError(
            f'{str(path)!r}: {len(categories)} categories are called {name!r}, of the '
            f'supercategories {", ".join(map(repr, above))}: give each a name of its own'
        )


def odd_categories(content: dict[str, Any]) -> Iterator[str]:
    """Lines on categories without an object to learn, and on names that differ in spelling only."""
    used = {each['category_id'] for each in content['annotations'] if not each['iscrowd']}
    names = [each['name'] for each in content['categories']]
    if empty := [each['name'] for each in content['categories'] if each['id'] not in used]:
        yield (
            f'{len(empty)} of {len(names)} categories have no object to train on '
            f'({some(empty)}): take them out of the file, or add objects'
        )
    spelled = defaultdict(list)
    for name in names:
        spelled[name.strip().casefold()].append(repr(name))
    for alike in spelled.values():
        if len(alike) > 1:
            yield f'{" and ".join(alike)} are several categories: spell alike what is one'
