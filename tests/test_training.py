"""The shipped configs through tools/train.py and tools/test.py, on a few drawn images."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import read_checkpoint
from vit_backbones.config.explain import describe
from vit_backbones.hosts.mmengine_pickles import allow_mmengine_checkpoints

ROOT = Path(__file__).resolve().parents[1]
MASK2FORMER = str(ROOT / 'configs/mask2former_vit.py')
UPERNET = str(ROOT / 'configs/upernet_vit.py')
DATA = Path(os.environ.get('VIT_BACKBONES_DATA', ROOT.parent / 'shared'))
WEIGHTS = DATA / 'weights/vit_tiny_patch16_224.safetensors'
TINY = ['builtin_data.num_train=4', 'builtin_data.num_val=2', 'model.backbone.out_indices=0']
QUICK = [
    *TINY,
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.batch_size=2',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
]


def _command(config, *options):
    return [config, '--cfg-options', *QUICK, *options]


@pytest.mark.parametrize(
    ('config', 'metric', 'options'),
    [
        (MASK2FORMER, r'segm_mAP \d\.\d{3}', ['model.auxiliary_iters=1']),
        (UPERNET, r'mIoU \d+\.\d %', []),
    ],
    ids=['mask2former', 'upernet'],
)
def test_train_then_test(train, evaluate, capsys, config, metric, options):
    once = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    assert train(_command(config, *once, *options)) == 0
    name = Path(config).stem
    line = rf'done: {metric} · .* · work_dirs/{name}'
    assert re.fullmatch(line, capsys.readouterr().out.splitlines()[-1])
    assert {'curves.png', 'epoch_1.pth'} <= set(os.listdir(f'work_dirs/{name}'))
    code = evaluate(
        [config, f'work_dirs/{name}/epoch_1.pth', '--show-dir', 'seen', *_command('')[1:]]
    )
    assert code == 0
    assert len(os.listdir('seen')) == 2
    assert re.match(rf'done: {metric}', capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_loaded_weights_survive_50_steps_at_lr_0(train, tmp_path):
    if not WEIGHTS.exists():
        pytest.skip(f'{WEIGHTS} is absent; VIT_BACKBONES_DATA names the folder of data and weights')
    still = [
        f'model.backbone.checkpoint={WEIGHTS}',
        'model.backbone.patch_size=16',
        'model.backbone.img_size=224',
        'model.neck.in_strides=16',
        'optim_wrapper.optimizer.lr=0.0',
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=25',
        'train_cfg.val_interval=25',
        'default_hooks.checkpoint.interval=25',
    ]
    assert train(_command(UPERNET, *still)) == 0
    allow_mmengine_checkpoints()
    saved = read_checkpoint('work_dirs/upernet_vit/epoch_25.pth')
    assert torch.load('work_dirs/upernet_vit/epoch_25.pth', weights_only=True)['meta']['iter'] == 50
    vit = {k.removeprefix('backbone.vit.'): v for k, v in saved.items() if 'backbone.vit.' in k}
    original = load_file(WEIGHTS)
    assert len(vit) > 15
    assert all(torch.equal(value, original[name]) for name, value in vit.items())


BAD = {
    'unknown name': (
        ['backbone.model_name=vit_tny'],
        r"unknown model_name 'vit_tny'.*closest: vit_t",
    ),
    'index': (['backbone.out_indices=12'], r'out_indices must be in \[-12, 11\].*got 12'),
    'no cls': (
        ['backbone.model_name=vit_base_patch16_siglip_224', 'backbone.out_type=cls'],
        r"out_type='cls' needs a CLS token.*avg_featmap",
    ),
    'out_type under a neck': (['backbone.out_type=raw'], r"out_type='raw' under a neck.*'featmap'"),
    'wrong out_type': (['backbone.out_type=map'], r"out_type must be one of 'featmap'.*got 'map'"),
    'neck channels': (['neck.in_channels=64'], r'channels \[192\], but neck.in_channels is \[64\]'),
    'neck strides': (['neck.in_strides=16'], r'strides \[8\], but neck.in_strides is \[16\]'),
    'no checkpoint': (['backbone.checkpoint=gone.pth'], r"checkpoint 'gone.pth' does not exist"),
    'truncated': (['backbone.checkpoint=cut.safetensors'], r"'cut.safetensors' cannot be read"),
    'other weights': (
        ['backbone.checkpoint=other.safetensors'],
        r'matches 0 of \d+ tensors; missing: cls_token',
    ),
    'option': (['backbone.out_indces=1'], r'out_indces.*out_indices'),
}


@pytest.mark.parametrize('config', [MASK2FORMER, UPERNET], ids=['mask2former', 'upernet'])
@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_line_before_the_start(train, capsys, config, case):
    save_file({'conv1.weight': torch.zeros(3)}, 'other.safetensors')
    Path('cut.safetensors').write_bytes(Path('other.safetensors').read_bytes()[:40])
    options, message = BAD[case]
    assert train(_command(config, *(f'model.{option}' for option in options))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('error: ')
    assert re.search(message, lines[0]), lines[0]
    assert not Path('work_dirs', Path(config).stem, 'epoch_1.pth').exists()


def test_missing_dataset_is_one_line(train, capsys):
    options = ['train_dataloader.dataset.data_prefix.img_path=nowhere']
    assert train(_command(UPERNET, *options)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(r"'data/shapes/nowhere' does not exist", lines[0])


def test_same_seed_trains_from_the_same_weights(train):
    seeds = []
    for work_dir in ('a', 'b'):
        once = [
            'train_cfg.max_epochs=1',
            'optim_wrapper.optimizer.lr=0.',
        ]
        assert train([*_command(UPERNET, *once), '--work-dir', work_dir]) == 0
        vit = ViTFeatBackbone(
            'vit_tiny_patch16_224',
            patch_size=8,
            out_indices=0,
            norm='all',
            img_size=(128, 192),
            checkpoint=f'{work_dir}/epoch_1.pth',
        )
        seeds.append(float(np.sum([p.double().sum().item() for p in vit.parameters()])))
    assert seeds[0] == seeds[1]


STOCK = """
_base_ = '{base}'
custom_imports = dict(imports=['vit_backbones'])
"""


@pytest.mark.parametrize(
    'base',
    [
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    ],
)
def test_stock_config_gets_as_far_as_its_missing_data(train, capsys, base):
    Path('stock.py').write_text(STOCK.format(base=base))
    assert train(['stock.py']) == 2
    assert re.search(r'data/\S+ does not exist', capsys.readouterr().err)


def test_inherited_pretrained_is_explained(train, capsys):
    options = 'model.pretrained=open-mmlab://resnet50_v1c', 'model.backbone.pretrained=None'
    assert train(_command(UPERNET, *options)) == 2
    line = capsys.readouterr().err
    assert re.search(r"pretrained must be True or False, got 'open-mmlab.*Set it to None", line)


def test_pretrained_in_two_places_is_explained(train, capsys):
    assert train(_command(UPERNET, 'model.pretrained=open-mmlab://resnet50_v1c')) == 2
    line = capsys.readouterr().err
    assert line.startswith('error: model.pretrained and model.backbone.pretrained are both given: ')


def test_delete_without_anything_to_replace_is_explained():
    error = TypeError("Neck.__init__() got an unexpected keyword argument '_delete_'")
    line = describe(error)
    assert 'leave _delete_ out' in line
    assert describe(ValueError(line)) == line  # its fix stands there once


def test_builtin_data_in_one_folder_and_read_from_another(train, capsys):
    assert train(_command(UPERNET, 'builtin_data.root=data/tiny')) == 2
    assert re.search(
        r"root is 'data/tiny', but train_data.*'data/shapes/'", capsys.readouterr().err
    )
    assert not Path('data').exists()


def test_nothing_is_drawn_for_a_wrong_model(train):
    assert train(_command(UPERNET, 'model.backbone.model_name=vit_tny')) == 2
    assert not Path('data').exists()


@pytest.mark.parametrize(
    ('option', 'place'),
    [('channels=8', 'model.decode_head.channels'), ('data_root=x', 'builtin_data')],
)
def test_variable_of_the_config_file_is_refused(train, capsys, option, place):
    assert train(_command(UPERNET, option)) == 2
    line = capsys.readouterr().err
    assert re.search(r'is a variable of the config file, which nothing reads any more', line)
    if place != 'builtin_data':
        assert place in line


def test_nothing_is_drawn_for_missing_weights(evaluate, capsys):
    assert evaluate([UPERNET, 'gone.pth']) == 2
    assert re.search(r"'gone.pth' does not exist", capsys.readouterr().err)
    assert not Path('data').exists()


def test_unwritable_show_dir_is_one_line_before_the_start(evaluate, capsys):
    Path('file').touch()
    torch.save({'state_dict': {'a': torch.zeros(1)}}, 'a.pth')
    assert evaluate([UPERNET, 'a.pth', '--show-dir', 'file/seen']) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path('data').exists()
