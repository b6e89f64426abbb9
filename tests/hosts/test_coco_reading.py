"""What is seen of the files that mmdet's datasets read, and that nothing else changes."""

import gc
from pathlib import Path

import pytest
from coco_data import coco, config, write
from mmdet.datasets import BaseDetDataset
from mmengine.registry import DATASETS, init_default_scope

from vit_backbones.hosts.coco_reading import watched_coco


@pytest.fixture
def wanted(tmp_path):
    init_default_scope('mmdet')
    write(tmp_path, coco())
    return config(tmp_path)


def see(dataset, content):
    return Path(dataset.ann_file).name, len(content['annotations'])


def test_each_file_is_seen_once_and_with_its_dataset(wanted):
    with watched_coco(see) as seen:
        dataset = DATASETS.build(wanted)
        dataset.full_init()
        assert dataset.coco_survey == ('boxes.json', 12)
    assert seen == [('boxes.json', 12)]


def test_the_data_are_those_of_a_dataset_that_nobody_watches(wanted):
    with watched_coco(see):
        watched = DATASETS.build(wanted)
    bare = DATASETS.build(wanted)
    assert not hasattr(bare, 'coco_survey')
    assert 'COCOAPI' not in vars(watched)
    assert [watched.get_data_info(i) for i in range(4)] == [bare.get_data_info(i) for i in range(4)]


def test_mmdet_is_left_as_it_was_after_an_error_too(wanted):
    before, content = BaseDetDataset.full_init, coco()
    del content['annotations'][0]['area']
    write(Path(wanted['data_root']), content)
    with pytest.raises(KeyError, match='area'), watched_coco(see):
        DATASETS.build(wanted)
    assert BaseDetDataset.full_init is before


def test_datasets_of_other_files_are_left_alone(wanted):
    with watched_coco(see) as seen:
        DATASETS.build(dict(type='VOCDataset', ann_file='', lazy_init=True, pipeline=[]))
    assert seen == []


@pytest.mark.parametrize('enabled', [True, False])
def test_garbage_collection_waits_for_the_file_and_is_then_as_before(wanted, enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with watched_coco(lambda dataset, content: gc.isenabled()) as seen:
            DATASETS.build(wanted)
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if before else gc.disable)()
