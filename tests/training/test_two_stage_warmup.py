"""The rates of EoMT by update, against values written by hand from the released schedule."""

import re

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

import vit_backbones.training  # noqa: F401  (registers the schedule)

TOTAL = 12000
# Of DINOv2: update, factor of new parameters, factor of the ViT
GOLDEN = [
    (0, 0.0, 0.0),
    (499, 499 / 500, 0.0),
    (500, 1.0, 0.0),
    (1000, (11000 / 11500) ** 0.9, 0.5),
    (1500, (10500 / 11500) ** 0.9, 1.0),
    (TOTAL // 2, (6000 / 11500) ** 0.9, (6000 / 10500) ** 0.9),
    (TOTAL - 1, (1 / 11500) ** 0.9, (1 / 10500) ** 0.9),
]


def optim_wrapper(accumulated=1, marks=(False, True)):
    """An optimizer with groups at rates of 1 and 2, the second one of a ViT."""
    groups = [
        dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=i + 1.0, in_vit=mark)
        for i, mark in enumerate(marks)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    return OptimWrapper(optimizer, accumulative_counts=accumulated)


def build(wrapper, epoch_length=1, **options):
    options = dict(type='TwoStageWarmupPolyLR', by_epoch=False, end=TOTAL) | options
    defaults = dict(optimizer=wrapper, epoch_length=epoch_length)
    return PARAM_SCHEDULERS.build(options, default_args=defaults)


def rates(wrapper, schedule, iterations):
    """The rates of each iteration, of both groups."""
    found = []
    for _ in range(iterations):
        found.append(tuple(group['lr'] for group in wrapper.optimizer.param_groups))
        wrapper.step()
        schedule.step()
    return found


def missed(found, every=1):
    """Updates of `GOLDEN` at whose iterations a rate is another."""
    return [
        update
        for update, new, vit in GOLDEN
        for iteration in range(update * every, (update + 1) * every)
        if found[iteration] != pytest.approx((new, 2 * vit), rel=1e-12)
    ]


@pytest.mark.parametrize(
    'options',
    [
        dict(warmup=(500, 1000)),
        dict(warmup_ratio=(500 / TOTAL, 1000 / TOTAL)),
        dict(warmup=(0.5, 1), by_epoch=True, convert_to_iter_based=True, end=12),
        dict(warmup_ratio=(1 / 24, 1 / 12), by_epoch=True, convert_to_iter_based=True, end=12),
    ],
    ids=['updates', 'parts', 'epochs', 'parts_of_epochs'],
)
def test_rates_are_those_released(options):
    wrapper = optim_wrapper()
    assert missed(rates(wrapper, build(wrapper, 1000, **options), TOTAL)) == []


@pytest.mark.parametrize('by_epoch', [False, True])
def test_accumulated_batches_count_once(by_epoch):
    wrapper = optim_wrapper(accumulated=2)
    options = dict(warmup=(500, 1000), end=2 * TOTAL)
    if by_epoch:
        options = dict(warmup=(1, 2), end=24, by_epoch=True, convert_to_iter_based=True)
    found = rates(wrapper, build(wrapper, 1000, **options), 2 * TOTAL)
    assert missed(found, every=2) == []


@pytest.mark.parametrize('stop', [300, 900, 7000])
def test_a_resumed_training_has_the_same_rates(stop):
    wrapper = optim_wrapper()
    whole = rates(wrapper, build(wrapper, warmup=(500, 1000)), TOTAL)
    first = optim_wrapper()
    schedule = build(first, warmup=(500, 1000))
    rates(first, schedule, stop)
    second = optim_wrapper()
    resumed = build(second, warmup=(500, 1000))
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert rates(second, resumed, TOTAL - stop) == whole[stop:]


def test_without_warm_up_both_decay_from_the_start():
    wrapper = optim_wrapper()
    found = rates(wrapper, build(wrapper, warmup=(0, 0), end=4), 4)
    assert found == [pytest.approx(((1 - i / 4) ** 0.9, 2 * (1 - i / 4) ** 0.9)) for i in range(4)]


def test_the_power_is_an_option():
    wrapper = optim_wrapper()
    found = rates(wrapper, build(wrapper, warmup=(0, 0), end=4, power=1), 4)
    assert [new for new, _ in found] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(),
            'TwoStageWarmupPolyLR takes one of warmup and warmup_ratio, got None and None',
        ),
        (
            dict(warmup=(1, 2), warmup_ratio=(0.1, 0.2)),
            'TwoStageWarmupPolyLR takes one of warmup and warmup_ratio, got (1, 2) and (0.1, 0.2)',
        ),
        (dict(warmup=(1, 2), power=-1), 'power must be a number above 0, got -1'),
        (dict(warmup=500), 'warmup is two numbers of at least 0, got 500'),
        (dict(warmup=(-1, 2)), 'warmup is two numbers of at least 0, got (-1, 2)'),
        (
            dict(warmup_ratio=(0.5, 0.5)),
            'warmup_ratio is two numbers of at least 0, below 1 together, got (0.5, 0.5)',
        ),
        (
            dict(warmup=(1, 2), end=10**9),
            'TwoStageWarmupPolyLR needs an end, in iterations of the training',
        ),
    ],
)
def test_options_that_say_nothing_get_one_line(options, message):
    with pytest.raises(ValueError, match=f'{re.escape(message)}$'):
        build(optim_wrapper(), **options)


def test_groups_without_a_mark_get_one_line():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    message = (
        "TwoStageWarmupPolyLR needs optim_wrapper.constructor='EoMTOptimWrapperConstructor', which "
        'marks the groups of the ViT'
    )
    with pytest.raises(ValueError, match=f'{message}$'):
        build(OptimWrapper(optimizer), warmup=(1, 2))
