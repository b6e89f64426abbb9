"""Mask2Former's head with located queries, beside Mask2Former's own."""

from pathlib import Path

import pytest
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from redraw import redraw
from torch import Tensor

import vit_backbones  # noqa: F401  (mmcv's operators)
from vit_backbones.heads.located_mask2former import LocatedMask2FormerHead, _spread

BASE_MODELS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'models'
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.fixture
def config() -> ConfigDict:
    init_default_scope('mmdet')
    config = Config.fromfile(BASE_MODELS / 'mask2former_light.py').model.panoptic_head
    config.pop('type')
    config.update(num_things_classes=3, num_queries=7)
    config.loss_cls.class_weight = [1.0] * 3 + [0.1]
    return config


def _maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)  # sums of fp32 differ by 1e-5 for some maps
    return [torch.randn(2, 128, *size, generator=generator) for size in SIZES]


def _run(head: Mask2FormerHead, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    with torch.no_grad():
        return head.eval()(maps, [DetDataSample(), DetDataSample()])


def test_without_windows_it_is_mask2formers_head_on_placed_maps(
    config: ConfigDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    located, stock = LocatedMask2FormerHead(**config), Mask2FormerHead(**config)
    redraw(located)
    stock.load_state_dict(located.state_dict(), strict=False)
    monkeypatch.setattr(located, '_windows', lambda decoder_out, size: 0.0)
    maps = _maps()
    encode = stock.decoder_positional_encoding
    placed = [m + encode(torch.zeros(2, *m.shape[-2:], dtype=torch.bool)) for m in maps]
    for ours, theirs in zip(_run(located, maps), _run(stock, placed), strict=True):
        assert len(ours) == len(theirs) == 4
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)  # sums in other orders


def test_windows_are_added_to_the_mask_logits(
    config: ConfigDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, maps = LocatedMask2FormerHead(**config), _maps()
    redraw(head)
    with_windows = _run(head, maps)[1][0]
    seen = []
    windows = head._windows
    monkeypatch.setattr(head, '_windows', lambda *args: seen.append(windows(*args)) or 0.0)
    without = _run(head, maps)[1][0]
    torch.testing.assert_close(with_windows, without + seen[0])


def test_a_window_falls_off_around_its_place(config: ConfigDict) -> None:
    head = LocatedMask2FormerHead(**config)
    places = _spread(7)
    windows = head._windows(torch.randn(1, 7, 128), (20, 30))[0]
    for window, (x, y) in zip(windows, places.tolist(), strict=True):
        for row, column in [(0, 0), (3, 28), (19, 4)]:
            square = ((column + 0.5) / 30 - x) ** 2 + ((row + 0.5) / 20 - y) ** 2
            assert window[row, column].item() == pytest.approx(max(-0.5 * 7 * square, -20), 1e-4)


def test_layers_move_and_scale_the_windows(config: ConfigDict) -> None:
    head = LocatedMask2FormerHead(**config)
    torch.nn.init.constant_(head.window.bias[:2], 50.0)  # to the lower right corner
    torch.nn.init.constant_(head.window.bias[2], 2.0)  # wide
    windows = head._windows(torch.zeros(1, 7, 128), (20, 30))[0]
    assert windows.flatten(1).argmax(1).tolist() == [20 * 30 - 1] * 7
    assert (windows[:, -1, 0] > windows[:, 0, -1]).all()  # falls off slower along x


def test_places_are_spread() -> None:
    places = _spread(200)
    assert places.min() > 0
    assert places.max() < 1
    distances = torch.cdist(places, places).fill_diagonal_(9.0)
    assert distances.min() > 0.5 / 200**0.5
