"""Whether schedules fit the length of a training, and warm-ups that do not."""

from pathlib import Path

import pytest
import torch
from checked_configs import SEGMENTER, errors_of
from mmengine.registry import PARAM_SCHEDULERS

from vit_backbones.checks.placed_schedules import Length
from vit_backbones.checks.schedules import fitted, misfits
from vit_backbones.checks.training_parts import part_findings
from vit_backbones.config.facts import Facts, listed
from vit_backbones.config.loading import load_config, use_scope

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
TEN = load_config(CONFIGS / '_base_/schedules/adamw_cosine_10e.py').param_scheduler
FOUR = load_config(CONFIGS / '_base_/schedules/adamw_cosine_4e.py').param_scheduler
ITERS = load_config(CONFIGS / 'linear_probe/linear_vit-b-dinov2_ade20k.py').param_scheduler
HALF = 'it is shortened to half of the training'


def rates(schedules, length, epoch_length=1):
    """The rate of each iteration, of 1 without schedules, as MMEngine steps them."""
    group = dict(params=[torch.nn.Parameter(torch.zeros(1))], in_vit=False)
    optimizer = torch.optim.SGD([group], lr=1.0)
    defaults = dict(optimizer=optimizer, epoch_length=epoch_length)
    built = []
    for each in listed(schedules):
        whole = dict(end=length.in_steps_of(each)) | dict(each)
        built.append(PARAM_SCHEDULERS.build(whole, default_args=defaults))
    found = []
    for iteration in range(1, length.iters + 1):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for each in built:
            if not each.by_epoch or iteration % epoch_length == 0:
                each.step()
    return found


def of_epochs(number, epoch_length=None):
    return Length.of(dict(max_epochs=number), epoch_length)


def test_one_epoch_has_the_rates_of_two_of_half_the_length():
    one, two = of_epochs(1, 20), of_epochs(2, 10)
    schedules, lines = fitted(TEN, one)
    assert rates(schedules, one, 20) == rates(TEN, two, 10)
    assert lines == [
        'param_scheduler.0 (LinearLR) warms up until epoch 1, and the training ends no later '
        f'(train_cfg.max_epochs=1, 20 iterations): {HALF}'
    ]
    assert TEN[0].end == 1  # of the config


@pytest.mark.parametrize('number', [2, 3, 6, 10, 40])
def test_a_warm_up_that_ends_in_time_stays(number):
    length = of_epochs(number, 20)
    schedules, lines = fitted(TEN, length)
    assert (schedules, lines) == (TEN, [])
    found = rates(schedules, length, 20)
    assert found.index(max(found)) == 19  # the last of the first epoch
    assert found[-1] < 0.02


@pytest.mark.parametrize('number', [1, 2, 3, 4])
def test_sixty_iterations_of_warm_up_are_at_most_half_of_the_training(number):
    length = of_epochs(number, 8)
    schedules, lines = fitted(FOUR, length)
    assert schedules[0].end == 4 * number
    assert lines == [
        'param_scheduler.0 (LinearLR) warms up until iteration 60, and the training ends no later '
        f'(train_cfg.max_epochs={number}, {8 * number} iterations): {HALF}'
    ]
    warmed = rates(schedules, length, 8)
    cosine = rates(FOUR[1:], length, 8)
    assert warmed[4 * number - 1 :] == pytest.approx(cosine[4 * number - 1 :])


