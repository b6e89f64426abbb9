"""Any COCO file, as own data and through the checks of a config."""

import copy
import json
import math

import numpy as np
import pytest
from fuzzing import Fuzz, one
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset  # noqa: F401 (registers it)
from mmengine.registry import DATASETS, init_default_scope
from own_files import DETECTOR, coco, write_images
from pycocotools.coco import COCO

from vit_backbones.checks.coco_files import file_findings
from vit_backbones.config import load_config
from vit_backbones.config.facts import Facts
from vit_backbones.own_data import use_own_data
from vit_backbones.terminal import quiet_prints

IMAGES = 6
KEYS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': (
        *('id', 'image_id', 'category_id', 'bbox', 'segmentation', 'area', 'iscrowd', 'ignore'),
    ),
    'categories': ('id', 'name', 'supercategory'),
}
VALUES = one(
    *(None, True, False, 0, 1, 2, 7, -1, 2.5, 7.0, math.nan, math.inf, -math.inf, 1e308, 10**30),
    *(
        2**63,
        -(2**64),
        '',
        '1',
        '7',
        'cat',
        'ünï\u202e\U0001f600',
        'a\nb',
        '\0',
        '\ud800',
        '../00.jpg',
    ),
    *([], [1], [[]], {}, {'a': 1}, [10, 10, 30, 20], [10, 10, 30], ['1', 2, 3, 4], [1, 2, 3, None]),
    *([10, 10, -5, 20], [-9, -9, 3, 3], [90, 60, 50, 50], [0, 0, 1e9, 1e9], [math.nan] * 4),
    *([[1, 2, 3, 4, 5, 6]], [[1, 2, 3]], [[1, 2, 3, 4, 5, 'x']], [[math.nan] * 6], [[[1, 2]]]),
    *({'size': [64, 96], 'counts': [6144]}, {'size': [96, 64], 'counts': [6144]}, [[1e300] * 6]),
    *({'size': [64, 96], 'counts': 'PPYo0'}, {'size': ['a', 2], 'counts': 'x'}, {'counts': [1, 2]}),
    *({'size': [64, 96], 'counts': [-5, 6149]}, {'size': [64, 96], 'counts': ['a']}, [{}], 'x.png'),
    *({'size': [64, 96], 'counts': 'é'}, {'size': [-1, -1], 'counts': [1]}, [True] * 4, 10**400),
    *({'size': [64, 96], 'counts': ''}, {'size': [64, 96], 'counts': []}, [[10] * 7], 'x/' * 300),
)
FITTING = {
    'file_name': one(*(f'{i:02d}.jpg' for i in range(IMAGES))),
    'bbox': one([1, 2, 30, 20], [1.5, 2.5, 3.5, 4.0], [0, 0, 96, 64], [5, 5, 0.5, 9]),
    'segmentation': one([[1, 2, 30, 2, 30, 20]], [[1, 2, 9, 2, 9, 9], [20, 20, 30, 20, 30, 30]]),
    'area': one(1, 2.5, 600, 0),
    'iscrowd': one(0, 1),
    'ignore': one(0, 1),
    'name': one('cat', 'Cat', 'dog', 'ключ', '猫', '1', 'a, b', "it's"),
    'supercategory': one('animal', 'thing', None),
    'category_id': one(2, 7),
    'image_id': st.integers(0, IMAGES - 1),
    'height': one(64),
    'width': one(96),
    'id': st.integers(0, 100),
}
TEXTS = one(
    *(
        '',
        ' ',
        '[]',
        '{}',
        'null',
        '1',
        '"x"',
        '[' * 100_000,
        '{"images":' * 50_000,
        '\ufeff{}',
        'NaN',
    ),
    *('{"images": [], "annotations": [], "categories": []}', '{"a": 1', '\0', '{"images": 1e999}'),
)


@st.composite
def changes(draw):
    """(list, number, key, what) of a few places; one draw in three also has values of any type."""
    wild, found = draw(st.integers(0, 3)) == 0, []
    for _ in range(draw(st.integers(0, 3))):
        name = draw(one(*KEYS))
        place = name, draw(st.integers(0, IMAGES - 2)), draw(one(*KEYS[name]))
        what = draw(VALUES if wild else FITTING[place[2]])
        how = draw(one('set', 'set', 'set', 'all')) if wild or place[2] != 'id' else 'set'
        found.append((*place, how, what))
    if wild:
        rough = one('drop', 'double', 'entry', 'list', 'gone', 'text', 'mixed')
        found += [(draw(one(*KEYS)), 1, '', draw(rough), draw(VALUES))]
    if draw(st.integers(0, 19)) == 0:
        return draw(TEXTS)
    return found


