"""The speed and memory that this package promises, and whether they hold."""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vit_backbones.benchmark.measuring import flops_and_floor, interleaved, memory_of
from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.results import (
    describe_environment,
    heading,
    table_head,
    table_row,
    write_json,
)
from vit_backbones.benchmark.subjects import Setting, Subject, build_backbone, of_backbone
from vit_backbones.files import check_writable

NOISE = 0.03  # two runs of one model differ by so much
Build = Callable[['Case'], nn.Module]
Figures = dict[str, dict[str, float]]  # by kind, then by candidate

# The head of the table whose rows `goal_row` writes
HEADING = table_head(['case', 'what', 'ratio', 'measured', 'target', 'verdict'])


class Goal(NamedTuple):
    """The ratio of two candidates' figures, at most `bound` if not `at_least`.

    Attributes:
        figure: `'time'`, `'memory'`, or beside one of them `'gradients'`: their largest difference
            over the largest of them.
        allowance: Part of `bound` by which the ratio may miss it.
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
        """The goal in words."""
        noise = f' ({self.allowance:.0%} for noise)' if self.allowance else ''
        return f'at {"least" if self.at_least else "most"} {self.bound:.3g}{noise}'


class Case(NamedTuple):
    """Candidates that one run compares, and the ratios that their figures must reach."""

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
    """timm's blocks with an explicit softmax, as in ViTDet's code."""
    model = _ours(case)
    for module in model.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
    return model


_SMALL, _BASE = 'vit_small_patch16_224', 'vit_base_patch16_224'
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
    ),
}


def run_targets(
    names: Sequence[str] = (),
    *,
    peak_tflops: float | None = None,
    out: Path | None = None,
    cases: Mapping[str, Case] = CASES,
) -> int:
    """Measure cases, print a row for each goal, and give the exit code: 1 if one is missed.

    Args:
        names: Keys of `cases`, all by default.
        peak_tflops: The GPU's peak in the case's type, to show how much of it is used.
        out: JSON file: `environment`, with the `gpu` if there is one, and `goals` from `judged`.
    """
    _check_names(names, cases)
    if out is not None:
        check_writable(out)
    environment = describe_environment(torch.device('cpu'))
    if torch.cuda.is_available():
        environment['gpu'] = torch.cuda.get_device_name()
    print(heading(environment), '', *HEADING, sep='\n', flush=True)
    goals: list[dict[str, Any]] = []
    for name in names or cases:
        print(f'{name} ...', file=sys.stderr, flush=True)
        for goal in judged(name, cases[name]):
            goals.append(goal)
            print(goal_row(goal), flush=True)
    for line in _utilisation(goals, peak_tflops):
        print(line)
    if out is not None:
        write_json(out, environment=environment, goals=goals)
        print(f'wrote {out}')
    return 1 if any(goal['verdict'] == 'miss' for goal in goals) else 0


def _check_names(names: Sequence[str], cases: Mapping[str, Case]) -> None:
    for name in names:
        if name not in cases:
            close = difflib.get_close_matches(name, cases, n=1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise ValueError(f'no case {name!r}; there are {", ".join(cases)}{hint}')


def judged(name: str, case: Case) -> Iterator[dict[str, Any]]:
    """Measure a case, and judge each of its goals: `verdict` is `'pass'`, `'miss'` or a reason.

    `figures` are those of all candidates: `time` in ms, `memory` in MiB, `gradients`, `tflops`.
    """
    missing = case.setting.device.type == 'cuda' and not torch.cuda.is_available()
    figures = {} if missing else measured_figures(case)
    for goal in case.goals:
        ratio = None
        if not missing:
            ratio = figures[goal.figure][goal.over] / figures[goal.figure][goal.under]
        yield dict(
            case=name,
            what=case.what,
            ratio=f'{goal.figure}, {goal.over} / {goal.under}',
            measured=ratio,
            target=goal.target,
            verdict='needs CUDA, not run' if missing else goal.verdict(ratio),
            figures=figures,
        )


def goal_row(goal: Mapping[str, Any]) -> str:
    """A judged goal in a row of Markdown."""
    measured = '' if goal['measured'] is None else f'{goal["measured"]:.3g}'
    cells = goal['case'], goal['what'], goal['ratio'], measured, goal['target'], goal['verdict']
    return table_row(cells)


def measured_figures(case: Case) -> Figures:
    """Figures of all candidates, of the kinds that the goals need."""
    subjects, kinds = {}, {goal.figure for goal in case.goals}
    for name, build in case.candidates.items():
        torch.manual_seed(0)  # the same weights and images
        subjects[name] = of_backbone(build(case), case.setting)
    figures: Figures = {}
    if 'time' in kinds:
        steps = {name: subject.step for name, subject in subjects.items()}
        figures['time'] = interleaved(steps, case.repeats, case.setting.device, warm_ups=1)
    if 'memory' in kinds:
        figures['memory'] = {name: memory_of(subject) for name, subject in subjects.items()}
    if 'gradients' in kinds:
        figures['gradients'] = _gradients(subjects)
    if case.setting.device.type == 'cuda':
        figures['tflops'] = {
            name: flops_and_floor(subject.visible_step)[0] / figures['time'][name] / 1e9
            for name, subject in subjects.items()
        }
    return figures


def _gradients(subjects: Mapping[str, Subject]) -> dict[str, float]:
    """The largest gradient of the last one, and the largest difference of the others from it."""
    steps = {name: [p.grad for p in s.model.parameters()] for name, s in subjects.items()}
    *others, last = steps
    figures = {last: max(each.abs().max().item() for each in steps[last])}
    for name in others:
        pairs = zip(steps[name], steps[last], strict=True)
        figures[name] = max((a - b).abs().max().item() for a, b in pairs)
    return figures


def _utilisation(goals: Sequence[Mapping[str, Any]], peak: float | None) -> Iterator[str]:
    """The share of a GPU that the model's own arithmetic uses, a line per candidate."""
    speeds = {goal['case']: goal['figures'].get('tflops', {}) for goal in goals}
    for case, figures in speeds.items():
        for name, tflops in figures.items():
            part = f', {tflops / peak:.0%} of {peak:g}' if peak else ''
            yield f'{case}: {name} {tflops:.1f} TFLOP/s{part}'
