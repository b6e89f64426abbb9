import json
from functools import partial

import _target_cases
import _target_eomt
import _target_subjects
import _targets as targets
import pytest
import torch
from _target_cases import CASES
from _target_goals import Case, Goal
from _targets import run_targets

from vit_backbones.benchmark.measuring import flops_and_floor
from vit_backbones.benchmark.subjects import Setting, Subject, build_backbone, of_backbone


def ours(case, **options):
    return build_backbone(case.model, 'timm', case.setting.size, **options)


SETTING = Setting((64, 96))
MEMORY = Case(
    'with_cp',
    'test_vit',
    SETTING._replace(mode='train', batch_size=16),
    {'with_cp': partial(ours, with_cp=True), 'without': ours},
    (
        Goal('with_cp', 'without', 0.9, figure='memory'),
        Goal('with_cp', 'without', 1e-5, figure='gradients'),
    ),
)


@pytest.fixture
def timed(monkeypatch):
    """Runs a case with two candidates that take the given times."""

    def run(a, b, *goals, out=None):
        times = {'a': a, 'b': b}
        monkeypatch.setattr(targets, 'interleaved', lambda steps, *_, **__: times)
        case = Case('fake', 'test_vit', SETTING, {'a': ours, 'b': ours}, goals)
        return run_targets(cases={'fake': case}, out=out)

    return run


@pytest.mark.parametrize(
    ('a', 'goal', 'verdict'),
    [
        (1.02, Goal('a', 'b', 1.0, allowance=0.03), 'pass'),
        (1.04, Goal('a', 'b', 1.0, allowance=0.03), 'miss'),
        (1.02, Goal('a', 'b', 1.0), 'miss'),
        (1.36, Goal('a', 'b', 1.35, at_least=True), 'pass'),
        (1.34, Goal('a', 'b', 1.35, at_least=True), 'miss'),
    ],
)
def test_verdict_and_exit_code(a, goal, verdict, timed, capsys):
    assert timed(a, 1.0, goal) == (1 if verdict == 'miss' else 0)
    assert f'| time, a / b | {a:.3g} | {goal.target} | {verdict} |' in capsys.readouterr().out


def test_one_miss_of_two_is_a_miss(timed):
    assert timed(1.0, 2.0, Goal('a', 'b', 0.6), Goal('a', 'b', 0.4)) == 1


def test_record_holds_figures_and_verdicts(timed, tmp_path):
    timed(1.0, 2.0, Goal('a', 'b', 0.4), out=tmp_path / 'targets.json')
    record = json.loads((tmp_path / 'targets.json').read_text())
    (goal,) = record['goals']
    assert goal['measured'] == 0.5
    assert goal['verdict'] == 'miss'
    assert goal['figures'] == {'time': {'a': 1.0, 'b': 2.0}}
    assert record['environment']['versions']['torch'] == torch.__version__


def test_checkpointing_is_measured_with_equal_gradients(capsys):
    assert run_targets(cases={'cp': MEMORY}) == 0
    assert capsys.readouterr().out.count('| pass |') == 2


def test_other_gradients_are_a_miss(monkeypatch, capsys):
    monkeypatch.setattr(torch, 'manual_seed', lambda seed: None)  # so images and weights differ
    assert run_targets(cases={'cp': MEMORY}) == 1
    assert '| gradients, with_cp / without |' in capsys.readouterr().out


def test_gpu_case_says_what_it_needs(capsys, no_gpu):
    assert run_targets(['gpu']) == 0
    assert 'needs CUDA, not run' in capsys.readouterr().out


def test_unknown_case_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"no case 'smal'; there are small, .*mean 'small'"):
        run_targets(['smal'])


def test_every_goal_names_candidates():
    for case in CASES.values():
        for goal in case.goals:
            assert {goal.over, goal.under or goal.over} <= case.candidates.keys()