@pytest.mark.parametrize('iters', [2, 3, 100, 1500, 3000, 40000])
def test_a_training_of_fewer_iterations_comes_down_at_its_end(iters):
    length = Length.of(dict(max_iters=iters))
    schedules, lines = fitted(ITERS, length)
    warm_up = min(1500, max(1, iters // 2))
    assert (schedules[0].end, schedules[1].begin) == (warm_up, warm_up)
    assert len(lines) == (iters <= 1500)
    found = rates(schedules, length)
    assert max(found) == pytest.approx(1.0)
    assert found[-1] <= 1.0 / (iters - warm_up) + 1e-9


@pytest.mark.parametrize(('number', 'epoch_length'), [(1, 1), (1, 2), (1, 3), (2, 1), (5, 1)])
@pytest.mark.parametrize('schedules', [TEN, FOUR], ids=['10e', '4e'])
def test_a_warm_up_of_one_step_would_hold_the_rate_down(schedules, number, epoch_length):
    """MMEngine never takes the factor of the first step back."""
    length = of_epochs(number, epoch_length)
    shortened, (line,) = fitted(schedules, length)
    found = rates(shortened, length, epoch_length)
    assert max(found) > 0.3
    ends = 'which the rate would stay low: it is left out'
    assert line.endswith(ends) or line.endswith(HALF)
    assert line.endswith(ends) == (found[0] == 1.0)


def part(kind, begin, end, **more):
    return dict(type=kind, begin=begin, end=end, convert_to_iter_based=True, **more)


@pytest.mark.parametrize(
    ('schedule', 'said'),
    [
        (part('LinearLR', 0, 0.4), 'warms up until epoch 0.4, and has no step in'),
        (part('ConstantLR', 0, 0.3, factor=0.1), 'warms up until epoch 0.3, and has no step in'),
        (part('PolyLR', 0.2, 0.4), 'goes from epoch 0.2 to 0.4, less than an iteration of'),
        (part('ConstantLR', 0.3, 0.9), 'goes from epoch 0.3 to 0.9, less than an iteration of'),
    ],
)
@pytest.mark.parametrize('epoch_length', [1, 2])
def test_what_is_shorter_than_an_iteration_is_left_out(schedule, said, epoch_length):
    """MMEngine refuses it: end should be larger than begin."""
    length = of_epochs(4, epoch_length)
    rest = dict(type='CosineAnnealingLR', begin=schedule['end'], convert_to_iter_based=True)
    shown, lines = fitted([schedule, rest], length)
    name = f'param_scheduler.0 ({schedule["type"]})'
    if int(schedule['begin'] * epoch_length) == int(schedule['end'] * epoch_length):
        its = f'{4 * epoch_length} iterations'
        assert lines == [
            f'{name} {said} this training (train_cfg.max_epochs=4, {its}): it is left out'
        ]
        assert rates(shown, length, epoch_length) == rates([rest], length, epoch_length)
    else:
        assert (shown, lines) == ([schedule, rest], [])


@pytest.mark.parametrize(('schedules', 'top'), [(TEN, 10), (FOUR, 60)], ids=['10e', '4e'])
@pytest.mark.parametrize('iters', [300, 1000])
def test_schedules_by_epoch_end_with_a_training_by_iterations(schedules, top, iters):
    """MMEngine would end them with the first epoch."""
    length = Length.of(dict(max_iters=iters), 10)
    shown, lines = fitted(schedules, length)
    assert lines == []
    built = [each for each in shown if each['type'] == 'CosineAnnealingLR']
    assert [each['end'] * 10 for each in built] == [iters]
    found = rates(shown, length, 10)
    assert found.index(max(found)) in (top - 1, top)
    assert found[iters // 2] > 0.3
    assert found[-1] < 0.001


def test_a_warm_up_by_epoch_is_shortened_in_a_training_by_iterations():
    length = Length.of(dict(max_iters=12), 16)
    shown, lines = fitted(TEN, length)
    assert (shown[0].end, shown[1].begin, shown[1].end) == (0.375, 0.375, 0.75)
    assert lines == [
        'param_scheduler.0 (LinearLR) warms up until epoch 1, and the training ends no later '
        f'(train_cfg.max_iters=12): {HALF}'
    ]
    assert rates(shown, length, 16)[-1] < 0.1


def test_a_schedule_that_counts_epochs_in_a_training_by_iterations_never_steps():
    assert found(dict(type='CosineAnnealingLR'), max_iters=100) == [
        (
            'warning',
            'param_scheduler (CosineAnnealingLR) counts epochs, and the training iterations '
            '(train_cfg.max_iters=100): it never steps; set its by_epoch=False, and its begin and '
            'end in iterations',
        )
    ]
    assert found(dict(type='CosineAnnealingLR', by_epoch=False), max_iters=100) == []
    assert found(TEN, max_iters=100) == []


def test_schedules_of_several_optimizers_are_fitted_each():
    schedules, lines = fitted(dict(a=TEN, b=dict(FOUR[0])), of_epochs(1, 50))
    assert schedules['a'][1].begin == 0.5
    assert schedules['b']['end'] == 25
    assert [line.split(' warms')[0] for line in lines] == [
        'param_scheduler.0 (LinearLR)',
        'param_scheduler (LinearLR)',
    ]
    assert fitted(None, of_epochs(1, 50)) == (None, [])


def found(schedules, **training):
    length = Length.of(training)
    return [tuple(each) for each in misfits(fitted(schedules, length)[0], length)]


COSINE = dict(type='CosineAnnealingLR', eta_min=0.0)


@pytest.mark.parametrize(
    ('schedule', 'level', 'line'),
    [
        (
            dict(COSINE, begin=4),
            'error',
            'begins at epoch 4, when the training has ended (train_cfg.max_epochs=4): set its '
            'begin lower, or train longer',
        ),
        (
            dict(COSINE, begin=9, end=12),
            'warning',
            'begins at epoch 9, when the training has ended (train_cfg.max_epochs=4): set its '
            'begin lower, or train longer',
        ),
        (
            dict(COSINE, end=10),
            'warning',
            'comes down until epoch 10, and the training ends before (train_cfg.max_epochs=4): the '
            'rate does not get there; leave its end out, and it ends with the training',
        ),
        (
            dict(COSINE, T_max=10),
            'warning',
            'comes down until epoch 10, and the training ends before (train_cfg.max_epochs=4): the '
            'rate does not get there; leave its T_max out, and it ends with the training',
        ),
        (
            dict(COSINE, end=3),
            'warning',
            'ends at epoch 3, and the training later (train_cfg.max_epochs=4): the rest has the '
            'rate that is reached there; leave its end out, and it ends with the training',
        ),
        (
            dict(type='MultiStepLR', milestones=[2, 8, 11], end=12),
            'warning',
            'has the milestones 8, 11 behind the end of the training (train_cfg.max_epochs=4): the '
            'rate does not drop there; move them, or train longer',
        ),
        (
            dict(type='LinearLR', start_factor=1.0, end_factor=0.0, end=9),
            'warning',
            'comes down until epoch 9, and the training ends before (train_cfg.max_epochs=4): the '
            'rate does not get there; leave its end out, and it ends with the training',
        ),
    ],
)
def test_a_schedule_that_ends_elsewhere_has_its_line(schedule, level, line):
    text = f'param_scheduler ({schedule["type"]}) {line}'
    assert found(schedule, max_epochs=4) == [(level, text)]


def test_iterations_are_compared_with_iterations():
    poly = [dict(type='PolyLR', begin=5, end=60, by_epoch=False)]
    assert found(poly, max_epochs=4) == []  # of unknown length
    ((_, line),) = found(poly, max_iters=40)
    assert line.startswith('param_scheduler.0 (PolyLR) comes down until iteration 60, and the')
    assert found(poly, max_iters=60) == []


@pytest.mark.parametrize(
    'schedules',
    [
        [dict(COSINE, end=3), dict(type='ConstantLR', factor=1.0, begin=3, end=4)],  # as YOLOX has
        [dict(COSINE, begin=1, T_max=3)],
        [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=500)],
        [dict(type='MultiStepLR', milestones=[2, 3], end=12)],
        [dict(type='LinearLR', start_factor=0.5, end=2)],
    ],
)
def test_what_ends_with_the_training_has_no_line(schedules):
    assert found(schedules, max_epochs=4) == []


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_end_with_the_training_and_can_be_one_step_long(path):
    """As they are, and with `max_epochs=1`, or `max_iters=1`, of an epoch of three iterations."""
    config = load_config(path)
    schedules, length = config.param_scheduler, Length.of(config.train_cfg, 200)
    assert fitted(schedules, length) == (schedules, [])
    assert [*misfits(schedules, length)] == []
    last = listed(schedules)[-1]
    assert last.get('end', length.in_steps_of(last)) == length.in_steps_of(last)
    key = 'max_epochs' if 'max_epochs' in config.train_cfg else 'max_iters'
    length = Length.of({key: 1}, 3)
    schedules, _ = fitted(schedules, length)
    assert errors_of(misfits(schedules, length)) == []
    assert len(rates(schedules, length, 3)) == length.iters


TWO_STAGES = dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup=(500, 1000))


@pytest.mark.parametrize(('iters', 'accumulated'), [(1501, 1), (12004, 8), (88704, 1)])
def test_two_warm_ups_that_end_in_time_stay(iters, accumulated):
    wrapper = dict(accumulative_counts=accumulated)
    length = Length.of(dict(max_iters=iters), optim_wrapper=wrapper)
    assert fitted(TWO_STAGES, length) == (TWO_STAGES, [])
    assert [*misfits(TWO_STAGES, length)] == []


@pytest.mark.parametrize(
    ('training', 'accumulated', 'late', 'named', 'shorter'),
    [
        (dict(max_iters=1500), 1, 1500, 'train_cfg.max_iters=1500', [250, 500]),
        (dict(max_iters=900), 1, 1500, 'train_cfg.max_iters=900', [150, 300]),
        (dict(max_iters=12000), 8, 12000, 'train_cfg.max_iters=12000', [250, 500]),
        (
            dict(max_epochs=3),
            1,
            1500,
            'train_cfg.max_epochs=3, 300 iterations',
            [50, 100],
        ),
    ],
)
def test_two_warm_ups_are_at_most_half_of_the_training(training, accumulated, late, named, shorter):
    length = Length.of(training, 100, dict(accumulative_counts=accumulated))
    schedule, lines = fitted(TWO_STAGES, length)
    assert schedule['warmup'] == shorter
    assert lines == [
        f'param_scheduler (TwoStageWarmupPolyLR) warms up until iteration {late}, and the training '
        f'ends no later ({named}): its warm-ups are shortened to half of the training'
    ]


def test_two_warm_ups_by_epoch_are_shortened_too():
    schedule = dict(type='TwoStageWarmupPolyLR', warmup=(1, 3), convert_to_iter_based=True)
    shown, (line,) = fitted(schedule, of_epochs(4, 10))
    assert shown['warmup'] == [0.5, 1.5]
    assert line.startswith('param_scheduler (TwoStageWarmupPolyLR) warms up until epoch 4, and the')
    assert fitted(schedule, of_epochs(5, 10)) == (schedule, [])


def test_two_stages_end_with_the_training():
    ((_, line),) = found(dict(TWO_STAGES, end=3000), max_iters=2000)
    assert line == (
        'param_scheduler (TwoStageWarmupPolyLR) comes down until iteration 3000, and the training '
        'ends before (train_cfg.max_iters=2000): the rate does not get there; leave its end out, '
        'and it ends with the training'
    )
    ratio = dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup_ratio=(0.1, 0.2))
    assert found(ratio, max_iters=3) == []


