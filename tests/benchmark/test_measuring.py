import pytest
import torch
import torch.nn.functional as F

from vit_backbones import ViTFeatBackbone
from vit_backbones.benchmark import measuring
from vit_backbones.benchmark.measuring import flops_and_floor, interleaved, memory_of, peak_memory
from vit_backbones.benchmark.subjects import Setting, of_backbone

CPU = torch.device('cpu')
SIZE = (64, 96)
DEPTH, WIDTH, HIDDEN, PATCHES, BATCH = 6, 64, 192, 4 * 6, 2


@pytest.fixture(scope='module', params=['fp32', 'bf16'])
def backbone(request):
    vit = ViTFeatBackbone('test_vit', img_size=SIZE)
    return of_backbone(vit, Setting(SIZE, BATCH, request.param))


@pytest.fixture(scope='module')
def training():
    vit = ViTFeatBackbone('test_vit', img_size=SIZE, norm='none')
    return of_backbone(vit, Setting(SIZE, BATCH, mode='train'))


def products(factor):
    """FLOPs of a plain ViT's matrix products, and of its attention, in closed form."""
    tokens = PATCHES + 1
    embed = 2 * BATCH * PATCHES * 3 * 16 * 16 * WIDTH
    linear = 2 * BATCH * tokens * WIDTH * (4 * WIDTH + 2 * HIDDEN)
    attention = 4 * BATCH * tokens * tokens * WIDTH
    return embed, DEPTH * linear * factor, DEPTH * attention


def test_flops_of_a_plain_vit_are_those_in_closed_form(backbone):
    flops, _ = flops_and_floor(backbone.visible_step)
    assert flops == pytest.approx(sum(products(1)), rel=0.02)


def test_flops_of_a_training_step_are_those_in_closed_form(training):
    flops, _ = flops_and_floor(training.visible_step)
    embed, linear, attention = products(3)
    # the images need no gradient; attention's backward computes the scores anew
    assert flops == pytest.approx(2 * embed + linear + 3.5 * attention, rel=0.02)


def test_the_floor_has_the_arithmetic_of_the_model(backbone):
    flops, floor = flops_and_floor(backbone.visible_step)
    assert flops_and_floor(floor)[0] == flops > 0


def test_the_floor_of_a_training_step_has_its_backward(training):
    flops, floor = flops_and_floor(training.visible_step)
    assert flops_and_floor(floor)[0] == flops


def test_the_floor_has_nothing_but_that_arithmetic(backbone):
    _, floor = flops_and_floor(backbone.visible_step)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        floor()
    names = {event.name for event in profiler.events()}
    assert 'aten::addmm' in names
    assert not names & {'aten::native_layer_norm', 'aten::gelu', 'aten::cat', 'aten::_to_copy'}


def test_floor_reads_every_weight():
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    x, seen = torch.rand(2, 8), []

    @torch.no_grad()
    def step():
        for layer in layers:
            F.linear(x, layer.weight)

    _, floor = flops_and_floor(step)
    for _, args, _ in floor.__self__._calls:
        seen += [a.data_ptr() for a in args if isinstance(a, torch.Tensor)]
    assert {layer.weight.data_ptr() for layer in layers} <= set(seen)


def test_peak_memory_counts_what_is_there_at_once():
    def step():
        kept = torch.empty(1000, dtype=torch.uint8)
        torch.empty(5000, dtype=torch.uint8)
        return torch.empty(3000, dtype=torch.uint8), kept

    step()
    assert peak_memory(step, CPU) == 6000


def test_peak_memory_does_not_depend_on_steps_before(training):
    first, second = (memory_of(training) for _ in range(2))
    assert first == second > 0


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
