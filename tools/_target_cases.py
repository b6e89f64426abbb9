"""The speed and memory that this package promises: what is measured, beside what."""

from collections.abc import Callable
from functools import partial
from typing import Any

import _target_subjects as subjects
import torch
from _target_eomt_cases import EOMT_CASES
from _target_goals import Case, Goal
from torch import nn

from vit_backbones.attention.windows import in_one_call
from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.step_peers import unfuse
from vit_backbones.benchmark.subjects import Setting, Subject, build_backbone, of_backbone
from vit_backbones.benchmark.training_step import TrainingStep
from vit_backbones.benchmark.written_out import WrittenOut

NOISE = 0.03  # two runs of one model differ by so much


def _ours(case: Case, **options: Any) -> nn.Module:
    options = {'out_indices': 'even4'} | options
    return build_backbone(case.model, 'timm', case.setting.size, **options)


def _peer(case: Case, library: str) -> nn.Module:
    return build_peer(library, _ours(case), case.setting.size)


def _explicit(case: Case) -> nn.Module:
    """timm's blocks with an explicit softmax, as in ViTDet's code."""
    return unfuse(_ours(case))


def _vitdet(case: Case) -> nn.Module:
    return _ours(case, use_rel_pos=True, with_cls_token=False, **_WINDOWS)


def _written_out(case: Case) -> nn.Module:
    """ViTDet's formulas as they are written."""
    return WrittenOut(_vitdet(case), _WINDOWS['window_size'], _WINDOWS['window_block_indexes'])


def _of_size(case: Case, side: int, **options: Any) -> Subject:
    """A backbone for images of another size than the case's."""
    case = case._replace(setting=case.setting._replace(size=(side, side)))
    return of_backbone(_ours(case, **options), case.setting)


def _windows_in_one_call(case: Case, side: int) -> Subject:
    subject = _of_size(case, side, **_WINDOWS)

    def run() -> Any:
        with in_one_call(True):
            return subject.run()

    return subject._replace(run=run)


def _loss(case: Case, batch_size: int, **options: Any) -> Subject:
    return subjects.loss(case.setting._replace(batch_size=batch_size), **options)


def _step(case: Case, build: Callable[[Setting], TrainingStep]) -> TrainingStep:
    return build(case.setting)


def _deformable(case: Case, **options: Any) -> Subject:
    return subjects.deformable(case.setting, **options)


def _matrix_product(case: Case) -> Subject:
    return subjects.matrix_product(case.setting)


def _floor(case: Case) -> Subject:
    eager = case.setting._replace(compiled=False)
    return subjects.floor(lambda: of_backbone(_ours(case), eager), case.setting)


_SMALL, _BASE = 'vit_small_patch16_224', 'vit_base_patch16_224'
_LARGE = 'vit_large_patch16_224'
_GPU = dict(dtype='bf16', device=torch.device('cuda'))
_HALF, _WHOLE = Setting((512, 512)), Setting((1024, 1024))
_PEERS = {'timm': partial(_peer, library='timm'), 'mmseg': partial(_peer, library='mmseg')}
_AS_TIMM = Goal('ours', 'timm', 1.0, allowance=NOISE)
_BEFORE_MMSEG = Goal('mmseg', 'ours', 1.35, at_least=True)
_WINDOWS = dict(window_size=14, window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10))


def _beside_peers(what: str, model: str) -> Case:
    return Case(
        f'forward, {what}, 512x512, fp32, 4 maps',
        model,
        _HALF,
        {'ours': _ours} | _PEERS,
        (_AS_TIMM, _BEFORE_MMSEG),
        repeats=11,
    )


def _busy(batch_size: int) -> Case:
    return Case(
        f'training step, Mask2Former, DINOv2-B, 1024x1024, batch {batch_size}, bf16, GPU',
        'vit_base_patch14_dinov2',
        Setting((1024, 1024), batch_size, mode='train', **_GPU),
        {
            'ours': partial(_step, build=subjects.mask2former),
            'mmdet': partial(_step, build=partial(subjects.mask2former, stock=True)),
        },
        (
            Goal('ours', None, 1.25, figure='wall over kernels'),
            Goal('mmdet', 'ours', 1.8, at_least=True),
        ),
    )


