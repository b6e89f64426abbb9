"""How cost grows, on made-up figures."""

import math

import pytest
import torch

from vit_backbones.benchmark import growth
from vit_backbones.benchmark.growth import Wanted, exponent, fits, foreseen, grow
from vit_backbones.benchmark.measuring import flops_and_floor
from vit_backbones.benchmark.subjects import Setting

SIDES = (224, 384, 512, 1024)


def row(side, batch=1, power=1.0, **more):
    cost = batch * (side * side) ** power
    own = dict(model='m', kind='k', size=[side, side], batch_size=batch)
    return own | dict(ms=3 * cost, memory_mib=cost / 1e6) | more


def wanted(sizes, batches=(1,), **more):
    given = dict(models=['test_vit'], source='timm', kinds=['global'], options=(), repeats=1)
    setting = Setting((64, 64))
    return Wanted(sizes=sizes, batch_sizes=batches, setting=setting, **given | more)


@pytest.mark.parametrize('power', [0.5, 1.0, 1.7])
def test_exponent_of_a_power_is_the_power(power):
    assert exponent([row(side, power=power) for side in SIDES], 'ms') == pytest.approx(power)


def test_exponent_needs_two_sizes():
    assert exponent([row(224), row(224)], 'ms') is None
    assert exponent([row(224), dict(size=[512, 512], skipped='')], 'ms') is None


def test_fits_are_of_the_pixels_for_each_batch_and_of_the_batch_for_each_size():
    rows = [row(side, batch, power=1.5) for batch in (1, 4) for side in (224, 448)]
    found = {(each['of'], each['at']): (each['time'], each['memory']) for each in fits(rows)}
    assert found.keys() == {
        ('pixels', 'batch 1'),
        ('pixels', 'batch 4'),
        ('batch', '224x224'),
        ('batch', '448x448'),
    }
    for (of, _), both in found.items():
        assert both == pytest.approx([1.5 if of == 'pixels' else 1.0] * 2)


def test_memory_is_foreseen_by_the_last_two_sizes():
    rows = [row(side, power=2) for side in (224, 448)]
    assert foreseen(rows, (896, 896), 1) == pytest.approx(row(896, power=2)['memory_mib'])
    assert foreseen(rows[:1], (448, 448), 1) == pytest.approx(4 * rows[0]['memory_mib'])
    assert foreseen(rows, (224, 224), 8) == pytest.approx(8 * rows[0]['memory_mib'])
    assert foreseen([], (224, 224), 1) == 0


def test_what_is_larger_than_something_skipped_is_skipped():
    rows = [row(224), row(448) | dict(skipped='x')]
    assert foreseen(rows, (512, 512), 1) == math.inf
    assert foreseen(rows, (224, 224), 2) == 2 * row(224)['memory_mib']


def test_growth_goes_on_behind_what_memory_cannot_hold():
    sizes = [(256, 256), (64, 64)]
    rows = list(grow(wanted(sizes, kinds=['global', 'windows'], memory_gib=2**-10)))
    assert [(each['kind'], each['size'][0], 'skipped' in each) for each in rows] == [
        ('global', 64, False),
        ('global', 256, True),
        ('windows', 64, False),
        ('windows', 256, True),
    ]
    assert rows[1]['skipped'].startswith('needs about ')


@pytest.mark.parametrize(
    'error', [torch.OutOfMemoryError('x'), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_device_without_memory_is_a_reason(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(growth, 'interleaved', fail)
    (found,) = grow(wanted([(64, 64)]))
    assert found['skipped'] == 'memory cannot hold it'


def test_another_error_is_none(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError('shapes differ')

    monkeypatch.setattr(growth, 'interleaved', fail)
    with pytest.raises(RuntimeError, match='shapes differ'):
        list(grow(wanted([(64, 64)])))


def test_arithmetic_of_windows_grows_linearly_in_pixels():
    flops = {}
    for kind in ('global', 'windows'):
        for side in (224, 896):
            setting = Setting((side, side))
            subject = growth._subject('test_vit', kind, wanted([(side, side)]), setting)
            count = flops_and_floor(subject.visible_step)[0]
            flops.setdefault(kind, []).append(dict(size=[side, side], flops=count))
    assert exponent(flops['windows'], 'flops') == pytest.approx(1.0, abs=0.05)
    assert exponent(flops['global'], 'flops') > 1.3
