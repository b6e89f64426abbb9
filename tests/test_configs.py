"""Every config that ships: it is read, its model is built, and one step changes every parameter."""

import re
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from checked_configs import errors_of
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import import_modules_from_strings
from slow import few
from torch import nn

from vit_backbones import ViTFeatBackbone  # (mmcv's operators)
from vit_backbones.checks.recipe import constructor_findings
from vit_backbones.checks.wiring import wiring_findings
from vit_backbones.config.facts import Facts
from vit_backbones.config.loading import load_config
from vit_backbones.sources import presets

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
BACKBONES = sorted(path.stem for path in (CONFIGS / '_base_/backbones').glob('*.py'))
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts
)
RECIPES = [name for name in NAMES if '/' in name]
HEIGHT, WIDTH = 64, 96
DEPTH = 4  # the fewest blocks that give four maps
SWAPPED = [  # the others build the same backbones with the same words
    'upernet/upernet_vit-b-mae_ade20k.py',
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            'linear_probe/linear_vit-b-dinov2_ade20k.py',
            'mask2former/mask2former_vit-b-dinov2_coco-instance.py',
            'vit_adapter/upernet_vit-adapter-b-dinov3_ade20k.py',
            'vitdet/mask-rcnn_vit-b-mae_coco.py',
        )
    ),
]
INHERITED = [
    'mask2former/mask2former_vit-ti_camvid.py',
    'upernet/upernet_vit-b-mae_ade20k.py',
    'vitdet/mask-rcnn_vit-b-mae_coco.py',
]
SHARED = ['mask2former_vit-b-dinov2.py']  # bases that name a backbone for several recipes
FULL_SIZE = [False, pytest.param(True, marks=pytest.mark.slow)]
# Of large models, or of a model that another recipe has with less data
LARGE = re.compile(
    r'plain_mask/.+-[bl]-|vitdet/.+-l-|vit_adapter/mask2former|-(10|6)e_vit|_vit-(adapter-)?s-dinov2_|'
    r'dinov3-frozen_coco'
)
STEPS = [pytest.param(name, marks=[pytest.mark.slow] * bool(LARGE.search(name))) for name in NAMES]


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones of `DEPTH` blocks."""
    monkeypatch.setattr(timm, 'create_model', partial(timm.create_model, depth=DEPTH))
    sapiens = presets.ARCHITECTURES['sapiens_0.3b'] | dict(num_layers=DEPTH)
    monkeypatch.setitem(presets.ARCHITECTURES, 'sapiens_0.3b', sapiens)


_read = cache(load_config)


def _load(path: Path, full_size: bool = False) -> Config:
    """A config without weights, for small images and for backbones of `DEPTH` blocks."""
    cfg = deepcopy(_read(path))
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    vit = cfg.model.backbone.get('backbone', cfg.model.backbone)
    vit.update(pretrained=False, checkpoint=None)
    cfg.model.data_preprocessor.pop('batch_augments', None)
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (HEIGHT, WIDTH)
    else:
        cfg.model.data_preprocessor.pad_size_divisor = 32
    if 'rpn' in cfg.model.train_cfg:
        cfg.model.train_cfg.rpn.allowed_border = -1  # anchors are larger than these images
    for stage in _listed(cfg.model.train_cfg.get('rcnn', [])):
        stage.sampler.num = 16  # regions an image
    if 'dn_cfg' in cfg.model:
        cfg.model.num_queries = 20  # of the 128 cells of these images
    if 'auxiliary_iters' in cfg.model:
        cfg.model.auxiliary_iters = 0
    if not full_size:
        if 'EoMT' in cfg.model.type:  # whose head has the channels of its backbone
            vit.model_name = re.sub('base|large', 'small', vit.model_name)
        if 'frozen_stages' in vit:
            vit.frozen_stages = min(vit.frozen_stages, DEPTH)
        if 'window_block_indexes' in vit:
            vit.window_block_indexes = [i for i in vit.window_block_indexes if i < DEPTH]
    return cfg


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _build(cfg: Config) -> nn.Module:
    """The model as a runner has it on one device, without dropout and weights that start at 0."""
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 0.0
        if hasattr(module, 'sampling_offsets'):  # deformable attention
            nn.init.normal_(module.sampling_offsets.weight, std=0.01)
            nn.init.normal_(module.attention_weights.weight, std=0.01)
        for branch in getattr(module, 'reg_branches', []):  # of DETR's heads
            nn.init.normal_(branch[-1].weight, std=0.01)
    return model


def _dataset(cfg: Config) -> Config:
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def _batch(cfg: Config) -> dict[str, list[Any]]:
    """Two images with a bright rectangle each, packed as the config's toolbox does."""
    images = torch.randint(0, 100, (2, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    images[:, :, 16:48, 24:72] += 100
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[16:48, 24:72] = True
    shapes = dict(
        img_shape=mask.shape,
        ori_shape=mask.shape,
        batch_input_shape=mask.shape,
        pad_shape=mask.shape,
    )
    if cfg.default_scope == 'mmseg':
        from mmseg.structures import SegDataSample

        sample = SegDataSample(metainfo=shapes)
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(mask.astype(np.int64))[None])
    else:
        from mmdet.structures import DetDataSample
        from mmdet.structures.bbox import HorizontalBoxes
        from mmdet.structures.mask import BitmapMasks

        sample = DetDataSample(metainfo=shapes)
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[24.0, 16.0, 72.0, 48.0]])),
            labels=torch.tensor([0]),
            masks=BitmapMasks(mask[None].astype(np.uint8), HEIGHT, WIDTH),
        )
        if 'Panoptic' in _dataset(cfg).type:
            stuff = torch.where(torch.from_numpy(mask), 0, 100)[None]
            sample.gt_sem_seg = PixelData(sem_seg=stuff)
    return dict(inputs=list(images), data_samples=[sample, sample.clone()])


