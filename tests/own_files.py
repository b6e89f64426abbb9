"""Small data as users have them, COCO files and folders of masks, and configs to train."""

import json

import cv2
import numpy as np
from checked_configs import DETECTOR, SEGMENTER
from PIL import Image

NUMBER = 11  # images; three of them are held out
MORE = """
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**train_dataloader['dataset'], test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = {evaluator}
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(curves=None, pictures=None, checkpoint=dict(type='CheckpointHook'))
"""
SEGMENTER += MORE.format(evaluator="dict(type='IoUMetric')")
DETECTOR = DETECTOR.replace(
    "pipeline = [\n    dict(type='LoadImageFromFile'),",
    "pipeline = [\n    dict(type='LoadImageFromFile'),\n"
    "    dict(type='Resize', scale=(96, 64), keep_ratio=True),",
) + MORE.format(evaluator="dict(type='CocoMetric', ann_file='no.json', metric=['bbox'])")


def write_images(folder, names, size=(64, 96)):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 20 * i, np.uint8))


def coco(number=NUMBER, **changes):
    """Objects of two kinds, whose ids have gaps and are not in order; the last image has none."""
    images = [
        dict(id=i, file_name=f'{i:02d}.jpg', height=64, width=96) for i in reversed(range(number))
    ]
    box, square = [10, 10, 30, 20], [[10, 10, 40, 10, 40, 30, 10, 30]]
    annotations = [
        dict(id=i, image_id=i, category_id=(7, 2)[i % 2], bbox=box, segmentation=square)
        for i in range(number - 1)
    ]
    categories = [dict(id=7, name="bird's"), dict(id=2, name='cat')]
    return dict(images=images, annotations=annotations, categories=categories) | changes


def write_coco(path, content=None, images=None):
    content = coco() if content is None else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    write_images(images or path.parent / 'images', [f'{i:02d}.jpg' for i in range(NUMBER)])
    return path


def write_masks(folder, labels=(0, 1, 255), split='', palette=None, names='masks', number=NUMBER):
    write_images(folder / 'images' / split, [f'{i:02d}.png' for i in range(number)])
    (folder / names / split).mkdir(parents=True)
    for i in range(number):
        mask = Image.fromarray(np.resize(np.array(labels, np.uint8), (64, 96)))
        if palette:
            mask.putpalette(palette)
        mask.save(folder / names / split / f'{i:02d}.png')
    return folder
