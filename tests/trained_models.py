"""Configs that are trained as far as predictions go: with a checkpoint of redrawn weights."""

from pathlib import Path

import numpy as np
import torch
from checked_configs import DETECTOR, SEGMENTER
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from vit_backbones.models.random_weights import redraw

_TESTED = """
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    {dataset}, test_mode=True, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 64), keep_ratio=True),
        dict(type='LoadAnnotations'{masks}),
        dict(type='{pack}', meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]))
val_dataloader = test_dataloader
"""
_SEG_DATA = """type='BaseSegDataset', data_root='seg', img_suffix='.png', seg_map_suffix='.png',
    metainfo=dict(classes=('road', 'sky'), palette=[[200, 0, 0], [0, 0, 200]]),
    data_prefix=dict(img_path='images', seg_map_path='labels')"""
_DET_DATA = """type='CocoDataset', ann_file='boxes.json', data_prefix=dict(img='images/'),
    metainfo=dict(classes=('cat', 'dog', 'cow'))"""
_LOW_SCORES = '\nmodel["test_cfg"] = dict(rpn=dict(nms_pre=50, max_per_img=50, min_bbox_size=0, '
_LOW_SCORES += "nms=dict(type='nms', iou_threshold=0.7)), rcnn=dict(score_thr=0.01, "
_LOW_SCORES += "max_per_img=20, mask_thr_binary=0.5, nms=dict(type='nms', iou_threshold=0.5)))\n"


def write_segmenter(folder, more=''):
    """Write `seg.py`, with `more` code, and `seg.pth`; gives their paths."""
    text = SEGMENTER + _TESTED.format(dataset=_SEG_DATA, pack='PackSegInputs', masks='')
    classes, palette = ('road', 'sky'), [[200, 0, 0], [0, 0, 200]]
    return _write(folder, 'seg', text + more, dict(classes=classes, palette=palette))


def write_detector(folder):
    """Write `det.py` and `det.pth`, of a Mask R-CNN; gives their paths."""
    masks = ', with_bbox=True, with_mask=True'
    text = DETECTOR + _TESTED.format(dataset=_DET_DATA, pack='PackDetInputs', masks=masks)
    return _write(folder, 'det', text + _LOW_SCORES, dict(classes=('cat', 'dog', 'cow')))


def _write(folder, name, text, meta):
    config, checkpoint = Path(folder, f'{name}.py'), Path(folder, f'{name}.pth')
    config.write_text(text)
    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.default_scope)
    model = redraw(MODELS.build(cfg.model))
    content = dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta))
    torch.save(content, checkpoint)
    return str(config), str(checkpoint)


def write_images(folder, *sizes):
    """Write random images of (H, W), a.png, b.png, ...; gives their paths."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True, parents=True)
    rng, paths = np.random.default_rng(0), []
    for name, (height, width) in zip('abcdefgh', sizes, strict=False):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        paths.append(folder / f'{name}.png')
        Image.fromarray(coarse).resize((width, height)).save(paths[-1])
    return paths