@pytest.mark.parametrize('full_size', FULL_SIZE)
@pytest.mark.parametrize('name', STEPS)
def test_one_step_reaches_every_parameter(
    name: str, full_size: bool, request: pytest.FixtureRequest
) -> None:
    if not full_size:
        request.getfixturevalue('shallow')
    torch.manual_seed(0)
    cfg = _load(CONFIGS / name, full_size)
    assert not [*constructor_findings(Facts.of(cfg))]
    model = _build(cfg)
    assert not errors_of(wiring_findings(model))
    # Weight decay would move what gets no gradient, and a tiny step is lost in float32
    cfg.optim_wrapper.optimizer.update(weight_decay=0.0, lr=1.0)
    cfg.optim_wrapper.clip_grad = None
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: value.clone() for key, value in model.named_parameters()}
    losses = model.train_step(_batch(cfg), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    stuck = [
        key
        for key, value in model.named_parameters()
        if value.requires_grad and torch.equal(value, before[key])
    ]
    assert not stuck


@pytest.mark.parametrize('name', NAMES)
def test_classes_agree_with_the_data(name: str) -> None:
    cfg = _load(CONFIGS / name)
    dataset = _dataset(cfg)
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        metainfo = dataset.get('metainfo') or registry.get(dataset.type).METAINFO
    counted = set(_counts(cfg.model.to_dict()))
    assert counted == {len(metainfo['classes'])}


def _counts(node: Any) -> list[int]:
    """The numbers of classes that the parts of a model are configured for."""
    if isinstance(node, (list, tuple)):
        return [count for each in node for count in _counts(each)]
    if not isinstance(node, dict):
        return []
    found = [count for each in node.values() for count in _counts(each)]
    if 'num_things_classes' in node and 'num_classes' not in node:
        found.append(node['num_things_classes'] + node['num_stuff_classes'])
    return found + ([node['num_classes']] if 'num_classes' in node else [])


def _swapped(recipe: str, backbone: str, folder: Path) -> Path:
    """The recipe with another file of `_base_/backbones`, which a base may name in its place."""
    text = (CONFIGS / recipe).read_text(encoding='utf-8').replace("'../", f"'{CONFIGS}/")
    for shared in SHARED:
        if f'_base_/models/{shared}' in text:
            base = (CONFIGS / '_base_/models' / shared).read_text(encoding='utf-8')
            (folder / shared).write_text(
                re.sub(r"'\.\./backbones/[^']+", f"'{CONFIGS}/_base_/backbones/{backbone}.py", base)
            )
            text = text.replace(f'{CONFIGS}/_base_/models/{shared}', shared)
    path = folder / 'swapped.py'
    path.write_text(re.sub(r'(_base_/backbones/)[^.]+(?=\.)', rf'\g<1>{backbone}', text))
    return path


@pytest.mark.parametrize('recipe', SWAPPED)
@pytest.mark.parametrize(
    'backbone', few(BACKBONES, *(name for name in BACKBONES if not name.startswith('vit-l')))
)
def test_another_backbone_is_another_base(
    recipe: str, backbone: str, tmp_path: Path, shallow: None
) -> None:
    cfg = _load(_swapped(recipe, backbone, tmp_path))
    if backbone == 'vit-b_sam' and recipe.startswith('vitdet'):
        with pytest.raises(ValueError, match='runs with its own attention here: window_size'):
            MODELS.build(cfg.model)
        return
    model = _build(cfg).eval()
    assert not errors_of(wiring_findings(model))
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, HEIGHT, WIDTH))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    if len(maps) == 1:  # of a linear probe
        sizes = [(4, 6)]
    assert [tuple(each.shape[-2:]) for each in maps] == sizes[: len(maps)]


