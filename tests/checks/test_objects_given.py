"""Objects that are left after the loading transforms, and their labels."""

import json

import pytest
from coco_data import NAMES, PIPELINE, build, coco, config, write
from mmdet.datasets import BaseDetDataset
from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS, init_default_scope

from vit_backbones.checks.data import image_findings, start_findings


def found(folder, content, **more):
    write(folder, content)
    dataset = build(config(folder) | more)
    lines = [str(each) for each in image_findings(dataset, 'train')]
    return [line.replace(f'{folder}/', '') for line in lines]


def test_all_objects_are_counted(tmp_path):
    assert found(tmp_path, coco()) == ['note: train: 4 images with 12 of 12 objects']


def test_what_indices_and_filters_leave_is_counted(tmp_path):
    content = coco()
    content['annotations'] = content['annotations'][3:]  # none in the first image
    more = dict(indices=2, filter_cfg=dict(filter_empty_gt=True))
    assert found(tmp_path, content, **more) == ['note: train: 2 images with 6 of 9 objects']


def test_one_image_of_several_entries_counts_each(tmp_path):
    content = coco()
    for each in content['images']:
        each['file_name'] = '0.png'
    assert found(tmp_path, content) == ['note: train: 4 images with 12 of 12 objects']


def test_masks_without_a_pixel_are_a_warning(tmp_path):
    content = coco()
    content['annotations'][0]['segmentation'] = [[5, 5, 5, 5, 5, 5]]
    assert found(tmp_path, content) == [
        'warning: train_dataloader.dataset: 1 of 12 objects of boxes.json have a mask without a '
        'pixel (images/0.png): draw them larger, or remove them',
        'note: train: 4 images with 11 of 12 objects',
    ]


def test_nothing_left_is_an_error(tmp_path):
    content = coco(number=1)
    content['annotations'][0]['iscrowd'] = 1
    for each in content['annotations'][1:]:
        each['segmentation'] = [[5, 5, 5, 5, 5, 5]]
    error, count = found(tmp_path, content)
    assert error == (
        'error: train_dataloader.dataset: none of 3 objects of boxes.json is left to learn: 1 are '
        'iscrowd or have no mask that can be loaded, 2 have a mask without a pixel'
    )
    assert count == 'note: train: 1 image with 0 of 3 objects'


def test_rle_that_a_loader_of_polygons_drops_is_counted(tmp_path):
    content = coco(number=1)
    content['annotations'][0]['segmentation'] = dict(size=[64, 96], counts=[10, 20, 6114])
    polygons = [PIPELINE[0], PIPELINE[1] | dict(poly2mask=False), PIPELINE[2]]
    assert found(tmp_path, content, pipeline=polygons)[-1] == (
        'note: train: 1 image with 2 of 3 objects'
    )


def listed(folder, labels):
    """Findings in a dataset of mmdet in MMEngine's own format."""
    found = start_findings(built_list(folder, labels), 'train')
    return [each.text.replace(f'{folder}/', '') for each in found]


def built_list(folder, labels):
    """That dataset."""
    write(folder, coco(number=1))
    objects = [dict(bbox=[0, 0, 9, 9], bbox_label=each, ignore_flag=0) for each in labels]
    entry = dict(img_path='images/0.png', height=64, width=96, instances=objects)
    text = json.dumps(dict(metainfo=dict(classes=NAMES), data_list=[entry]))
    (folder / 'list.json').write_text(text)
    init_default_scope('mmdet')
    loading = [PIPELINE[0], dict(type='LoadAnnotations', with_bbox=True)]
    prefix = dict(img_path='')
    names = dict(ann_file='list.json', data_root=str(folder), data_prefix=prefix)
    return DATASETS.build(dict(type=BaseDetDataset, pipeline=loading, **names))


def test_labels_of_another_format_are_right(tmp_path):
    assert not listed(tmp_path, [0, 2, 1])


def test_a_class_that_no_object_of_another_format_has_is_named(tmp_path):
    assert listed(tmp_path, [1]) == [
        "train_dataloader.dataset: list.json has no object of 2 of 3 classes ('cat', 'cow'): never "
        'learned; spell them as the annotations do, or leave them out'
    ]
    dataset = built_list(tmp_path, [1])
    assert not list(start_findings(dataset, 'val'))
    both = ConcatDataset(datasets=[dataset, built_list(tmp_path, [0, 2])])
    assert not list(start_findings(both, 'train'))


@pytest.mark.parametrize('label', [3, -1])
def test_labels_of_no_class_are_an_error(label, tmp_path):
    assert listed(tmp_path, [0, label]) == [
        f'train_dataloader.dataset: an object of list.json has label {label}, but labels of 3 '
        f'classes run from 0 to 2: name all classes'
    ]


def test_a_list_without_any_object_is_an_error(tmp_path):
    assert listed(tmp_path, []) == [
        "train_dataloader.dataset: no object of its classes ('cat', 'dog', 'cow') in the 1 image "
        'of list.json: spell them as the annotations do'
    ]
