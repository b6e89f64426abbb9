"""Whether the speed and memory that this package promises hold."""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _target_cases import CASES
from _target_goals import Case, Measured

from vit_backbones.benchmark.counting import Counts, counted
from vit_backbones.benchmark.measuring import flops_and_floor, interleaved, memory_of
from vit_backbones.benchmark.results import (
    describe_environment,
    digits,
    heading,
    table_head,
    table_row,
    write_json,
)
from vit_backbones.benchmark.step_parts import Parts, kernels
from vit_backbones.benchmark.subjects import of_backbone
from vit_backbones.files import check_writable

Figures = dict[str, dict[str, float]]  # by kind, then by candidate

# The head of the table whose rows `goal_row` writes
HEADING = table_head(['case', 'what', 'ratio', 'measured', 'target', 'verdict'])


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

    `figures` are those of all candidates, by kind: the keys of `FIGURES`, and `gradients`.
    """
    missing = case.setting.device.type == 'cuda' and not torch.cuda.is_available()
    figures = {} if missing else measured_figures(case)
    for goal in case.goals:
        measured = None
        if not missing:
            own = figures[goal.figure]
            measured = own[goal.over] / (own[goal.under] if goal.under else 1)
        yield dict(
            case=name,
            what=case.what,
            ratio=goal.compared,
            measured=measured,
            target=goal.target,
            verdict='needs CUDA, not run' if missing else goal.verdict(measured),
            figures=figures,
        )


def goal_row(goal: Mapping[str, Any]) -> str:
    """A judged goal in a row of Markdown."""
    measured = '' if goal['measured'] is None else digits(goal['measured'])
    cells = goal['case'], goal['what'], goal['ratio'], measured, goal['target'], goal['verdict']
    return table_row(cells)


def _times(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    """Milliseconds of a step, in turns."""
    steps = {name: subject.step for name, subject in subjects.items()}
    return interleaved(steps, case.repeats, case.setting.device, warm_ups=1)


def _memory(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    return {name: memory_of(subject) for name, subject in subjects.items()}


def _counts(subjects: Mapping[str, Measured], case: Case) -> dict[str, Counts]:
    """What a forward pass does; in training that of the loss, without backward."""
    for subject in subjects.values():
        subject.visible_step()  # what is kept from the first step on counts no more
    training = case.setting.mode == 'train'
    return {
        name: counted(subject.run if training else subject.visible_step)
        for name, subject in subjects.items()
    }


def _operators(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    return {name: each.operators for name, each in _counts(subjects, case).items()}


def _synchronisations(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    return {name: each.synchronisations for name, each in _counts(subjects, case).items()}


def _speed(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    times = _times(subjects, case)
    return {name: 1e3 * case.setting.batch_size / each for name, each in times.items()}


def _wall_over_kernels(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    times = _times(subjects, case)
    return {
        name: times[name] / kernels(subject.step, Parts())['whole']
        for name, subject in subjects.items()
    }


def _tflops(subjects: Mapping[str, Measured], case: Case) -> dict[str, float]:
    times = _times(subjects, case)
    return {
        name: flops_and_floor(subject.visible_step)[0] / times[name] / 1e9
        for name, subject in subjects.items()
    }


FIGURES: dict[str, Callable[[Mapping[str, Measured], Case], dict[str, float]]] = {
    'time': _times,
    'images per second': _speed,
    'memory': _memory,
    'operators': _operators,
    'synchronisations': _synchronisations,
    'wall over kernels': _wall_over_kernels,
    'tflops': _tflops,
}


def measured_figures(case: Case) -> Figures:
    """Figures of all candidates, of the kinds that the goals need."""
    subjects, kinds = {}, {goal.figure for goal in case.goals}
    for name, build in case.candidates.items():
        torch.manual_seed(0)  # the same weights and images
        subject = build(case)
        ready = isinstance(subject, Measured)
        subjects[name] = subject if ready else of_backbone(subject, case.setting)
    if case.utilisation:
        kinds |= {'tflops'}
    figures = {kind: take(subjects, case) for kind, take in FIGURES.items() if kind in kinds}
    if 'gradients' in kinds:
        figures['gradients'] = _gradients(subjects)
    return figures


def _gradients(subjects: Mapping[str, Measured]) -> dict[str, float]:
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
