"""The formats of exported files: how each is written and run."""

import contextlib
import importlib
import io
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from vit_backbones.export.graph import Graph
from vit_backbones.position import resample_antialiased

INPUT = 'images'
OPSETS = (17, 20)  # LayerNormalization came with the first; the exporter knows none above the last
NOTES = 'about.json'

Run = Callable[[Tensor], Sequence[Tensor]]


class Job(NamedTuple):
    """What is to be written.

    Attributes:
        graph: Of eval mode.
        example: Images (B, C, H, W); no size counts that is free.
        free: Axes of images whose size is free, by their names.
        outputs: Those of each output, by its name.
        opset: Of ONNX.
        about: Notes for the file.
    """

    graph: Graph
    example: Tensor
    free: dict[int, str]
    outputs: dict[str, dict[int, str]]
    opset: int
    about: Mapping[str, object]

    @property
    def any_size(self) -> bool:
        """Whether images of any size are taken."""
        return 2 in self.free


def _program(job: Job) -> ExportedProgram:
    axes = dict.fromkeys(job.free, Dim.AUTO)
    with contextlib.nullcontext() if job.any_size else _Portable():
        return torch.export.export(job.graph, (job.example,), dynamic_shapes=(axes,))


def _traceable(job: Job) -> nn.Module:
    """The graph; where nothing is free without the arithmetic on sizes, which is constant then."""
    if job.free:
        return job.graph
    program = _program(job).module()
    if any(_writes(node) for node in program.graph.nodes):
        _fold_constants(program)
    return _Frozen(program)


class _Frozen(nn.Module):
    """A program as a module that bears `eval()`."""

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> '_Frozen':
        """Nothing to do."""
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.program(images)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _fold_constants(program: fx.GraphModule) -> None:
    """Compute what does not depend on images, in place.

    The exporter to ONNX loses what is written into parts of tensors, as masks and tables are made.
    """
    values: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == 'get_attr':
            values[node] = operator.attrgetter(node.target)(program)
        elif node.op == 'call_function' and values.keys() >= set(node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for number, node in enumerate(values):
        if node.op == 'call_function' and not values.keys() >= set(node.users):
            program.register_buffer(f'folded_{number}', values[node].clone())
            node.op, node.target, node.args, node.kwargs = 'get_attr', f'folded_{number}', (), {}
    for node in reversed(values):
        if not node.users:
            program.graph.erase_node(node)
    program.recompile()


class _Portable(TorchFunctionMode):
    """Resamples with antialiasing by operators that every format has."""

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.interpolate and kwargs.get('antialias') and kwargs['mode'] == 'bicubic':
            return resample_antialiased(args[0], tuple(kwargs['size']))
        return func(*args, **kwargs)


def _write_exported(job: Job) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(job), buffer, extra_files={NOTES: json.dumps(job.about)})
    return buffer.getvalue()


def _read_exported(content: bytes) -> Run:
    return torch.export.load(io.BytesIO(content)).module()


def _write_torchscript(job: Job) -> bytes:
    buffer = io.BytesIO()
    traced = torch.jit.trace(_traceable(job), (job.example,), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={NOTES: json.dumps(job.about)})
    return buffer.getvalue()


def _read_torchscript(content: bytes) -> Run:
    return torch.jit.load(io.BytesIO(content))


def _write_onnx(job: Job) -> bytes:
    onnx = _needed('onnx')
    buffer = io.BytesIO()
    with _Portable():
        torch.onnx.export(
            _traceable(job),
            (job.example,),
            buffer,
            dynamo=False,  # the other exporter needs onnxscript
            opset_version=job.opset,
            input_names=[INPUT],
            output_names=list(job.outputs),
            dynamic_axes={INPUT: job.free} | job.outputs if job.free else None,
        )
    model = onnx.load_from_string(buffer.getvalue())
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in job.about.items()}
    onnx.helper.set_model_props(model, notes)
    return model.SerializeToString()


def _read_onnx(content: bytes) -> Run:
    runtime = _needed('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # it raises what it logs
    session = runtime.InferenceSession(content, options, providers=['CPUExecutionProvider'])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()})]

    return run


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'ONNX needs {name}: pip install vit_backbones[tools]') from error


class _Format(NamedTuple):
    write: Callable[[Job], bytes]
    read: Callable[[bytes], Run]


FORMATS = {
    '.onnx': _Format(_write_onnx, _read_onnx),
    '.pt': _Format(_write_torchscript, _read_torchscript),
    '.pt2': _Format(_write_exported, _read_exported),
}