@pytest.mark.parametrize(
    'case', ['gpu_windows', 'gpu_vitdet', 'gpu_deformable', 'gpu_large', 'gpu_small']
)
def test_cases_of_gpus_measure_each_candidate(case, monkeypatch):
    """With small images and models, on a CPU."""
    monkeypatch.setattr(_target_subjects, '_SIDE', 32)
    monkeypatch.setattr(targets, 'memory_of', lambda subject: 1.0)  # measured above, and slow
    small = dict(size=(64, 96), batch_size=1, device=torch.device('cpu'), compiled=False)
    own = CASES[case]
    setting = own.setting._replace(**small)
    found = targets.measured_figures(
        own._replace(model='vit_tiny_patch16_224', setting=setting, repeats=1)
    )
    for goal in own.goals:
        assert found[goal.figure].keys() == own.candidates.keys()
        assert all(value > 0 for value in found[goal.figure].values())


@pytest.mark.parametrize('case', ['eomt', 'eomt_decoders', 'eomt_training', 'gpu_eomt'])
def test_cases_of_eomt_measure_each_candidate(case, monkeypatch):
    monkeypatch.setattr(targets, 'memory_of', lambda subject: 1.0)
    own = CASES[case]
    small = dict(size=(64, 64), batch_size=1, device=torch.device('cpu'))
    setting = own.setting._replace(**small)
    found = targets.measured_figures(own._replace(model='test_vit', setting=setting, repeats=1))
    for goal in own.goals:
        assert found[goal.figure].keys() == own.candidates.keys()
        assert all(value > 0 for value in found[goal.figure].values())


def test_both_eomts_have_the_same_parts():
    """But the peer's table of positions has no row for the CLS token, and timm's joins q, k, v."""
    setting, model = Setting((64, 64)), 'vit_small_patch14_reg4_dinov2'
    ours, theirs = (
        build(model, setting).parameters
        for build in (_target_eomt.eomt, _target_eomt.in_transformers)
    )
    assert ours == theirs


def test_images_per_second_are_of_the_batch(monkeypatch):
    times = {'a': 20.0}
    monkeypatch.setattr(targets, 'interleaved', lambda steps, *_, **__: times)
    case = Case('', 'test_vit', SETTING._replace(batch_size=4), {}, ())
    assert targets.FIGURES['images per second']({}, case) == {'a': 200.0}


def test_floor_is_the_arithmetic_of_a_training_step():
    setting = SETTING._replace(mode='train')
    case = Case('', 'test_vit', setting, {}, ())
    floor = CASES['gpu_small'].candidates['floor'](case)
    step = of_backbone(_target_cases._ours(case), setting)
    assert flops_and_floor(floor.visible_step)[0] == flops_and_floor(step.visible_step)[0]


@pytest.mark.parametrize(('figure', 'count'), [('operators', 3), ('synchronisations', 1)])
def test_counts_are_of_the_forward_pass(figure, count):
    model = torch.nn.Linear(2, 1)
    setting = SETTING._replace(mode='train')

    def run():
        loss = model.weight.sum()  # one operator
        loss.item()  # two, and a wait
        return loss * 1  # three

    case = Case('', '', setting, {'a': lambda case: Subject(model, run, setting)}, ())
    goal = Goal('a', None, count, figure=figure)
    (judged,) = targets.judged('a', case._replace(goals=(goal,)))
    assert (judged['measured'], judged['verdict']) == (count, 'pass')
    assert judged['ratio'] == f'{figure}, a'
    (judged,) = targets.judged('a', case._replace(goals=(goal._replace(bound=count - 1),)))
    assert judged['verdict'] == 'miss'


def test_losses_are_of_the_stock_head_where_it_is_asked_for():
    stock = _target_subjects.loss(Setting((64, 64), 1, mode='train'), stock=True)
    assert type(stock.model).__name__ == 'Mask2FormerHead'
    assert stock.run().isfinite()


def test_bound_of_a_figure_has_its_unit():
    assert Goal('a', None, 60, unit='ms').target == 'at most 60 ms'
    assert Goal('a', None, 60, unit='ms').compared == 'time, a'
