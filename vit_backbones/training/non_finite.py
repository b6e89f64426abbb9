"""Find where numbers stop being finite: one batch again, layer by layer."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from vit_backbones.checkpoints import contents
from vit_backbones.checks.wiring import bare
from vit_backbones.training.seeded_data import Sample, seed_all

_LARGEST = 10  # gradients that a report shows


class NonFiniteError(RuntimeError):
    """A loss or gradient is not finite."""


@dataclass
class Report:
    """An iteration whose numbers were not finite, and what a second run of it showed.

    Attributes:
        iter: Iterations before it.
        total: Iterations of the training.
        seed: Of the training.
        rank: Of the process.
        samples: Seed, epoch and index of each image.
        images: Their paths.
        losses: Value of each loss.
        layer: First module, in the order of the forward pass, with an output that is not finite,
            `None` if all were.
        gradients: The largest absolute value of the gradient, for the parameters where it is
            largest or not finite.
    """

    iter: int
    total: int
    seed: int
    rank: int
    samples: list[Sample]
    images: list[str] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    layer: str | None = None
    gradients: dict[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether all of it was finite."""
        values = (*self.losses.values(), *self.gradients.values())
        return self.layer is None and all(map(math.isfinite, values))

    def line(self) -> str:
        """The report in a line."""
        bad = [f'{name} is {value}' for name, value in self.losses.items() if _is_bad(value)]
        what = ', '.join(bad) or 'all losses are finite'
        first = self.layer or 'no layer (the losses or their gradients)'
        largest = ', '.join(f'{name} {value:.3g}' for name, value in self.gradients.items())
        shown = ', '.join(self.images[:8]) + ', ...' * (len(self.images) > 8)
        return (
            f'iteration {self.iter + 1}: {what}; first output that is not finite: {first}; images: '
            f'{shown}; largest gradients: {largest}'
        )

    def save(self, path: Path, model: nn.Module) -> None:
        """Write it with the weights, in plain types."""
        torch.save({'report': asdict(self), 'state_dict': model.state_dict()}, path)

    @classmethod
    def load(cls, path: str | Path) -> tuple['Report', dict[str, Tensor]]:
        """Read what `save` wrote: the report, and the weights.

        Raises:
            OSError: If there is no such file.
            ValueError: If it is something else.
        """
        content = contents(path)
        if 'report' not in content:
            raise ValueError(
                f'replay=... takes a non_finite_iter_*.pth that a training wrote, got {path}'
            )
        return cls(**content['report']), content['state_dict']


def run_again(report: Report, model: nn.Module, wrapper: Any, loader: Any) -> Report:
    """The iteration of a report once more; the gradients of the model are then its own.

    Args:
        report: Names the iteration and its samples.
        model: With the weights before that iteration, in training mode.
        wrapper: MMEngine's `OptimWrapper`, for the precision.
        loader: The training's dataloader.
    """
    batch = loader.collate_fn(loader.dataset.__getitems__(report.samples))
    model = bare(model)
    model.train()
    model.zero_grad()
    seed_all(report.seed, report.iter, 0)
    eager = torch.compiler.set_stance('force_eager')
    with eager, _as_of(report), _first_bad(model) as found, wrapper.optim_context(model):
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total, values = model.parse_losses(losses)
    total.backward()
    return Report(
        **asdict(report)
        | dict(
            images=_images(report, batch, loader.dataset),
            losses={name: float(value) for name, value in values.items()},
            layer=next(iter(found), None),
            gradients=_largest(model),
        )
    )


def _images(report: Report, batch: Any, dataset: Any) -> list[str]:
    """Paths by the data samples, else by the dataset, which may have taken another one."""
    given = batch.get('data_samples') if isinstance(batch, dict) else None
    if given and all(hasattr(each, 'img_path') for each in given):
        return [str(each.img_path) for each in given]
    if not hasattr(dataset, 'get_data_info'):
        return [f'number {index}' for *_, index in report.samples]
    infos = [dataset.get_data_info(index) for *_, index in report.samples]
    return [str(each.get('img_path')) for each in infos]


@contextlib.contextmanager
def _as_of(report: Report) -> Iterator[None]:
    """Let heads whose work depends on the iteration see that one."""
    hub = MessageHub.get_current_instance()
    kept = {name: hub.get_info(name) for name in ('iter', 'max_iters', 'loop_stage')}
    hub.update_info_dict(dict(iter=report.iter, max_iters=report.total, loop_stage='train'))
    try:
        yield
    finally:
        hub.update_info_dict(kept)


@contextlib.contextmanager
def _first_bad(model: nn.Module) -> Iterator[list[str]]:
    """Names of the modules with outputs that are not finite, in their order."""
    found: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not all(bool(each.isfinite().all()) for each in _tensors(output)):
            found.append(f'{names[module]} ({type(module).__name__})')

    hooks = [module.register_forward_hook(look) for module in names if module is not model]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _tensors(each)


def _largest(model: nn.Module) -> dict[str, float]:
    """Names and largest values of gradients, those that are not finite first."""
    sizes = {
        name: float(parameter.grad.abs().max())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.numel()
    }
    order = sorted(sizes, key=lambda name: (not _is_bad(sizes[name]), -sizes[name]))
    return {name: sizes[name] for name in order[:_LARGEST]}


def _is_bad(value: float) -> bool:
    return not math.isfinite(value)
