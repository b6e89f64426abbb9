"""The speed and memory that this package promises: what is compared, and which ratio is enough."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.subjects import Setting, build_backbone

NOISE = 0.03  # two runs of one model differ by so much
Build = Callable[['Case'], nn.Module]


class Goal(NamedTuple):
    """A ratio of two candidates' figures.

    Attributes:
        over: Candidate above the line.
        under: Candidate below it.
        bound: What the ratio shall not miss.
        at_least: Whether it shall be as large, else as small.
        figure: `'time'`, `'memory'`, or with that also `'gradients'`, the largest difference of
            them above the largest of them.
        allowance: What may be missed of `bound`, as a part of it.
    """

    over: str
    under: str
    bound: float
    at_least: bool = False
    figure: str = 'time'
    allowance: float = 0.0

    def verdict(self, ratio: float) -> str:
        """`'pass'` or `'miss'`."""
        if self.at_least:
            return 'pass' if ratio >= self.bound * (1 - self.allowance) else 'miss'
        return 'pass' if ratio <= self.bound * (1 + self.allowance) else 'miss'

    @property
    def target(self) -> str:
        """In words."""
        noise = f' ({self.allowance:.0%} for noise)' if self.allowance else ''
        return f'at {"least" if self.at_least else "most"} {self.bound:.3g}{noise}'


class Case(NamedTuple):
    """Candidates of one run.

    Attributes:
        what: As people read it.
        model: timm's name.
        setting: Of all candidates.
        candidates: How each is built.
        goals: What their figures shall be.
        repeats: Rounds that count.
    """

    what: str
    model: str
    setting: Setting
    candidates: Mapping[str, Build]
    goals: tuple[Goal, ...]
    repeats: int = 7


def _ours(case: Case, **options: Any) -> nn.Module:
    options = {'out_indices': 'even4'} | options
    return build_backbone(case.model, 'timm', case.setting.size, **options)


def _peer(case: Case, library: str) -> nn.Module:
    return build_peer(library, _ours(case), case.setting.size)


def _explicit(case: Case) -> nn.Module:
    """timm's blocks with the softmax written out, as ViTDet's code has it."""
    model = _ours(case)
    for module in model.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
    return model


def _with(**options: Any) -> Build:
    return partial(_ours, **options)


_SMALL, _BASE = 'vit_small_patch16_224', 'vit_base_patch16_224'
_HALF, _WHOLE = Setting((512, 512)), Setting((1024, 1024))
_PEERS = {'timm': partial(_peer, library='timm'), 'mmseg': partial(_peer, library='mmseg')}
_AS_TIMM = Goal('ours', 'timm', 1.0, allowance=NOISE)
_BEFORE_MMSEG = Goal('mmseg', 'ours', 1.35, at_least=True)
_WINDOWS = dict(window_size=14, window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10))

CASES: dict[str, Case] = {
    'small': Case(
        'forward, ViT-S, 512x512, fp32, 4 maps',
        _SMALL,
        _HALF,
        {'ours': _ours} | _PEERS,
        (_AS_TIMM, _BEFORE_MMSEG),
        repeats=11,
    ),
    'base': Case(
        'forward, ViT-B, 512x512, fp32, 4 maps',
        _BASE,
        _HALF,
        {'ours': _ours} | _PEERS,
        (_AS_TIMM, _BEFORE_MMSEG),
        repeats=11,
    ),
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
        {'frozen': _with(frozen_stages=12), 'learning': _ours},
        (Goal('frozen', 'learning', 0.32),),
    ),
    'early': Case(
        'forward, ViT-S, 512x512, out_indices=(2,) of 12',
        _SMALL,
        _HALF,
        {'early': _with(out_indices=(2,)), 'full': _with(out_indices=-1)},
        (Goal('early', 'full', 0.30),),
    ),
    'windows': Case(
        'forward, ViT-S, 1024x1024, window 14 in 8 of 12 blocks',
        _SMALL,
        _WHOLE,
        {'global': _ours, 'windows': _with(**_WINDOWS)},
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
        {'with_cp': _with(with_cp=True), 'without': _ours},
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
    ),
}