CASES: dict[str, Case] = {
    'small': _beside_peers('ViT-S', _SMALL),
    'base': _beside_peers('ViT-B', _BASE),
    'bf16': Case(
        'forward, ViT-S, 512x512, bf16 autocast',
        _SMALL,
        _HALF._replace(dtype='bf16'),
        {'ours': _ours, 'timm': _PEERS['timm']},
        (_AS_TIMM,),
        repeats=11,
    ),
    'frozen': Case(
        'training step, ViT-S, 512x512, frozen backbone',
        _SMALL,
        _HALF._replace(mode='train'),
        {'frozen': partial(_ours, frozen_stages=12), 'learning': _ours},
        (Goal('frozen', 'learning', 0.32),),
    ),
    'early': Case(
        'forward, ViT-S, 512x512, out_indices=(2,) of 12',
        _SMALL,
        _HALF,
        {'early': partial(_ours, out_indices=(2,)), 'full': partial(_ours, out_indices=-1)},
        (Goal('early', 'full', 0.30),),
    ),
    'windows': Case(
        'forward, ViT-S, 1024x1024, window 14 in 8 of 12 blocks',
        _SMALL,
        _WHOLE,
        {'global': _ours, 'windows': partial(_ours, **_WINDOWS)},
        (
            Goal('global', 'windows', 1.45, at_least=True),
            Goal('windows', 'global', 1.05, figure='memory'),
        ),
        repeats=5,
    ),
    'checkpointing': Case(
        'training step, ViT-S, 512x512, batch 8, with_cp',
        _SMALL,
        _HALF._replace(mode='train', batch_size=8),
        {'with_cp': partial(_ours, with_cp=True), 'without': _ours},
        (
            Goal('with_cp', 'without', 0.50, figure='memory'),
            Goal('with_cp', 'without', 1e-5, figure='gradients'),
        ),
    ),
    'gpu': Case(
        'training step, ViT-B, 1024x1024, bf16, GPU',
        _BASE,
        _WHOLE._replace(mode='train', dtype='bf16', device=torch.device('cuda')),
        {'ours': _ours, 'explicit softmax': _explicit},
        (Goal('explicit softmax', 'ours', 2.0, at_least=True),),
        repeats=20,
        utilisation=True,
    ),
    'counted_windows': Case(
        'forward, ViT-S, window 14 in 8 of 12 blocks, all windows in one call, counted',
        _SMALL,
        _HALF,
        {
            'global': partial(_of_size, side=512),
            'windows': partial(_windows_in_one_call, side=512),
            'windows at 1024': partial(_windows_in_one_call, side=1024),
        },
        (
            Goal('windows', 'global', 2.0, figure='operators'),
            Goal('windows at 1024', 'windows', 1.0, figure='operators'),
        ),
    ),
    'counted_loss': Case(
        "Mask2Former's losses, 10 outputs, 5 objects an image, counted",
        _SMALL,
        Setting((256, 256), mode='train'),
        {
            'batch 2': partial(_loss, batch_size=2),
            'batch 8': partial(_loss, batch_size=8),
        },
        tuple(
            Goal(batch, None, bound, figure=figure)
            for figure, bound in (('operators', 900), ('synchronisations', 2))
            for batch in ('batch 2', 'batch 8')
        ),
    ),
    'loss_memory': Case(
        "Mask2Former's losses, batch 8, forward and backward",
        _SMALL,
        Setting((256, 256), mode='train'),
        {
            'ours': partial(_loss, batch_size=8),
            'mmdet': partial(_loss, batch_size=8, stock=True),
        },
        (Goal('ours', 'mmdet', 1.2, figure='memory'),),
    ),
    'gpu_windows': Case(
        'forward, ViT-B, 1024x1024, batch 4, bf16, GPU',
        _BASE,
        Setting((1024, 1024), 4, **_GPU),
        {'global': _ours, 'windows': partial(_ours, **_WINDOWS)},
        (Goal('windows', 'global', 0.80),),
        repeats=20,
    ),
    'gpu_vitdet': Case(
        'training step, ViT-B, 1024x1024, batch 4, bf16, GPU',
        _BASE,
        Setting((1024, 1024), 4, mode='train', **_GPU),
        {
            'global': _ours,
            'windows': partial(_ours, **_WINDOWS),
            'rel_pos': _vitdet,
            'written out': _written_out,
        },
        (
            Goal('windows', 'global', 0.85),
            Goal('rel_pos', 'global', 1.6),
            Goal('rel_pos', 'global', 1.45, figure='memory'),
            Goal('written out', 'rel_pos', 1.5, at_least=True),
        ),
        repeats=20,
    ),
    'gpu_windows_1536': Case(
        'training step, ViT-B, 1536x1536, batch 2, bf16, GPU',
        _BASE,
        Setting((1536, 1536), 2, mode='train', **_GPU),
        {'global': _ours, 'windows': partial(_ours, **_WINDOWS)},
        (Goal('windows', 'global', 0.65),),
        repeats=20,
    ),
    'gpu_deformable': Case(
        'deformable attention, forward and backward, maps of 1024x1024, batch 2, GPU',
        _BASE,
        Setting((1024, 1024), 2, mode='train', **_GPU),
        {'ours': _deformable, 'grid_sample': partial(_deformable, stock=True)},
        (
            Goal('ours', 'grid_sample', 0.4),
            Goal('ours', 'grid_sample', 0.4, figure='memory'),
        ),
        repeats=20,
    ),
    'gpu_mask2former_2': _busy(2),
    'gpu_mask2former_8': _busy(8),
    'gpu_drawn_shapes': Case(
        'training step, configs/mask2former_vit.py, batch 8, GPU',
        'vit_tiny_patch16_224',
        Setting((128, 192), 8, mode='train', device=torch.device('cuda')),
        {'ours': partial(_step, build=subjects.drawn_shapes)},
        (Goal('ours', None, 60, unit='ms'),),
        repeats=20,
    ),
    'gpu_large': Case(
        'training step, ViT-L, 1024x1024, batch 8, bf16, compiled, GPU',
        _LARGE,
        Setting((1024, 1024), 8, mode='train', compiled=True, **_GPU),
        {'ours': _ours, 'matrix product': _matrix_product},
        (Goal('ours', 'matrix product', 0.55, at_least=True, figure='tflops'),),
        repeats=20,
        utilisation=True,
    ),
    'gpu_small': Case(
        'training step, ViT-S, 512x512, bf16, compiled, GPU',
        _SMALL,
        _HALF._replace(mode='train', compiled=True, **_GPU),
        {'ours': _ours, 'floor': _floor},
        (Goal('ours', 'floor', 1.6),),
        repeats=20,
    ),
}
CASES |= EOMT_CASES
