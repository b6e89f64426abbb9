"""The formats of exported files, with a writer and a reader each."""

import contextlib
import io
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import Dim
from torch.overrides import TorchFunctionMode

from vit_backbones.errors import require
from vit_backbones.export.graph import ImageGraph
from vit_backbones.position import resample_antialiased

INPUT = 'images'
OPSETS = (17, 20)  # LayerNormalization came with the first; the exporter knows none above the last
NOTES = 'about.json'
_ONNX_LIMIT = 2**31
_SIZES = (Tensor.shape.__get__, Tensor.size)

Run = Callable[[Tensor], Sequence[Tensor]]


class Job(NamedTuple):
    """The model to write, in eval mode, and its inputs and outputs.

    Attributes:
        example: Images (B, C, H, W); their free sizes do not count.
        free: Names of the images' free axes.
        outputs: Names of the free axes of each output.
    """

    graph: ImageGraph
    example: Tensor
    free: dict[int, str]
    outputs: dict[str, dict[int, str]]
    opset: int

    @property
    def any_size(self) -> bool:
        """Whether the file takes images of any size."""
        return 2 in self.free


class _Portable(TorchFunctionMode):
    """Replaces operators that some formats lack, while a model is traced.

    Antialiased resampling is done by other operators, and only where sizes differ. So is pooling
    to sizes that do not divide those of the maps, as UPerNet's. If images have no free axes, sizes
    and all that is computed from them are plain numbers.
    """

    def __init__(self, free: Collection[int]) -> None:
        super().__init__()
        self.free = free

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.interpolate and kwargs.get('antialias') and kwargs['mode'] == 'bicubic':
            maps, size = args[0], tuple(kwargs['size'])
            same = 2 not in self.free and size == tuple(maps.shape[-2:])
            return maps if same else resample_antialiased(maps, size)
        if func is F.adaptive_avg_pool2d and 2 not in self.free:
            return _pooled(*args, **kwargs)
        result = func(*args, **kwargs)
        if self.free or func not in _SIZES:
            return result
        return torch.Size(map(int, result)) if isinstance(result, tuple) else int(result)


def _pooled(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Pool maps (B, C, h, w) to means over rows and columns, as `F.adaptive_avg_pool2d`."""
    size = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    rows, columns = (
        _means(int(side), wanted or int(side)).to(input)
        for side, wanted in zip(input.shape[-2:], size, strict=True)
    )
    return rows @ input @ columns.T


def _means(count: int, wanted: int) -> Tensor:
    """(wanted, count) shares of each cell in each mean; neighbours may overlap."""
    places, ends = torch.arange(count), torch.arange(1, wanted + 1)[:, None] * count
    inside = (places >= (ends - count) // wanted) & (places < -(-ends // wanted))
    return inside / inside.sum(1, keepdim=True)


def _write_exported(job: Job) -> bytes:
    axes, buffer = dict.fromkeys(job.free, Dim.AUTO), io.BytesIO()
    with contextlib.nullcontext() if job.any_size else _Portable(job.free):
        program = torch.export.export(job.graph, (job.example,), dynamic_shapes=(axes,))
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, 'graph', None), 'nodes', ()):
            node.meta.pop('stack_trace', None)  # paths of this machine
    torch.export.save(program, buffer, extra_files={NOTES: json.dumps(job.graph.notes())})
    return buffer.getvalue()


def _write_torchscript(job: Job) -> bytes:
    buffer = io.BytesIO()
    with _Portable(job.free):
        traced = torch.jit.trace(job.graph, (job.example,), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={NOTES: json.dumps(job.graph.notes())})
    return _without_debugging(buffer)


def _without_debugging(file: io.BytesIO) -> bytes:
    """A file of TorchScript without the lines of code, with their paths, of its operators."""
    file.seek(0)
    reader, stripped = torch._C.PyTorchFileReader(file), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(stripped)
    for name in reader.get_all_records():
        if not name.endswith(('.debug_pkl', 'version', '.data/serialization_id')):
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return stripped.getvalue()


def _write_onnx(job: Job) -> bytes:
    onnx, buffer = require('onnx', 'ONNX', 'onnx'), io.BytesIO()
    num_bytes = sum(t.numel() * t.element_size() for t in job.graph.state_dict().values())
    if num_bytes >= _ONNX_LIMIT:
        raise ValueError(f'{num_bytes / 1e9:.1f} GB of weights; a file of ONNX holds 2 GB')
    quiet = mock.patch.object(torch._C, '_jit_onnx_log')  # a failure would print the whole graph
    with _Portable(job.free), quiet:
        torch.onnx.export(
            job.graph,
            (job.example,),
            buffer,
            dynamo=False,  # the other exporter needs onnxscript
            opset_version=job.opset,
            input_names=[INPUT],
            output_names=list(job.outputs),
            dynamic_axes={INPUT: job.free} | job.outputs if job.free else None,
        )
    model = onnx.load_from_string(buffer.getvalue())
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in job.graph.notes().items()}
    onnx.helper.set_model_props(model, notes)
    return model.SerializeToString()


def _read_onnx(file: io.BytesIO) -> Run:
    runtime = require('onnxruntime', 'ONNX', 'onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # it raises what it logs
    session = runtime.InferenceSession(file.read(), options, providers=['CPUExecutionProvider'])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()})]

    return run


class _Format(NamedTuple):
    name: str
    write: Callable[[Job], bytes]
    read: Callable[[io.BytesIO], Run]


FORMATS = {
    '.onnx': _Format('ONNX', _write_onnx, _read_onnx),
    '.pt': _Format('TorchScript', _write_torchscript, torch.jit.load),
    '.pt2': _Format('torch.export', _write_exported, lambda file: torch.export.load(file).module()),
}
