"""Cell supervision: the auxiliary models of both toolboxes."""

import copy
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import nn

import vit_backbones  # noqa: F401  (mmcv's operators)
from vit_backbones.benchmark.counting import counted
from vit_backbones.heads.auxiliary import HEAD_START, IGNORED, CellSupervision
from vit_backbones.heads.auxiliary_encoder_decoder import AuxiliaryEncoderDecoder
from vit_backbones.heads.auxiliary_mask2former import AuxiliaryMask2Former

ROWS, COLUMNS = torch.tensor([4, 12]), torch.tensor([4, 12, 20])  # centres of 8 x 8 cells


def test_small_objects_lie_on_top_of_large_ones() -> None:
    masks = np.zeros((2, 16, 24), np.uint8)
    masks[0, 2:6, 2:6] = 1  # small, class 1, listed first
    masks[1, :8, :16] = 1  # large, class 0
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        labels=torch.tensor([1, 0]), masks=BitmapMasks(masks, 16, 24)
    )
    model = SimpleNamespace(num_cell_classes=3)
    cells = AuxiliaryMask2Former._cells(model, [sample], ROWS, COLUMNS)[0]
    assert cells.tolist() == [[1, 0, 2], [2, 2, 2]]


def test_cells_are_those_of_masks_painted_from_large_to_small() -> None:
    random, samples, expected = np.random.default_rng(0), [], torch.full((3, 32, 40), 5)
    for painted, count in zip(expected, (9, 0, 4), strict=True):
        masks = random.random((count, 32, 40)) < np.linspace(0.1, 0.5, count)[:, None, None]
        samples.append(DetDataSample())
        samples[-1].gt_instances = objects = InstanceData(
            labels=torch.randint(5, (count,)), masks=BitmapMasks(masks.astype(np.uint8), 32, 40)
        )
        for index in masks.sum((1, 2)).argsort()[::-1].tolist():
            painted[torch.from_numpy(masks[index])] = objects.labels[index]
    rows, columns = torch.arange(4, 32, 8), torch.arange(4, 40, 8)
    model, found = SimpleNamespace(num_cell_classes=6), []
    counts = counted(
        lambda: found.append(AuxiliaryMask2Former._cells(model, samples, rows, columns))
    )
    assert torch.equal(found[0], expected[:, rows][:, :, columns])
    assert counts.synchronisations == 1  # for a batch


def test_an_image_without_objects_is_background() -> None:
    sample = DetDataSample()
    sample.gt_instances = InstanceData(
        labels=torch.zeros(0, dtype=torch.long), masks=BitmapMasks(np.zeros((0, 16, 24)), 16, 24)
    )
    model = SimpleNamespace(num_cell_classes=3)
    cells = AuxiliaryMask2Former._cells(model, [sample], ROWS, COLUMNS)[0]
    assert cells.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_pixels_at_the_centres_are_taken_of_a_label_map() -> None:
    labels = torch.arange(16)[:, None] * 10 + torch.arange(24)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels[None]))
    cells = AuxiliaryEncoderDecoder._cell_classes(None, sample, ROWS, COLUMNS)
    assert cells.tolist() == [[44, 52, 60], [124, 132, 140]]


class _Backbone(nn.Module):
    out_channels, strides = (5, 4), (1, 8)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images.mean(1, keepdim=True).repeat(1, 5, 1, 1), images[:, :, ::8, ::8]


class _Model(nn.Module):
    """What a toolbox's model has for CellSupervision: a backbone, perhaps a neck."""

    with_neck = True

    def __init__(self, neck: Callable[..., object]) -> None:
        super().__init__()
        self.backbone, self.neck = _Backbone(), neck


class _Supervised(CellSupervision, _Model):
    num_cell_classes = 3

    def _cell_classes(self, sample, rows, columns):
        return sample[rows][:, columns]

    def _head_losses(self, maps, batch_data_samples):
        return dict(loss_head=maps)


def test_the_loss_is_the_mean_over_known_cells_times_its_weight() -> None:
    model = _Supervised(auxiliary_weight=2.0, neck=lambda features: len(features))
    images = torch.randn(2, 4, 20, 24)  # 3 x 3 cells, the last row cut
    labels = torch.randint(0, 3, (2, 20, 24))
    labels[0, :12] = IGNORED
    losses = model.loss(images, list(labels))

    logits = model.auxiliary_classifier(images[:, :, ::8, ::8])
    centres = labels[:, [4, 12, 19]][:, :, [4, 12, 20]]
    expected = 2 * F.cross_entropy(logits, centres, ignore_index=IGNORED)
    torch.testing.assert_close(losses['loss_dense'], expected)
    assert losses['loss_head'] == 2  # the head gets what the neck made of both maps


def test_a_batch_without_known_cells_costs_nothing() -> None:
    model = _Supervised(neck=len)
    losses = model.loss(torch.randn(1, 4, 16, 16), [torch.full((16, 16), IGNORED)])
    assert losses['loss_dense'] == 0


def test_the_head_waits_and_a_resumed_run_does_not_wait_again() -> None:
    model = _Supervised(auxiliary_iters=2, neck=len)
    batch = torch.randn(1, 4, 16, 16), [torch.zeros(16, 16, dtype=torch.long)]
    assert [sorted(model.loss(*batch)) for _ in range(3)] == [
        ['loss_dense'],
        ['loss_dense'],
        ['loss_dense', 'loss_head'],
    ]
    resumed = _Supervised(auxiliary_iters=2, neck=len)
    resumed.load_state_dict(model.state_dict())
    assert 'loss_head' in resumed.loss(*batch)


def test_only_the_first_iteration_reads_the_number_from_the_device() -> None:
    model = _Supervised(auxiliary_iters=2, neck=len)
    batch = torch.randn(1, 4, 16, 16), [torch.zeros(16, 16, dtype=torch.long)]
    waits = [counted(lambda: model.loss(*batch)).waits for _ in range(3)]
    assert waits == [{'_local_scalar_dense': 1}, {}, {}]


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, load_state_dict])
def test_a_checkpoint_sets_the_number_of_a_model_that_has_run(load: Callable[..., object]) -> None:
    model, batch = (
        _Supervised(auxiliary_iters=2, neck=len),
        (torch.randn(1, 4, 16, 16), [torch.zeros(16, 16, dtype=torch.long)]),
    )
    start = copy.deepcopy(model.state_dict())
    for _ in range(3):
        model.loss(*batch)
    load(model, start)
    assert sorted(model.loss(*batch)) == ['loss_dense']
    assert model.iterations == 1


@pytest.mark.parametrize('iters', [0, 2])
def test_a_line_and_the_curve_show_where_the_head_starts(iters: int, monkeypatch) -> None:
    lines = []
    monkeypatch.setattr(
        'vit_backbones.heads.auxiliary.print_log', lambda line, logger: lines.append(line)
    )
    hub = MessageHub.get_instance(f'head start {iters}')
    model = _Supervised(auxiliary_iters=iters, neck=len)
    batch = torch.randn(1, 4, 16, 16), [torch.zeros(16, 16, dtype=torch.long)]
    for _ in range(4):
        model.loss(*batch)
    line = 'iteration 3: the head starts to learn, and its losses join loss_dense, so that the sum '
    assert lines == ([line + 'jumps'] if iters else [])
    assert hub.get_info(HEAD_START) == (3 if iters else None)


@pytest.mark.parametrize('name', ['AuxiliaryMask2Former', 'AuxiliaryEncoderDecoder'])
def test_registered(name: str) -> None:
    assert issubclass(MODELS.get(name), CellSupervision)
