"""Checks of the data: folders and files of a config, images and labels of a built dataset."""

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from vit_backbones.bits import check_whole
from vit_backbones.checks.coco_files import coco_findings, has_broken_file
from vit_backbones.checks.findings import Finding, error
from vit_backbones.checks.label_maps import LABEL_MAPS, sample_findings
from vit_backbones.checks.listed_files import missing_findings, named_keys
from vit_backbones.checks.listed_sizes import SIZES
from vit_backbones.checks.looks import Look
from vit_backbones.checks.objects_given import OBJECTS, instance_findings
from vit_backbones.checks.pixels import PIXELS
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.config.emptied import why_empty
from vit_backbones.config.facts import Facts
from vit_backbones.errors import counted, one_line
from vit_backbones.terminal import progress

# Each sees every loaded image
LOOKS: tuple[Look, ...] = (
    SIZES,
    OBJECTS,
    LABEL_MAPS,
    PIXELS,
)
FILES = ('img_path', 'seg_map_path')  # of an entry
_SAMPLED = 16  # images of which only the size is asked


def drawn_findings(facts: Facts) -> Iterator[Finding]:
    """Whether the built-in data are drawn in the folder that the datasets read."""
    root = facts.builtin_data.get('root', 'data/shapes')
    for split, datasets in facts.datasets.items():
        for place, dataset in datasets:
            read = dataset.get('data_root') or ''
            if os.path.abspath(read) != os.path.abspath(root):
                yield error(
                    f'builtin_data.root is {root!r}, but {place}.data_root is {read!r}: give both, '
                    f'and {split}_evaluator.ann_file where there is one, the same folder'
                )
                return


def dataset_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Findings in a built dataset, possibly one in wrappers, all of whose images are read."""
    yield from start_findings(dataset, split)
    yield from image_findings(dataset, split)


def start_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Findings in a built dataset that need no image: those before each training."""
    place, found = f'{split}_dataloader.dataset', []
    leaves = list(leaf_datasets(dataset))
    found += coco_findings(leaves, split)
    for leaf in leaves:
        found += instance_findings(leaf, place, whole=len(leaves) == 1)
    yield from dict.fromkeys(found)  # several datasets may read one file
    if any(each.level == 'error' for each in found):
        return
    empty = [leaf for leaf in leaves if not len(leaf)]
    yield from (error(f'{place}: {why_empty(leaf)}') for leaf in empty)
    if not empty and not len(dataset):
        yield error(
            f'{place} is a {type(dataset).__name__} that gives no image: let it repeat some'
        )


def few_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """What some images show of a dataset that is too large to be read before each training."""
    place = f'{split}_dataloader.dataset'
    leaves = [each for each in leaf_datasets(dataset) if hasattr(each, 'get_data_info')]
    for leaf in leaves:
        yield from missing_findings(leaf, place, loaders_of(leaf), skips=True)
        yield from SIZES.findings(leaf, list(_some_sizes(leaf)), place)
    loading = [(leaf, partial(_loaded, leaf, loaders_of(leaf))) for leaf in leaves]
    yield from sample_findings(loading, place)


def image_findings(dataset: Any, split: str) -> Iterator[Finding]:
    """Decode each image and annotation once, and run the whole pipeline on the first one.

    Only MMEngine's datasets, possibly in wrappers, are decoded; each of `LOOKS` sees each of their
    images.
    """
    place = f'{split}_dataloader.dataset'
    leaves = [each for each in leaf_datasets(dataset) if hasattr(each, 'get_data_info')]
    spoiled = [leaf for leaf in leaves if has_broken_file(leaf)]  # its labels cannot be loaded
    read = [
        (leaf, _image_loaders(leaf) if leaf in spoiled else loaders_of(leaf)) for leaf in leaves
    ]
    read = [(leaf, loaders) for leaf, loaders in read if loaders]
    missing = [each for leaf, loaders in read for each in missing_findings(leaf, place, loaders)]
    yield from missing
    walks = [(leaf, list(_walk(leaf, loaders))) for leaf, loaders in read]
    if broken := [reason for _, walk in walks for reason, _ in walk if reason]:
        yield error(_broken_line(broken, split))
        return
    yield from _look_findings(walks, place)
    if spoiled or missing or (hasattr(dataset, '__len__') and not len(dataset)):
        return  # the reason is known
    try:
        dataset[0]
    except Exception as raised:  # each transform has its own exceptions
        yield error(f'{place}.pipeline fails on the first image ({one_line(raised)})')