def parts(tmp_path, constructor, warmup='warmup=(500, 1000)', accumulated=1):
    """What the check of parts says of a config with two warm-ups of 1,500 of 3,000 iterations."""
    (tmp_path / 'seg.py').write_text(
        f"""{SEGMENTER}
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3000)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4), constructor={constructor!r},
    paramwise_cfg=dict(decay_rate=0.8), accumulative_counts={accumulated},
)
param_scheduler = [dict(type='TwoStageWarmupPolyLR', by_epoch=False, {warmup})]
"""
    )
    config = load_config(tmp_path / 'seg.py')
    use_scope(config)
    return list(map(str, part_findings(Facts.of(config, ('train',)), [])))


@pytest.mark.parametrize('warmup', ['warmup=(500, 1000)', 'warmup_ratio=(0.1, 0.2)'])
def test_two_warm_ups_of_marked_groups_have_no_line(warmup, tmp_path):
    assert parts(tmp_path, 'EoMTOptimWrapperConstructor', warmup) == []


def test_two_warm_ups_without_marks_are_an_error(tmp_path):
    (line,) = parts(tmp_path, 'ViTLayerDecayConstructor')
    assert line.startswith('error: param_scheduler.0: ')
    assert line.endswith(
        "TwoStageWarmupPolyLR needs optim_wrapper.constructor='EoMTOptimWrapperConstructor', which "
        'marks the groups of the ViT'
    )


def test_two_warm_ups_of_accumulated_batches_that_are_too_long_have_a_line(tmp_path):
    assert parts(tmp_path, 'EoMTOptimWrapperConstructor', accumulated=2) == [
        'warning: param_scheduler.0 (TwoStageWarmupPolyLR) warms up until iteration 3000, and the '
        'training ends no later (train_cfg.max_iters=3000): its warm-ups are shortened to half of '
        'the training'
    ]


def test_two_warm_ups_that_cannot_be_are_an_error(tmp_path):
    (line,) = parts(tmp_path, 'EoMTOptimWrapperConstructor', 'warmup_ratio=(0.5, 0.6)')
    assert line.endswith(
        'warmup_ratio is two numbers of at least 0, below 1 together, got (0.5, 0.6)'
    )