def written(drawn):
    """The text of a file."""
    if isinstance(drawn, str):
        return drawn
    content = coco(IMAGES)
    for name, number, key, how, what in drawn:
        entries = content.get(name)
        if not isinstance(entries, list):
            continue
        change(content, name, entries, number % max(1, len(entries)), key, how, what)
    return json.dumps(content)


def change(content, name, entries, number, key, how, what):
    if how == 'list':
        content[name] = what
    elif how == 'gone':
        del content[name]
    elif how == 'entry':
        entries.append(what)
    elif how == 'double':
        entries.append(copy.deepcopy(entries[0]))
    elif how == 'text':
        content[name] = [{k: str(v) for k, v in each.items()} for each in entries]
    elif how == 'mixed':
        content[name] = dict(enumerate(entries))
    elif how == 'drop':
        content[name] = [dict(list(each.items())[1:]) for each in entries]
    else:
        for each in entries if how == 'all' else entries[number : number + 1]:
            if isinstance(each, dict):
                each[key] = what


class Attempt:
    """A file as own data, in a folder with its images, and the checks of the same file."""

    def __init__(self, folder):
        self.folder = folder
        self.path, self.lists = folder / 'a.json', folder / 'lists'
        write_images(folder / 'images', [f'{i:02d}.jpg' for i in range(IMAGES)])
        (folder / 'a.py').write_text(DETECTOR)
        self.config = load_config(folder / 'a.py')
        init_default_scope('mmdet')

    def __call__(self, drawn):
        text, masks = drawn
        self.path.write_bytes(written(text).encode('utf-8', 'surrogatepass'))
        before = sorted(self.folder.rglob('*'))
        config = copy.deepcopy(self.config)
        for split in ('train', 'val'):
            config[f'{split}_dataloader'].dataset.pipeline[2].with_mask = masks
        self.check_findings(copy.deepcopy(config))
        try:
            used = use_own_data(config, self.path, folder=self.lists)
        except Exception:
            assert sorted(self.folder.rglob('*')) == before
            raise
        for line in (used.summary, *used.warnings):
            assert '\n' not in line
        with quiet_prints():
            self.check_data(config, masks)
        for each in self.lists.iterdir():
            each.unlink()
        self.lists.rmdir()

    def check_data(self, config, masks):
        """What is put into the config loads, image by image, and pycocotools reads it."""
        for split in ('train', 'val'):
            dataset = DATASETS.build(copy.deepcopy(config[f'{split}_dataloader'].dataset))
            dataset.full_init()
            classes = len(dataset.metainfo['classes'])
            for i in range(len(dataset)):
                labels = dataset[i]['data_samples'].gt_instances.labels
                assert all(0 <= label < classes for label in labels)
        api = COCO(config.val_evaluator.ann_file)
        for each in api.anns.values():
            if masks:
                assert np.isfinite(api.annToMask(each)).all()

    def check_findings(self, config):
        """Each finding is one line; without an error the data load."""
        for split in ('train', 'val'):
            dataset = config[f'{split}_dataloader'].dataset
            dataset.update(ann_file=str(self.path), metainfo=dict(classes=('cat', "bird's")))
            dataset.data_prefix = dict(img=str(self.folder / 'images'))
            found = list(file_findings(Facts.of(config, ('train', 'val')), split))
            assert not [each for each in found if '\n' in each.text]
            unnamed = ('TypeError', 'AttributeError', 'IndexError', 'KeyError', 'AssertionError')
            assert not [each for each in found if each.text.partition(': ')[2].startswith(unnamed)]
            if not [each for each in found if each.level == 'error']:
                built = DATASETS.build(copy.deepcopy(dataset))
                for i in range(len(built)):
                    assert built[i] is not None


def files():
    return st.tuples(changes(), st.booleans())


def test_any_coco_file(tmp_path):
    assert Fuzz(Attempt(tmp_path)).run(files()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_coco_files(tmp_path):
    assert Fuzz(Attempt(tmp_path)).run(files(), slow=True) == []
