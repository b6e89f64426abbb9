"""Heads of Mask2Former, random predictions and objects, and the points that a loss draws."""

import functools
from operator import getitem
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

BASE_MODELS = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'models'
CLASSES, QUERIES = 4, 5


def head_config(options=()) -> ConfigDict:
    """The light head with few queries and points, without its type; options by dotted names."""
    init_default_scope('mmdet')
    model = Config.fromfile(BASE_MODELS / 'mask2former_light.py').model
    config = model.panoptic_head
    config.pop('type')
    config.update(num_things_classes=CLASSES, num_queries=QUERIES, train_cfg=model.train_cfg)
    config.train_cfg.num_points = 40
    config.loss_cls.class_weight = [1.0, 2.0, 0.5, 1.0, 0.1]
    for name, value in dict(options).items():
        *path, last = name.split('.')
        functools.reduce(getitem, path, config)[last] = value
    return config


def predictions(outputs=3, batch=2, *, queries=QUERIES, classes=CLASSES, size=(8, 12)):
    """Logits of classes and masks of each output, leaves of a graph."""
    scores = [torch.randn(batch, queries, classes + 1) for _ in range(outputs)]
    masks = [3 * torch.randn(batch, queries, *size) for _ in range(outputs)]
    return [[each.requires_grad_() for each in part] for part in (scores, masks)]


def instances(counts, *, size=(20, 28), dtype=torch.bool, classes=CLASSES):
    """Ground truth of images with so many objects."""
    return [
        InstanceData(
            labels=torch.randint(classes, (n,)), masks=(torch.rand(n, *size) > 0.5).to(dtype)
        )
        for n in counts
    ]


def losses(head, predicted, truth):
    return head.loss_by_feat(*predicted, truth, [{}] * len(truth))


def losses_and_gradients(head, predicted, truth):
    """Losses by name, and gradients of a sum in which each has a weight of its own."""
    for leaf in (*predicted[0], *predicted[1]):
        leaf.grad = None
    found = losses(head, predicted, truth)
    sum(i * loss.sum() for i, loss in enumerate(found.values(), 1)).backward()
    values = {name: loss.detach().reshape(()) for name, loss in found.items()}
    return values, [leaf.grad for part in predicted for leaf in part]


def record_draws(step):
    """What `step` gives, and all that it drew by `torch.rand`."""
    drawn, rand = [], torch.rand

    def recorded(*args, **options):
        drawn.append(rand(*args, **options))
        return drawn[-1]

    with mock.patch.object(torch, 'rand', recorded):
        return step(), drawn


def replay_draws(head, drawn, outputs, batch):
    """Let a batched head draw the points that mmdet's head drew, output by output."""
    each = len(drawn) // outputs
    by_output = [drawn[i * each : (i + 1) * each] for i in range(outputs)]
    matching = torch.stack([torch.cat(own[:batch]) for own in by_output])
    draws = iter([matching, *(torch.cat(own[batch:], 1) for own in by_output if own[batch:])])

    def draw(*size, device):
        points = next(draws)
        assert points.shape == (*size, 2)
        return points

    head.draw_points = draw
