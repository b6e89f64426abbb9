"""Whether this package is as fast and as frugal as it promises."""

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vit_backbones.benchmark.cases import CASES, Case
from vit_backbones.benchmark.cost import flops_and_floor
from vit_backbones.benchmark.measuring import memory_of
from vit_backbones.benchmark.report import (
    describe_environment,
    heading,
    write_json,
)
from vit_backbones.benchmark.subjects import Subject, of_backbone
from vit_backbones.benchmark.table import table_row
from vit_backbones.benchmark.timing import interleaved
from vit_backbones.files import check_writable

Figures = dict[str, dict[str, float]]  # of candidates, by kind

# Of the table whose rows `goal_row` writes
HEADING = (
    table_row(['case', 'what', 'ratio', 'measured', 'target', 'verdict']),
    table_row(['---'] * 6),
)


def run_targets(
    names: Sequence[str] = (),
    *,
    peak_tflops: float | None = None,
    out: Path | None = None,
    cases: Mapping[str, Case] = CASES,
) -> int:
    """Measure cases, and print a row of a table for each goal.

    Args:
        names: Of the cases, all by default.
        peak_tflops: What the GPU can do in the case's type, to tell how much of it is used.
        out: JSON file: `environment`, with the `gpu` if there is one, and `goals` as `judged`
            gives them.
        cases: By name.

    Returns:
        Exit code: 1 if a goal is missed.

    Raises:
        ValueError: For an unknown case.
        OSError: If the output cannot be written.
    """
    _check_names(names, cases)
    if out is not None:
        check_writable(out)
    environment = describe_environment(torch.device('cpu'))
    if torch.cuda.is_available():
        environment['gpu'] = torch.cuda.get_device_name()
    print(heading(environment), '', sep='\n')
    print(*HEADING, sep='\n', flush=True)
    goals: list[dict[str, Any]] = []
    for name in names or cases:
        print(f'{name} ...', file=sys.stderr, flush=True)
        for goal in judged(name, cases[name]):
            goals.append(goal)
            print(goal_row(goal), flush=True)
    _tell_utilisation(goals, peak_tflops)
    if out is not None:
        write_json(out, environment=environment, goals=goals)
    return 1 if any(goal['verdict'] == 'miss' for goal in goals) else 0


def goal_row(goal: Mapping[str, Any]) -> str:
    """A goal as `judged` gives it, in a row of Markdown."""
    measured = '' if goal['measured'] is None else f'{goal["measured"]:.3g}'
    cells = goal['case'], goal['what'], goal['ratio'], measured, goal['target'], goal['verdict']
    return table_row(cells)


def judged(name: str, case: Case) -> Iterator[dict[str, Any]]:
    """What becomes of each goal of a case.

    Args:
        name: Of the case.
        case: It is measured here.

    Yields:
        `case`, `what`, `ratio` (of which candidates), `measured`, `target`, `verdict` (`'pass'`,
        `'miss'` or why it was not run), and the `figures` of all candidates: `time` in ms,
        `memory` in MiB, `gradients`, `tflops`.
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
    """Of the last one the largest gradient, of the others the largest difference from its."""
    steps = {name: [p.grad for p in s.model.parameters()] for name, s in subjects.items()}
    *others, last = steps
    figures = {last: max(each.abs().max().item() for each in steps[last])}
    for name in others:
        pairs = zip(steps[name], steps[last], strict=True)
        figures[name] = max((a - b).abs().max().item() for a, b in pairs)
    return figures


def _check_names(names: Sequence[str], cases: Mapping[str, Case]) -> None:
    for name in names:
        if name not in cases:
            close = difflib.get_close_matches(name, cases, n=1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise ValueError(f'no case {name!r}; there are {", ".join(cases)}{hint}')


def _tell_utilisation(goals: Sequence[Mapping[str, Any]], peak: float | None) -> None:
    """How much of a GPU the model's own arithmetic uses."""
    told = {goal['case']: goal['figures'].get('tflops', {}) for goal in goals}
    for case, figures in told.items():
        for name, tflops in figures.items():
            part = f', {tflops / peak:.0%} of {peak:g}' if peak else ''
            print(f'{case}: {name} {tflops:.1f} TFLOP/s{part}')