@pytest.mark.parametrize('backbone', ['vit-s_dinov2', 'sapiens-0.3b'])
@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_takes_backbones_that_say_more_than_its_own(
    name: str, backbone: str, tmp_path: Path
) -> None:
    text = (CONFIGS / name).read_text(encoding='utf-8')
    if '_base_/backbones/' not in text and not any(shared in text for shared in SHARED):
        pytest.skip('inherits another recipe with its backbone')
    vit = load_config(_swapped(name, backbone, tmp_path)).model.backbone
    told = load_config(CONFIGS / f'_base_/backbones/{backbone}.py').backbone
    vit = vit.get('backbone', vit)
    assert (vit.get('arch'), vit.get('model_name')) == (told.get('arch'), told.get('model_name'))


def test_vitdet_of_vit_l_has_the_figures_of_its_backbone() -> None:
    told = load_config(CONFIGS / '_base_/backbones/vit-l_mae.py')
    recipe = _read(CONFIGS / 'vitdet/mask-rcnn_vit-l-mae_coco.py')
    for key in ('embed_dims', 'depth', 'decay_rate', 'preprocess', 'backbone'):
        assert recipe[key] == told[key]
    assert {key: recipe.model.backbone[key] for key in told.backbone} == told.backbone


@pytest.mark.parametrize('backbone', BACKBONES)
def test_what_is_told_of_a_backbone_is_true(backbone: str) -> None:
    told = load_config(CONFIGS / f'_base_/backbones/{backbone}.py')
    with torch.device('meta'):
        vit = ViTFeatBackbone(
            **{k: v for k, v in told.backbone.items() if k != 'type'}
            | dict(pretrained=False, checkpoint=None)
        )
    assert (vit.out_channels, vit.depth, vit.strides) == ((told.embed_dims,), told.depth, (16,))
    for key, value in told.preprocess.items():
        assert value == pytest.approx(vit.preprocess[key])


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_takes_options_from_another_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = 'model.backbone' + '.backbone' * name.startswith('vit_adapter')
    options = [f'{place}.pretrained=False', f'{place}.drop_path_rate=0.25']
    vit = load_config(CONFIGS / name, options).model.backbone
    vit = vit.get('backbone', vit)
    assert (vit.pretrained, vit.drop_path_rate) == (False, 0.25)


@pytest.mark.parametrize('name', INHERITED)
def test_recipe_by_the_name_of_the_package_is_the_same(name: str, tmp_path: Path) -> None:
    """MMEngine marks bases from packages with a scope, which would find no class of mmdet's."""
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'vit_backbones::{name}'")
    assert load_config(path).to_dict() == _read(CONFIGS / name).to_dict()
