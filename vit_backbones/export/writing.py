"""Write a backbone, and a neck behind it, for programs that run without this package.

Each file is run and compared with PyTorch before it is written.
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vit_backbones.arguments import integer, pair
from vit_backbones.export.formats import FORMATS, INPUT, OPSETS, Job, Run
from vit_backbones.export.graph import ImageGraph
from vit_backbones.files import check_writable, write_whole
from vit_backbones.position import Grid
from vit_backbones.terminal import silence

TOLERANCE = 1e-4  # of the largest magnitude of each output
_BATCH, _SIZE = {0: 'batch'}, {2: 'height', 3: 'width'}  # axes of images that may be free
_FREE = {4: {2: 'rows', 3: 'columns'}, 3: {1: 'tokens'}, 2: {}}  # of outputs, by their rank

Shape = tuple[int | str, ...]


class Exported(NamedTuple):
    """A written file, its format in words, and shapes, in which free sizes have names.

    `difference` is max |file - PyTorch| over all outputs, and `relative` the largest share that it
    has of the largest magnitude of its output. `remark` is what `accept` of `export` gave.
    """

    path: Path
    format: str
    input: Shape
    outputs: dict[str, Shape]
    difference: float
    relative: float
    remark: str = ''

    def __str__(self) -> str:
        """The file, its inputs and outputs and the difference, a line each."""
        shapes = {INPUT: self.input} | self.outputs
        width = max(map(len, shapes))
        lines = [f'{self.path}: {self.path.stat().st_size / 1e6:.1f} MB, {self.format}']
        lines += [f'  {k:{width}} {" x ".join(map(str, shape))}' for k, shape in shapes.items()]
        largest = f'largest difference from PyTorch {self.difference:.1e}'
        share = f'{self.relative:.1e} of the largest value of its output'
        lines += [f'{largest}; {share}, {TOLERANCE:.0e} allowed']
        return '\n'.join([*lines, *filter(None, [self.remark])])


def check_target(path: str | Path, opset: int) -> Path:
    """Refuse a file to export whose suffix or opset is unknown, or that cannot be written."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f'{str(path)!r}: a file to export ends in {", ".join(FORMATS)}')
    integer('opset', opset, *OPSETS)
    check_writable(path)
    return path


def export(
    graph: ImageGraph,
    path: str | Path,
    *,
    size: Sequence[int] | None = None,
    dynamic: bool = False,
    opset: int = 18,
    accept: Callable[[Run, Grid], str] | None = None,
) -> Exported:
    """Write a file for other programs, after a check that it gives PyTorch's numbers.

    Args:
        graph: The model. For one size its positions are resampled to that for good.
        path: `.onnx`, `.pt` (TorchScript) or `.pt2` (torch.export). An old file is replaced.
        size: (H, W) of the images, by default the size that the backbone is built for.
        dynamic: Take any batch, and without `size` images of any size too.
        opset: Version of ONNX's operators.
        accept: Gets the file as a function of images, and their size, after the check of its
            numbers; gives a remark, or raises to refuse the file.

    Raises:
        ValueError: If the suffix, size or opset is wrong, or if the model cannot be written in this
            format or gives other numbers there.
        ImportError: If onnx or onnxruntime is missing.
        OSError: If the file cannot be written.
    """
    path = check_target(path, opset)
    free = (_BATCH | (_SIZE if size is None else {})) if dynamic else {}
    shapes = _any_sizes(graph) if 2 in free else _one_size(graph, size, batch=2 if dynamic else 1)
    examples = [graph.images(*shape) for shape in shapes]
    with torch.no_grad():
        references = [graph(images) for images in examples]
    outputs = _outputs(graph, references[0], free)
    job = Job(graph, examples[0], free, outputs, opset)
    with _guarded(job, path.suffix):
        content = FORMATS[path.suffix].write(job)
        run = FORMATS[path.suffix].read(io.BytesIO(content))
    differences = _checked(job, path.suffix, run, zip(examples, references, strict=True))
    remark = accept(run, shapes[0][1]) if accept else ''
    write_whole(path, content)
    named = zip(references[0], outputs.items(), strict=True)
    shapes_out = {name: _shape(reference, axes) for reference, (name, axes) in named}
    kind = FORMATS[path.suffix].name + (f' opset {opset}' if path.suffix == '.onnx' else '')
    return Exported(path, kind, _shape(examples[0], free), shapes_out, *differences, remark)


