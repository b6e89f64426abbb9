import torch

from vit_backbones.benchmark import measuring
from vit_backbones.benchmark.measuring import interleaved

CPU = torch.device('cpu')


def test_steps_are_run_in_turns():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in 'abc'}
    interleaved(steps, 2, CPU, warm_ups=1)
    assert ''.join(order) == 'abcabcabc'


def test_medians_are_of_the_rounds_behind_the_warm_up(monkeypatch):
    clock = iter([900.0, 900.0, 900.0, 900.0, 3.0, 30.0, 1.0, 10.0, 2.0, 800.0])
    monkeypatch.setattr(measuring, '_wall', lambda step: next(clock))
    medians = interleaved({'a': None, 'b': None}, 3, CPU, warm_ups=2)
    assert medians == {'a': 2.0, 'b': 30.0}
