"""What EoMT promises, beside other models with the same ViT and beside transformers' EoMT."""

from functools import partial
from typing import Any

import _target_eomt as subjects
import torch
from _target_goals import Case, Goal

from vit_backbones.benchmark.subjects import Setting, Subject

_SMALL, _LARGE = 'vit_small_patch14_reg4_dinov2', 'vit_large_patch14_reg4_dinov2'
_GPU = dict(dtype='bf16', device=torch.device('cuda'))
_PEER = 'transformers'
_ADAPTED = 'ViT-Adapter + Mask2Former'


def _of(case: Case, build: subjects.Build, **options: Any) -> Subject:
    return build(case.model, case.setting, **options)


def _with_weights_in_bf16(case: Case, compile_mode: str) -> Subject:
    setting = case.setting._replace(dtype='fp32')  # no autocast
    return subjects.eomt(case.model, setting, half=True, compile_mode=compile_mode)


_OURS = partial(_of, build=subjects.eomt)
_THEIRS = partial(_of, build=subjects.in_transformers)
_DECODERS = {
    'Mask2Former': partial(_of, build=subjects.mask2former),
    _ADAPTED: partial(_of, build=subjects.adapter),
}


def _training(size: int, batch_size: int, **where: Any) -> Setting:
    return Setting((size, size), batch_size, mode='train', **where)


EOMT_CASES: dict[str, Case] = {
    'eomt': Case(
        'forward, EoMT-S, 512x512',
        _SMALL,
        Setting((512, 512)),
        {
            'ours': _OURS,
            'bare ViT': partial(_of, build=subjects.bare),
            _PEER: _THEIRS,
        },
        (Goal('ours', 'bare ViT', 1.30), Goal('ours', _PEER, 1.05)),
        repeats=11,
    ),
    'eomt_decoders': Case(
        'forward, DINOv2-S with 200 queries, 512x512',
        _SMALL,
        Setting((512, 512)),
        {'EoMT': _OURS} | _DECODERS,
        (
            Goal('Mask2Former', 'EoMT', 2.0, at_least=True),
            Goal(_ADAPTED, 'EoMT', 2.0, at_least=True),
        ),
        repeats=3,
    ),
    'eomt_training': Case(
        'training step, EoMT-S with masks, 1024x1024',
        _SMALL,
        _training(1024, 1),
        {'ours': _OURS, _PEER: _THEIRS},
        (
            Goal(_PEER, 'ours', 1.15, at_least=True),
            Goal('ours', _PEER, 0.6, figure='memory'),
        ),
        repeats=1,
    ),
    'gpu_eomt': Case(
        'forward, DINOv2-L with 200 queries, 640x640, bf16, GPU',
        _LARGE,
        Setting((640, 640), **_GPU),
        {'EoMT': _OURS, _PEER: _THEIRS} | _DECODERS,
        (
            Goal('EoMT', _PEER, 0.9),
            Goal('Mask2Former', 'EoMT', 1.0, at_least=True),
            Goal(_ADAPTED, 'EoMT', 3.5, at_least=True),
        ),
        repeats=20,
    ),
    'gpu_eomt_compiled': Case(
        'forward, EoMT-L, 640x640, bf16, compiled with CUDA graphs, GPU',
        _LARGE,
        Setting((640, 640), **_GPU),
        {
            'autocast': partial(_of, build=subjects.eomt, compile_mode='reduce-overhead'),
            'weights in bf16': partial(_with_weights_in_bf16, compile_mode='reduce-overhead'),
            'tuned': partial(_with_weights_in_bf16, compile_mode='max-autotune'),
        },
        (
            Goal('autocast', None, 128, at_least=True, figure='images per second'),
            Goal('weights in bf16', None, 128, at_least=True, figure='images per second'),
            Goal('tuned', None, 128, at_least=True, figure='images per second'),
        ),
        repeats=50,
    ),
    'gpu_eomt_training': Case(
        'training step, EoMT-L with masks, 1280x1280, batch 2, bf16, GPU',
        _LARGE,
        _training(1280, 2, **_GPU),
        {'ours': _OURS, _PEER: _THEIRS},
        (Goal('ours', _PEER, 0.8), Goal('ours', _PEER, 0.5, figure='memory')),
        repeats=10,
    ),
}