def _one_size(graph: ImageGraph, size: Sequence[int] | None, batch: int) -> list[tuple[int, Grid]]:
    """Fit the graph to one size; gives the batches and sizes to try."""
    backbone = graph.backbone
    size = pair('size', size) or backbone.built_size
    steps = backbone.layer_strides[0]
    if any(side < step for side, step in zip(size, steps, strict=True)):
        raise ValueError(
            f'size {size[0]}x{size[1]} is less than one patch of {backbone.model_name!r}, which '
            f'is {steps[0]}x{steps[1]}'
        )
    backbone.set_input_size(size)
    return [(batch, size)] + ([(3, size)] if batch > 1 else [])


def _any_sizes(graph: ImageGraph) -> list[tuple[int, Grid]]:
    """Batches and sizes to try: a rectangle, the size the model is built for, an odd one."""
    backbone = graph.backbone
    if not graph.any_size:
        raise ValueError(
            f'{graph.title!r} as a whole takes images of one size: give it with size=(H, W), and '
            f'dynamic=True leaves the batch free'
        )
    fixed = backbone.fixed_size
    if fixed is not None:
        raise ValueError(
            f'{backbone.model_name!r} takes images of one size: give it with size=(H, W), here for '
            f'instance {fixed[0]} {fixed[1]}, and dynamic=True leaves the batch free'
        )
    down, across = backbone.layer_strides[-1]
    odd = (6 * down - 1, 4 * across + 1)
    return [(2, (5 * down, 7 * across)), (1, backbone.built_size), (3, odd)]


def _outputs(
    graph: ImageGraph, references: Sequence[Tensor], free: Mapping[int, str]
) -> dict[str, dict[int, str]]:
    """Names of the outputs and of their free axes."""
    axes, names = {}, graph.output_names(len(references))
    for name, reference in zip(names, references, strict=True):
        own = _FREE[reference.ndim] if 2 in free else {}
        axes[name] = ({0: 'batch'} if free else {}) | {k: f'{name}_{v}' for k, v in own.items()}
    return axes


def _shape(tensor: Tensor, free: Mapping[int, str]) -> Shape:
    return tuple(free.get(axis, side) for axis, side in enumerate(tensor.shape))


def _checked(
    job: Job, suffix: str, run: Run, pairs: Iterable[tuple[Tensor, Sequence[Tensor]]]
) -> tuple[float, float]:
    """Compare a file's outputs with the references; gives the differences of `Exported`."""
    with _guarded(job, suffix):
        found = [each for images, expected in pairs for each in _differences(run(images), expected)]
    difference, relative = map(max, zip(*found, strict=True))
    if relative <= TOLERANCE:
        return difference, relative
    raise ValueError(
        f'{_name(job, suffix)} gives other numbers than PyTorch, by up to {difference:.1e}, which '
        f'is {relative:.1e} of the largest value of its output where {TOLERANCE:.0e} is allowed, '
        f'so nothing is written: {_advice(job, suffix)}'
    )


@contextlib.contextmanager
def _guarded(job: Job, suffix: str) -> Iterator[None]:
    """Silence exporters and runtimes, and turn their errors into one line."""
    try:
        with silence(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each has its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise ValueError(
            f'{_name(job, suffix)} cannot be exported ({reason}): {_advice(job, suffix)}'
        ) from error


def _name(job: Job, suffix: str) -> str:
    sizes = ' for images of any size' if job.any_size else ''
    return f'{job.graph.title!r} as {suffix}{sizes}'


def _advice(job: Job, suffix: str) -> str:
    if job.any_size:
        return 'give size=(H, W) for images of one size'
    return f'try {" or ".join(each for each in FORMATS if each != suffix)}'


def _differences(
    outputs: Sequence[Tensor], references: Sequence[Tensor]
) -> Iterator[tuple[float, float]]:
    """The largest difference of each output, and its share; infinite for NaN and other shapes."""
    for output, reference in zip(outputs, references, strict=True):
        if output.shape != reference.shape or not output.isfinite().all():
            yield math.inf, math.inf
            continue
        difference = (output - reference).abs().max().item()
        largest = reference.abs().max().item() or difference  # all zero: any difference is too much
        yield difference, difference / largest if difference else 0.0
