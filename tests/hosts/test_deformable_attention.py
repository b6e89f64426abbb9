"""Deformable attention: the kernels by Triton's interpreter, and what runs where they do not."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

from vit_backbones.benchmark.counting import counted
from vit_backbones.hosts import deformable_attention as module
from vit_backbones.hosts.deformable_attention import deformable_attention, shapes_on

GRIDS = [(5, 7), (3, 2), (1, 4)]
CPU = torch.device('cpu')
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='Triton comes with torch on Linux only'
)


def drawn(queries=5):
    torch.manual_seed(0)
    places = torch.rand(2, queries, 3, 3, 2, 2) * 1.6 - 0.3
    return torch.randn(2, 45, 3, 5), places, torch.rand(2, queries, 3, 3, 2)


@pytest.fixture(scope='module')
def interpreted():
    """Errors of the kernels, run on the CPU by a process of its own."""
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, sys.path))}
    script = Path(__file__).with_name('interpreted_triton.py')
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@needs_triton
def test_kernels_equal_the_pytorch_version(interpreted):
    halves = ('three levels, bf16', 'three levels, fp16', 'check of a device')
    errors = {
        f'{case}: {name}': error
        for case, found in interpreted['cases'].items()
        for name, error in found.items()
        # at the very centre of a cell the slope in its place differs left and right
        if case not in halves and (case, name) != ('centres of cells', 'places')
    }
    assert len(errors) == 11 * 4
    assert {case: error for case, error in errors.items() if not error <= 1e-6} == {}


@needs_triton
@pytest.mark.parametrize(('kind', 'rounding'), [('bf16', 2**-7), ('fp16', 2**-10)])
def test_kernels_round_only_values(interpreted, kind, rounding):
    errors = interpreted['cases'][f'three levels, {kind}']
    assert max(errors['out'], errors['value']) <= rounding
    assert max(errors['places'], errors['weights']) <= 1e-6


@needs_triton
def test_the_check_of_a_device_accepts_the_kernels(interpreted):
    error = interpreted['cases']['check of a device']['bf16']
    assert error <= module._ERRORS[torch.bfloat16] / 4


@needs_triton
def test_the_kernels_are_an_operator_of_torch(interpreted):
    assert set(interpreted['operator'].values()) == {'SUCCESS'}


def test_equals_mmcv():
    value, places, weights = drawn()
    shapes = torch.tensor(GRIDS)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(deformable_attention(value, shapes, places, weights), expected)
    found = MultiScaleDeformableAttnFunction.apply(value, shapes, None, places, weights, 64)
    torch.testing.assert_close(found, expected)


def test_mmcvs_function_keeps_places_and_weights_in_fp32():
    value, places, weights = drawn()
    args = torch.tensor(GRIDS), None, places, weights, 64
    found = MultiScaleDeformableAttnFunction.apply(value.bfloat16(), *args)
    expected = multi_scale_deformable_attn_pytorch(
        value.bfloat16().float(), args[0], places, weights
    )
    assert torch.equal(found, expected.bfloat16())


def test_no_queries_and_no_images():
    value, places, weights = drawn(queries=0)
    shapes = torch.tensor(GRIDS)
    assert deformable_attention(value, shapes, places, weights).shape == (2, 0, 15)
    value, places, weights = (each[:0] for each in drawn())
    assert deformable_attention(value, shapes, places, weights).shape == (0, 5, 15)


def test_given_grids_nothing_waits():
    value, places, weights = drawn()
    assert torch.equal(shapes_on(CPU, GRIDS), torch.tensor(GRIDS))
    run = counted(
        lambda: deformable_attention(value, shapes_on(CPU, GRIDS), places, weights, grids=GRIDS)
    )
    assert run.synchronisations == 0


# Where the kernels do not work


@pytest.fixture
def lines(monkeypatch):
    """The log; nothing is tried yet."""
    lines = []
    monkeypatch.setattr(module, 'print_log', lambda line, logger, level: lines.append(line))
    for cached in (module._tried, module._log):
        cached.cache_clear()
    yield lines
    for cached in (module._tried, module._log):
        cached.cache_clear()


def kernels(forward=None, wrong=0.0):
    """Stands for the module of the kernels: the PyTorch version, or less."""

    def by_pytorch(value, shapes, places, weights):
        out = module._in_pytorch(value.float(), shapes.tolist(), places, weights)
        return (out + wrong).to(value.dtype)

    def backward(grad_out, value, shapes, places, weights):
        leaves = [each.float().requires_grad_() for each in (value, places, weights)]
        out = by_pytorch(leaves[0], shapes, *leaves[1:])
        grads = torch.autograd.grad(out, leaves, grad_out.float())
        return grads[0].to(value.dtype), *grads[1:]

    return SimpleNamespace(forward=forward or by_pytorch, backward=backward)


def fails(*args):
    raise RuntimeError('ptxas\n  is old')


def missing():
    raise ModuleNotFoundError("No module named 'triton'")


@pytest.mark.parametrize('dtype', list(module._ERRORS))
def test_kernels_that_agree_are_used(lines, monkeypatch, dtype):
    monkeypatch.setattr(module, '_kernels', kernels)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        assert module.kernels_work(CPU, dtype)
    assert lines == []


@pytest.mark.parametrize(
    ('found', 'reason'),
    [
        (missing, "Triton fails with ModuleNotFoundError: No module named 'triton'"),
        (lambda: kernels(fails), 'Triton fails with RuntimeError: ptxas is old'),
        (lambda: kernels(wrong=0.5), "Triton's result in float32 differs by 0.5"),
        (lambda: kernels(wrong=float('nan')), "Triton's result in float32 differs by nan"),
    ],
)
def test_otherwise_one_line_and_the_pytorch_version(lines, monkeypatch, found, reason):
    monkeypatch.setattr(module, '_kernels', found)
    monkeypatch.setattr(module, '_is_on_gpu', lambda value: True)
    value, places, weights = drawn()
    shapes = torch.tensor(GRIDS)
    expected = module._in_pytorch(value, GRIDS, places, weights)
    for _ in range(2):
        assert torch.equal(deformable_attention(value, shapes, places, weights), expected)
    start = 'Deformable attention on cpu runs in PyTorch, which is slower: '
    assert lines == [start + reason]


def test_what_is_missing_in_all_types_is_one_line(lines, monkeypatch):
    monkeypatch.setattr(module, '_kernels', missing)
    assert [module.kernels_work(CPU, dtype) for dtype in module._ERRORS] == [False] * 3
    assert len(lines) == 1


def test_values_in_fp64_never_take_the_kernels(lines, monkeypatch):
    monkeypatch.setattr(module, '_is_on_gpu', lambda value: True)
    monkeypatch.setattr(module, '_kernels', missing)
    value, places, weights = (each.double() for each in drawn())
    found = deformable_attention(value, torch.tensor(GRIDS), places, weights)
    assert found.dtype == torch.float64
    assert lines == []


def test_among_deterministic_algorithms_the_kernels_are_none(lines, monkeypatch):
    monkeypatch.setattr(module, '_is_on_gpu', lambda value: True)
    monkeypatch.setattr(module, '_kernels', missing)
    value, places, weights = drawn()
    torch.use_deterministic_algorithms(True)
    try:
        found = deformable_attention(value, torch.tensor(GRIDS), places, weights)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found, module._in_pytorch(value, GRIDS, places, weights))
    assert lines == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('dtype', list(module._ERRORS))
def test_kernels_work_on_a_gpu_and_nothing_waits(dtype):
    gpu = torch.device('cuda', torch.cuda.current_device())
    value, places, weights = (each.to(gpu).requires_grad_() for each in drawn())
    assert module.kernels_work(gpu, dtype)
    deformable_attention(value.to(dtype), shapes_on(gpu, GRIDS), places, weights).sum().backward()
    torch.cuda.set_sync_debug_mode('error')
    try:
        shapes = shapes_on(gpu, GRIDS)
        deformable_attention(value.to(dtype), shapes, places, weights).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert places.grad.dtype == weights.grad.dtype == torch.float32


@needs_triton
def test_kernels_are_the_same_for_all_sizes():
    ours = importlib.import_module('vit_backbones.hosts.deformable_triton')
    for kernel in (ours._attend, ours._attend_backward):
        numbers = [each for each in kernel.params if not each.is_constexpr]
        fixed = {each.name for each in kernel.params if each.is_constexpr}
        assert [each.name for each in numbers if each.do_not_specialize] == list(ours._SIZES)
        assert fixed == {'HEADS', 'CHANNELS', 'LEVELS', 'POINTS', *ours.options(32)}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize('arch', [80, 90])
def test_kernels_compile_for_cards_without_one(arch):
    """To machine code, which loads several channels at once."""
    triton = importlib.import_module('triton')
    compiler = importlib.import_module('triton.backends.compiler')
    ours = importlib.import_module('vit_backbones.hosts.deformable_triton')
    constants = ours.options(32) | dict(HEADS=8, CHANNELS=32, LEVELS=3, POINTS=4)
    for kernel in (ours._attend, ours._attend_backward):
        names = kernel.arg_names
        kinds = dict.fromkeys(names, '*fp32') | dict.fromkeys(ours._SIZES, 'i32')
        kinds |= dict(value='*bf16', out='*bf16', grad_out='*bf16', shapes='*i64')
        source = triton.compiler.ASTSource(
            fn=kernel,
            signature={n: 'constexpr' if n in constants else kinds[n] for n in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(i,): [['tt.divisibility', 16]] for i, n in enumerate(names) if '*' in kinds[n]},
        )
        made = triton.compile(source, target=compiler.GPUTarget('cuda', arch, 32))
        assert made.asm['cubin']
        assert 'ld.global.v2' in made.asm['ptx']
