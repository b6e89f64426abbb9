"""EoMT's recipes have the settings of the release."""

import re
from pathlib import Path

import pytest

from vit_backbones.config.loading import load_config
from vit_backbones.heads.mask_annealing import MaskAnnealing

FOLDER = Path(__file__).resolve().parents[1] / 'configs/eomt'
SIXTHS = {3: [1, 2.5, 4], 4: [1, 2, 3, 4]}  # where blocks begin to lose their masks
# Size, weights and data; side of crops, queries, epochs, iterations of one, blocks with queries,
# whether the first of them loses its masks within 3,000 steps
PUBLISHED = """
l-dinov2_ade20k          512 100  31 1263 4 no
l-dinov3_ade20k          512 100  16 1263 4 yes
l-dinov2_cityscapes     1024 100 107  185 4 no
s-dinov2_coco-panoptic   640 200  12 7392 3 no
b-dinov2_coco-panoptic   640 200  12 7392 3 no
l-dinov2_coco-panoptic   640 200  12 7392 4 no
s-dinov3_coco-panoptic   640 200  24 7392 3 yes
b-dinov3_coco-panoptic   640 200  24 7392 3 yes
l-dinov3_coco-panoptic   640 200  12 7392 4 yes
l-dinov2_coco-instance   640 200  12 7329 4 no
l-dinov3_coco-instance   640 200  12 7329 4 no
"""
ROWS = [line.split() for line in PUBLISHED.strip().splitlines()]
# lr, decay rate, whether joint blocks decay, warm-ups
RATES = {
    'dinov2': (1e-4, 0.8, True, (500, 1000)),
    'dinov3': (2e-4, 0.8, False, (2000, 3000)),
}


def recipe(name):
    return load_config(FOLDER / f'eomt_vit-{name}.py')


def test_every_published_recipe_is_in_the_table():
    names = {path.stem.removeprefix('eomt_vit-') for path in FOLDER.glob('*.py')}
    small = {name for name in names if re.search('camvid|nuclei|shapes', name)}
    assert names - small == {row[0] for row in ROWS}


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0])
def test_lengths_queries_and_masks_are_those_released(row):
    name, *numbers, is_early = row
    side, queries, epochs, epoch, blocks = map(int, numbers)
    config = recipe(name)
    head = config.model.get('decode_head') or config.model.panoptic_head
    total = epochs * epoch
    assert config.crop_size == config.model.backbone.img_size == (side, side)
    assert config.train_cfg == dict(type='IterBasedTrainLoop', max_iters=total, val_interval=epoch)
    assert config.train_dataloader.batch_size == 2  # on each of 8 GPUs
    assert config.train_dataloader.drop_last
    assert (head.num_queries, head.num_blocks) == (queries, blocks)
    steps = [list(each) for each in MaskAnnealing(blocks, head.get('annealing')).steps(total)]
    expected = [[total * start / 6, total * (start + 1) / 6] for start in SIXTHS[blocks]]
    if is_early == 'yes':
        expected[0] = [0, 3000]
    assert steps == [pytest.approx(each, abs=1) for each in expected]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0])
def test_rates_are_those_released(row):
    config = recipe(row[0])
    wrapper = config.optim_wrapper
    lr, decay, joint, warmup = RATES[row[0].split('_')[0].split('-')[1]]
    if row[0] == 'l-dinov3_ade20k':
        decay = 1.0  # where its header says more
    assert wrapper.optimizer == dict(type='AdamW', lr=lr, weight_decay=0.05)
    assert wrapper.constructor == 'EoMTOptimWrapperConstructor'
    assert wrapper.paramwise_cfg.decay_rate == decay
    assert wrapper.paramwise_cfg.get('joint_decay', True) == joint
    assert wrapper.clip_grad == dict(max_norm=0.01)
    assert config.param_scheduler == [
        dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup=warmup)
    ]
    assert config.model.backbone.drop_path_rate == 0.0


@pytest.mark.parametrize('name', ['coco-panoptic', 'coco-instance', 'ade20k', 'cityscapes'])
def test_one_variable_sets_the_size(name, monkeypatch):
    monkeypatch.setenv('EOMT_SIZE', '1280')
    config = recipe(f'l-dinov2_{name}')
    assert config.model.backbone.img_size == (1280, 1280)
    text = repr(config.train_dataloader) + repr(config.val_dataloader)
    assert '1280' in text
    assert not [side for side in ('640', '512', '1024') if f'{side}, {side}' in text]


def test_small_recipes_see_the_images_of_the_others():
    """Epochs, images of a batch and crops."""
    folder = FOLDER.parent

    def budget(name):
        config = load_config(folder / f'{name}.py')
        crops = [e.crop_size for e in config.train_dataloader.dataset.pipeline if 'crop_size' in e]
        return config.train_cfg.max_epochs, config.train_dataloader.batch_size, *map(tuple, crops)

    for weights in ('ti', 's-dinov2'):
        camvid = [
            f'eomt/eomt_vit-{weights}_camvid',
            f'plain_mask/plain-mask_vit-{weights}_camvid',
            f'mask2former/mask2former-10e_vit-{weights}_camvid',
            f'upernet/upernet_vit-{weights}_camvid',
            f'vit_adapter/upernet_vit-adapter-{weights.split("-")[0]}'
            f'{"-dinov2" if weights != "ti" else ""}_camvid',
        ]
        assert {budget(name) for name in camvid} == {(10, 2, (352, 480))}
        nuclei = [
            f'eomt/eomt_vit-{weights}_nuclei',
            f'plain_mask/plain-mask_vit-{weights}_nuclei',
            f'mask2former/mask2former-6e_vit-{weights}_nuclei',
            f'vitdet/mask-rcnn_vit-{weights}_nuclei',
        ]
        assert {budget(name) for name in nuclei} == {(6, 2, (256, 256))}
