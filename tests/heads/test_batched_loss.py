"""Mask2Former's losses computed at once, beside mmdet's one after the other."""

import copy
import re

import numpy as np
import pytest
import torch
from mask2former_heads import (
    head_config,
    instances,
    losses,
    losses_and_gradients,
    predictions,
    record_draws,
    replay_draws,
)
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.task_modules.assigners import ClassificationCost
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch.profiler import ProfilerActivity, profile

from vit_backbones.benchmark.counting import counted
from vit_backbones.heads import batched_loss
from vit_backbones.heads.batched_mask2former import BatchedMask2FormerHead
from vit_backbones.heads.located_mask2former import LocatedMask2FormerHead
from vit_backbones.heads.matching import match

COSTS = 'train_cfg.assigner.match_costs'
KNOWN = 'known are ClassificationCost, CrossEntropyLossCost, DiceCost'
CLOSE = dict(rtol=2e-5, atol=2e-6)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def compare(predicted, truth, config):
    """Losses and gradients of both heads, for the same points."""
    stock, ours = Mask2FormerHead(**config), BatchedMask2FormerHead(**config)
    expected, drawn = record_draws(lambda: losses_and_gradients(stock, predicted, truth))
    replay_draws(ours, drawn, len(predicted[0]), len(truth))
    return losses_and_gradients(ours, predicted, truth), expected


@pytest.mark.parametrize(
    'counts',
    [(3, 0, 1), (1,), (5, 2), (7, 1), (7, 9), (0, 0)],
    ids=['one without', 'one', 'as many as queries', 'more than queries', 'more in all', 'none'],
)
def test_losses_and_gradients_are_mmdets_for_the_same_points(counts):
    found, expected = compare(predictions(batch=len(counts)), instances(counts), head_config())
    assert list(found[0]) == list(expected[0])
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.uint8, torch.bool])
def test_masks_may_be_of_any_type_and_size(dtype):
    truth = instances((2, 3), size=(7, 5), dtype=dtype)
    if dtype.is_floating_point:
        truth[0].masks *= 0.7  # soft ones
    found, expected = compare(predictions(size=(16, 10)), truth, head_config())
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize(
    'options',
    [
        {'train_cfg.importance_sample_ratio': 1.0, 'train_cfg.oversample_ratio': 1.5},
        {'train_cfg.importance_sample_ratio': 0.0},
        {'loss_dice.naive_dice': False, 'loss_dice.eps': 0.1, 'loss_dice.activate': False},
        {'loss_cls.ignore_index': 2, 'loss_cls.loss_weight': 0.3, 'loss_mask.loss_weight': 7.0},
        {COSTS: [dict(type='DiceCost', naive_dice=False)]},
        {COSTS: dict(type='CrossEntropyLossCost', weight=2.0)},
        {
            COSTS: [
                dict(type='DiceCost', pred_act=True, weight=0.5),
                dict(type='ClassificationCost', weight=1.0),
                dict(type='ClassificationCost', weight=0.5),
            ]
        },
    ],
)
@pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore``')
def test_options_mean_what_they_mean_in_mmdet(options):
    found, expected = compare(predictions(), instances((3, 2)), head_config(options))
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize('share', [0.05, 0.6])
@pytest.mark.parametrize('counts', [(3, 1), (0, 0)])
def test_masks_are_averaged_over_processes_and_at_least_one(share, counts, monkeypatch):
    for module in ('mmdet.models.dense_heads.mask2former_head', batched_loss.__name__):
        monkeypatch.setattr(f'{module}.reduce_mean', lambda number: number * share)
    found, expected = compare(predictions(), instances(counts), head_config())
    torch.testing.assert_close(found, expected, **CLOSE)


def test_without_replay_the_points_are_random_and_the_seed_decides():
    head, predicted, truth = (
        BatchedMask2FormerHead(**head_config()),
        predictions(),
        instances((2, 1)),
    )
    first = losses(head, predicted, truth)
    torch.manual_seed(1)
    second = losses(copy.deepcopy(head), predicted, truth)
    torch.manual_seed(1)
    third = losses(head, predicted, truth)
    assert second == third
    assert second['loss_mask'] != first['loss_mask']


