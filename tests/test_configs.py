"""Every config that ships: it is read, its model is built, and one step changes every parameter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import import_modules_from_strings

import vit_backbones  # noqa: F401  (mmcv's operators)
from vit_backbones.wiring import check_wiring

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('*.py'))
HEIGHT, WIDTH = 64, 96


def _load(name: str) -> Config:
    cfg = Config.fromfile(ROOT / 'configs' / name)
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    if 'auxiliary_iters' in cfg.model:
        cfg.model.auxiliary_iters = 0
    return cfg


def _batch(cfg: Config) -> dict[str, list[Any]]:
    """Two images with a bright rectangle each, packed as the config's toolbox does."""
    images = torch.randint(0, 100, (2, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    images[:, :, 16:48, 24:72] += 100
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[16:48, 24:72] = True
    shapes = dict(img_shape=mask.shape, ori_shape=mask.shape, batch_input_shape=mask.shape)
    if cfg.default_scope == 'mmseg':
        from mmseg.structures import SegDataSample

        cfg.model.data_preprocessor.size = mask.shape
        sample = SegDataSample(metainfo=shapes)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(mask.astype(np.int64))[None])
    else:
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import BitmapMasks

        sample = DetDataSample(metainfo=shapes)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[24.0, 16.0, 72.0, 48.0]]),
            labels=torch.tensor([0]),
            masks=BitmapMasks(mask[None].astype(np.uint8), HEIGHT, WIDTH),
        )
    return dict(inputs=list(images), data_samples=[sample, sample.clone()])


@pytest.mark.parametrize('name', CONFIGS)
def test_one_step_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    cfg = _load(name)
    batch = _batch(cfg)
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    check_wiring(model)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: value.clone() for key, value in model.named_parameters()}
    losses = model.train_step(batch, wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    stuck = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not stuck


@pytest.mark.parametrize('name', CONFIGS)
def test_classes_agree_with_the_head(name: str) -> None:
    cfg = _load(name)
    head = cfg.model.get('decode_head') or cfg.model.panoptic_head
    counted = head.get('num_classes') or head.num_things_classes + head.num_stuff_classes
    assert counted == len(cfg.metainfo.classes)
