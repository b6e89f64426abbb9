"""A teacher and a student so small that a distillation takes a second, and images for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vit_backbones import ViTFeatBackbone
from vit_backbones.config.loading import load_config
from vit_backbones.models.random_weights import redraw
from vit_backbones.terminal import silence

CHECKPOINT = 'teacher.pth'
TEACHER, STUDENT = f'teacher.py={CHECKPOINT}', 'test_vit.r160_in1k=student.pth'
_CONFIG = """
model = dict(
    data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3, bgr_to_rgb=True),
    backbone=dict(type='ViTFeatBackbone', {}),
)
"""
# Patches of 14 pixels, CLS; and registers alone with patches of 16
_BACKBONES = dict(
    teacher="""
        arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=192),
        out_type='featmap', patch_size=14""",
    wide="model_name='test_vit4'",
)
SIZES = ((60, 90), (75, 50), (64, 64), (90, 90), (50, 120))  # (H, W) of images


def write_models():
    """Write `teacher.py`, `wide.py` and the weights of all into the current folder."""
    for name, backbone in _BACKBONES.items():
        Path(f'{name}.py').write_text(_CONFIG.format(backbone))
        options = load_config(f'{name}.py').model.backbone.to_dict()
        options.pop('type')
        _write_weights(f'{name}.pth', **options)
    _write_weights('student.pth', model_name='test_vit')


def _write_weights(path, **options):
    with silence():
        vit = ViTFeatBackbone(**options).vit
    torch.save(redraw(vit, len(path)).state_dict(), path)


def write_images(folder, broken=()):
    """Write images of several sizes with something to see, and files that are no images."""
    Path(folder).mkdir()
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(f'{folder}/{number}.png')
    for name in broken:
        Path(folder, name).write_bytes(b'no image')
