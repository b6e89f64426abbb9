"""Small COCO files with their images, to be made wrong, and mmdet's datasets of them."""

import json
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from vit_backbones.checks.coco_files import build_surveyed

NAMES = ('cat', 'dog', 'cow')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]


def coco(names=NAMES, number=4, size=(96, 64)):
    """A COCO file: objects of three categories, whose ids are 1, 2 and 3, in each image."""
    objects = [dict(image_id=i, category_id=k) for i in range(number) for k in (1, 2, 3)]
    for i, each in enumerate(objects):
        x, y, w, h = 10 * each['category_id'], 8, 20, 16
        corners = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        each.update(id=i + 1, bbox=[x, y, w, h], area=w * h, iscrowd=0, segmentation=corners)
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=size[0], height=size[1]) for i in range(number)
        ],
        annotations=objects,
        categories=[dict(id=i, name=name) for i, name in enumerate(names, start=1)],
    )


def write(folder, content, name='boxes.json'):
    """Write a COCO file, and a grey image of 96x64 for each of its images."""
    (Path(folder) / 'images').mkdir(parents=True, exist_ok=True)
    (Path(folder) / name).write_text(json.dumps(content))
    for image in content['images']:
        path = Path(folder) / 'images' / image['file_name']
        Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(path)


def config(folder, *, type='CocoDataset', classes=NAMES, name='boxes.json', **more):
    """The config of a dataset of such a file."""
    return dict(
        type=type,
        ann_file=name,
        data_root=str(folder),
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=PIPELINE,
        **more,
    )


def build(dataset):
    """A dataset with its survey, from its config or that of a wrapper."""
    init_default_scope('mmdet')
    loader = dict(dataset=dataset)
    return build_surveyed(Config(dict(default_scope='mmdet', train_dataloader=loader)), dataset)