def _look_findings(
    walks: Sequence[tuple[Any, Sequence[tuple[Any, list[Any] | None]]]],
    place: str,
) -> Iterator[Finding]:
    """What the answers to each question show, of each dataset and of all together."""
    answers = [(leaf, [each for _, each in walk if each is not None]) for leaf, walk in walks]
    for number, look in enumerate(LOOKS):
        asked = [(leaf, [each[number] for each in given]) for leaf, given in answers]
        for leaf, given in asked:
            yield from look.findings(leaf, given, place)
        yield from look.split_findings(asked, place)


def _broken_line(broken: Sequence[tuple[str, str]], split: str) -> str:
    images: dict[str, list[str]] = {}  # by reason
    for image, reason in broken[:5]:
        images.setdefault(reason, []).append(image)
    named = ', '.join(f'{", ".join(each)} ({reason})' for reason, each in images.items())
    more = ' ...' * (len(broken) > 5)
    many = len(broken) > 1
    fix = '' if many and len(images) == 1 else '; repair or remove them'  # the pipeline's fault
    number = counted(len(broken), f'{split} image')
    return f'{number} cannot be decoded: {named}{more}{fix}'


def _some_sizes(dataset: Any) -> Iterator[Any]:
    """Answers of `SIZES` for a few images, if the dataset lists sizes."""
    loaders = _image_loaders(dataset)
    for index in range(0, len(dataset), max(1, len(dataset) // _SAMPLED)) if loaders else ():
        with contextlib.suppress(Exception):  # the training skips what cannot be decoded
            info = dataset.get_data_info(index)
            if 'height' not in info:
                return
            yield SIZES.ask(loaded_by(loaders, info))


def loaders_of(dataset: Any) -> list[Any]:
    """The transforms of a dataset that read files: those named `Load...`."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    inner = [(each, getattr(each, 'transform', None)) for each in transforms]
    bare = [each if inspect.ismethod(within) else within or each for each, within in inner]
    return [each for each in bare if type(each).__name__.startswith('Load')]  # a hook wraps some


def _image_loaders(dataset: Any) -> list[Any]:
    return [each for each in loaders_of(dataset) if 'Image' in type(each).__name__]


def _walk(
    dataset: Any, loaders: Sequence[Any]
) -> Iterator[tuple[tuple[str, str] | None, list[Any] | None]]:
    """For each image, its name and why it cannot be decoded, and the answers of `LOOKS`."""
    paths, named = set(), named_keys(dataset, loaders)

    def decode(index: int) -> tuple[tuple[str, str] | None, list[Any] | None]:
        path, info = f'image {index}', {}
        try:
            info = dataset.get_data_info(index)
            path = info.get('img_path')
            if path in paths and 'instances' not in info:  # objects may be those of another entry
                return None, None
            paths.add(path)
            loaded = loaded_by(loaders, info)
        except FileNotFoundError as raised:
            is_named = raised.filename in [info.get(key) for key in named]
            return None if is_named else (path, one_line(raised)), None
        except Exception as raised:  # each decoder has its own exceptions
            return (path, one_line(raised)), None
        return None, [look.ask(loaded) for look in LOOKS]

    with progress() as bar, ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        walked = pool.map(decode, range(len(dataset)))
        yield from bar.track(walked, len(dataset), description='decoding images')


def loaded_by(loaders: Sequence[Any], info: dict[str, Any]) -> dict[str, Any]:
    """An entry of a dataset after its loading transforms."""
    for key in FILES:
        check_whole(info.get(key))
    for loader in loaders:
        info = loader(info)
    return info


def _loaded(dataset: Any, loaders: Sequence[Any], index: int) -> dict[str, Any]:
    return loaded_by(loaders, dataset.get_data_info(index))