@pytest.mark.filterwarnings('ignore:Warning. Profiler clears')
@pytest.mark.parametrize('batch', [2, 8])
def test_operators_waits_and_memory_are_bounded_at_any_batch(batch):
    config = head_config({'num_queries': 20, 'train_cfg.num_points': 1024})
    predicted = predictions(10, batch, queries=20, size=(32, 48))
    truth = instances([3, 5] * (batch // 2), size=(128, 192), dtype=torch.long)
    stock, ours = Mask2FormerHead(**config), BatchedMask2FormerHead(**config)
    losses(ours, predicted, truth)  # copies the weights of the classes
    counts = counted(lambda: losses(ours, predicted, truth))
    assert counts.operators <= 700
    assert counts.synchronisations <= 2
    most = [peak(lambda head=head: losses(head, predicted, truth)) for head in (ours, stock)]
    assert most[0] <= 1.2 * most[1]
    assert most[0] > 2**20


def peak(step):
    """Most bytes that `step` held at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = step()
    del kept
    held = [
        each.nbytes()
        for each in record.profiler.kineto_results.events()
        if each.name() == '[memory]'
    ]
    return int(np.cumsum(held).max())


def test_under_autocast_costs_and_losses_are_those_of_fp32(monkeypatch):
    head, truth = BatchedMask2FormerHead(**head_config()), instances((3, 2))
    types = []
    monkeypatch.setattr(
        batched_loss,
        'match',
        lambda costs, counts: types.append(costs.dtype) or match(costs, counts),
    )
    halves = [[each.detach().bfloat16() for each in part] for part in predictions()]
    torch.manual_seed(1)
    expected = losses(head, [[each.float() for each in part] for part in halves], truth)
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16):
        found = losses(head, halves, truth)
    assert found == expected
    assert {loss.dtype for loss in found.values()} == {torch.float32}
    assert types == [torch.float32] * 2


@pytest.mark.parametrize('autocast', [False, True])
def test_costs_are_the_sums_of_mmdets_in_fp32(autocast, monkeypatch):
    terms = [
        dict(type='DiceCost', pred_act=True, eps=0.3, weight=3.0),
        dict(type='CrossEntropyLossCost', weight=5.0),
        dict(type='ClassificationCost', weight=2.0),
        dict(type='DiceCost', pred_act=False, naive_dice=False),
    ]
    head = BatchedMask2FormerHead(**head_config({COSTS: terms}))
    predicted, truth, points = predictions(), instances((3, 2)), torch.rand(3, 2, 40, 2)
    draw, seen = head.draw_points, []
    head.draw_points = lambda *size, device: (
        points if len(size) == 3 else draw(*size, device=device)
    )
    monkeypatch.setattr(
        batched_loss, 'match', lambda costs, counts: seen.append(costs) or match(costs, counts)
    )
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        losses(head, predicted, truth)
    for output, (scores, masks) in enumerate(zip(*predicted, strict=True)):
        for image, objects in enumerate(truth):
            own = points[output, image, None]
            guesses, given = (
                point_sample(each[:, None].float(), own.repeat(len(each), 1, 1)).squeeze(1)
                for each in (masks[image], objects.masks)
            )
            pair = (
                InstanceData(scores=scores[image], masks=guesses),
                InstanceData(labels=objects.labels, masks=given),
            )
            expected = sum(cost(*pair) for cost in head.assigner.match_costs)
            found = seen[0][output, image, :, : len(objects)]
            torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda',
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
            ],
        ),
    ],
)
def test_losses_are_those_of_the_cpu_on_every_device(device):
    head, predicted, truth = (
        BatchedMask2FormerHead(**head_config()),
        predictions(),
        instances((3, 1)),
    )
    draw, drawn = head.draw_points, []
    head.draw_points = lambda *size, device: drawn.append(draw(*size, device=device)) or drawn[-1]
    expected = losses(head, predicted, truth)
    moved = [[each.detach().to(device) for each in part] for part in predicted]
    again = iter([points.to(device) for points in drawn])
    head.to(device).draw_points = lambda *size, device: next(again)
    found = losses(head, moved, [each.to(device) for each in truth])
    assert {loss.device.type for loss in found.values()} == {device}
    torch.testing.assert_close({k: v.cpu() for k, v in found.items()}, expected, **CLOSE)


def test_pairs_are_those_of_least_cost_in_the_order_of_outputs_and_images():
    costs, counts = torch.rand(12, 3, 6, 4), [4, 0, 2]
    queries, objects = match(costs, counts)
    for output, by_image in enumerate(costs.numpy()):
        first, last = (linear_sum_assignment(by_image[i, :, : counts[i]]) for i in (0, 2))
        assert queries[output].tolist() == [*first[0], *(last[0] + 12)]
        assert objects[output].tolist() == [*first[1], *(last[1] + 4)]


def test_predictions_that_are_not_finite_are_named():
    head, predicted, truth = (
        BatchedMask2FormerHead(**head_config()),
        predictions(),
        instances((2, 3)),
    )
    with torch.no_grad():
        predicted[0][2][1, 0, 0] = float('nan')  # the softmax of one query
    line = (
        'Queries and objects cannot be matched at output 2, image 1, where 3 of 15 costs are not '
        'finite: matrix contains invalid numeric entries. The predictions are infinite or NaN: '
        'lower the learning rate, or train in bf16 or fp32 if it was fp16.'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        losses(head, predicted, truth)


class _OwnTargets(BatchedMask2FormerHead):
    def get_targets(self, *args, **options):
        return super().get_targets(*args, **options)


class _OwnCost(ClassificationCost):
    pass


@pytest.mark.parametrize(
    ('key', 'value', 'why'),
    [
        (COSTS, [dict(type=_OwnCost)], f'match_costs has _OwnCost; {KNOWN}'),
        (COSTS, [dict(type='FocalLossCost')], f'match_costs has FocalLossCost; {KNOWN}'),
        ('loss_mask.class_weight', [2.0], 'loss_mask has class_weight=[2.0], not None'),
        ('loss_dice.reduction', 'sum', "loss_dice has reduction='sum', not 'mean'"),
        ('loss_mask', dict(type='L1Loss'), 'loss_mask is L1Loss, not CrossEntropyLoss'),
    ],
)
def test_other_parts_give_mmdets_way_and_one_line(key, value, why, monkeypatch):
    lines = []
    monkeypatch.setattr(
        batched_loss, 'print_log', lambda line, logger: lines.append((line, logger))
    )
    config = head_config({key: value})
    head, stock = BatchedMask2FormerHead(**config), Mask2FormerHead(**config)
    predicted, truth = predictions(), instances((2, 1), dtype=torch.long)
    outcomes = []
    for each in (head, head, stock):
        torch.manual_seed(1)
        try:
            outcomes.append(losses(each, predicted, truth))
        except ValueError as error:  # mmdet's losses do not sum where there is an average
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    start = "BatchedMask2FormerHead computes mmdet's loss, one image after the other, which is "
    assert lines == [(f'{start}slower on a GPU: {why}', 'current')]


def test_methods_that_a_subclass_overrides_are_run(monkeypatch):
    lines = []
    monkeypatch.setattr(batched_loss, 'print_log', lambda line, logger: lines.append(line))
    head = _OwnTargets(**head_config())
    losses(head, predictions(), instances((2, 1), dtype=torch.long))
    start = "_OwnTargets computes mmdet's loss, one image after the other, which is slower on a GPU"
    assert lines == [f'{start}: its class has its own get_targets']


def test_checkpoints_of_either_head_load_into_the_other():
    stock, ours = Mask2FormerHead(**head_config()), BatchedMask2FormerHead(**head_config())
    losses(ours, predictions(), instances((2, 1)))
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    ours.load_state_dict(stock.state_dict())


def test_the_located_head_has_the_batched_loss():
    ours, located = BatchedMask2FormerHead(**head_config()), LocatedMask2FormerHead(**head_config())
    predicted, truth = predictions(), instances((2, 1))
    found = []
    for head in (ours, located):
        torch.manual_seed(1)
        found.append(losses(head, predicted, truth))
    assert found[0] == found[1]


def test_arguments_without_names_are_as_in_mmdet():
    config = head_config()
    first = [config.pop(name) for name in ('in_channels', 'feat_channels', 'out_channels')]
    ours = BatchedMask2FormerHead(*first, **config)
    assert list(ours.state_dict()) == list(Mask2FormerHead(*first, **config).state_dict())


def test_a_loss_in_inference_mode_leaves_later_ones_their_gradients():
    head, predicted, truth = (
        BatchedMask2FormerHead(**head_config()),
        predictions(),
        instances((2, 1)),
    )
    with torch.inference_mode():
        losses(head, predicted, truth)
    _, grads = losses_and_gradients(head, predicted, truth)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize('name', ['BatchedMask2FormerHead', 'BatchedSegMask2FormerHead'])
def test_registered(name):
    __import__('vit_backbones.mmseg')
    assert issubclass(MODELS.get(name), batched_loss.BatchedLoss)
