"""Which part of a step takes what, on made-up steps, clocks and traces."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vit_backbones.benchmark import step_parts
from vit_backbones.benchmark.step_parts import PARTS, Parts, by_part, counts, times

CPU = torch.device('cpu')
X = torch.ones(3)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only its `add` moves, in milliseconds."""
    now = SimpleNamespace(ms=0.0)
    now.add = lambda ms: setattr(now, 'ms', now.ms + ms)
    monkeypatch.setattr(step_parts.time, 'perf_counter', lambda: now.ms / 1e3)
    return now


def spans(step, parts, repeats=1, warm_ups=0):
    return times({'a': (step, parts)}, repeats, CPU, warm_ups=warm_ups)['a']


def test_inner_parts_are_not_counted_twice(clock):
    parts = Parts()

    def step():
        clock.add(1)
        with parts.within('loss'):
            clock.add(10)
            with parts.within('head'):
                clock.add(100)
                with parts.within('head'):
                    clock.add(200)
            clock.add(20)

    found = spans(step, parts)
    assert found == pytest.approx(
        dict.fromkeys(PARTS, 0.0) | {'other': 1, 'loss': 30, 'head': 300, 'whole': 331}
    )


def test_blocks_computed_again_belong_to_the_backward_pass(clock):
    parts = Parts()

    def step():
        with parts.within('backward'):
            clock.add(1)
            with parts.within('head'):
                clock.add(2)

    assert spans(step, parts)['backward'] == pytest.approx(3)


def test_medians_are_of_the_rounds_behind_the_warm_up(clock):
    parts, lengths = Parts(), iter([900, 900, 3, 1, 2])

    def step():
        with parts.within('neck'):
            clock.add(next(lengths))

    found = spans(step, parts, repeats=3, warm_ups=2)
    assert found['neck'] == pytest.approx(2)


def test_a_wrapped_method_belongs_to_its_part_and_gives_its_result(clock):
    parts, layer = Parts(), nn.Linear(3, 3)
    expected = layer(X)
    parts.wrap(layer, 'forward', 'head')
    given = []
    parts.watched(lambda: given.append(layer(X)), begun := [].append)
    assert torch.equal(given[0], expected)
    assert begun.__self__ == ['other', 'head', 'other', None]


def test_a_failed_step_ends_its_parts():
    parts = Parts()

    def step():
        with parts.within('head'):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        parts.watched(step, begun := [].append)
    assert begun.__self__ == ['other', 'head', 'other', None]


def test_operators_and_waits_of_each_part_sum_to_the_whole():
    parts = Parts()

    def step():
        X.exp()
        with parts.within('head'):
            X.exp().log()
        with parts.within('loss'):
            X.sum().item()

    found = counts(step, parts)
    assert {part: found[part].operators for part in PARTS if found[part].operators} == {
        'other': 1,
        'head': 2,
        'loss': 2,
    }
    assert found['loss'].waits == {'_local_scalar_dense': 1}
    assert found['whole'].operators == 5
    assert found['whole'].synchronisations == 1


def test_numbers_on_the_host_are_no_waits():
    steps, others = torch.tensor(3.0), torch.tensor(4.0)
    found = counts(lambda: (steps.item(), others.item()), Parts(), [steps])
    assert found['whole'].synchronisations == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_a_gpus_kernels_and_times_are_those_of_their_parts():
    parts, x = Parts(), torch.randn(2048, 2048, device='cuda')

    def step():
        with parts.within('head'):
            x @ x
        with parts.within('loss'):
            x.sum()

    ms = step_parts.kernels(step, parts)
    assert ms['head'] > ms['loss'] > 0
    assert ms['whole'] == pytest.approx(ms['head'] + ms['loss'] + ms['other'])
    found = times({'a': (step, parts)}, 3, torch.device('cuda'), warm_ups=2)['a']
    assert found['whole'] >= 0.9 * ms['whole']


def kernel(correlation, dur, ts=0):
    return dict(cat='kernel', name='k', ts=ts, dur=dur, args=dict(correlation=correlation))


def launch(correlation, ts):
    args = dict(correlation=correlation)
    return dict(cat='cuda_runtime', name='cudaLaunchKernel', ts=ts, dur=1, args=args)


def part(name, ts):
    return dict(cat='user_annotation', name=f'part of the step: {name}', ts=ts, dur=1, args={})


def test_kernels_belong_to_the_part_that_started_them():
    events = [
        part('other', 0),
        part('backbone', 10),
        launch(1, 12),
        part('loss', 20),
        launch(2, 21),
        part('backward', 30),
        launch(3, 35),
        # run when the host is long elsewhere
        kernel(1, 1000, ts=40),
        kernel(2, 2000, ts=1040),
        kernel(3, 4000, ts=3040),
        dict(cat='gpu_memcpy', name='copy', ts=31, dur=500, args=dict(correlation=3)),
        dict(cat='gpu_user_annotation', name='part of the step: loss', ts=41, dur=9000, args={}),
        dict(cat='cpu_op', name='aten::mm', ts=12, dur=7000, args={}),
    ]
    found = by_part(events)
    assert {name: ms for name, ms in found.items() if ms} == {
        'backbone': 1.0,
        'loss': 2.0,
        'backward': 4.5,
        'whole': 7.5,
    }
