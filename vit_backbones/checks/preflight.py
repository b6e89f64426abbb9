"""Checks of the environment and of the weight files that a training starts from."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vit_backbones import environment
from vit_backbones.checkpoints.fitting import MIN_MATCHED
from vit_backbones.checkpoints.reading import read_content, tensors_of
from vit_backbones.checks.findings import Finding, error
from vit_backbones.config.facts import Facts

_OF_A_RESUME = ('meta', 'message_hub', 'optimizer')


def check_environment() -> None:
    """Refuse packages that do not work together, before mmdet or mmseg is imported.

    Raises:
        ValueError: For the first problem that stops everything, see `vit_backbones.environment`.
    """
    for problem in environment.problems():
        if problem.stops:
            raise ValueError(problem.text)


class Saved(NamedTuple):
    """What a checkpoint holds: the shapes of its tensors, and what it lacks for a resume."""

    shapes: dict[str, torch.Size]
    lacking: list[str]


def look_into(path: str) -> Saved:
    """Read a checkpoint, only once as long as the file stays the same.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, truncated or no checkpoint.
    """
    file = Path(path).expanduser()
    status = file.stat() if file.exists() else None
    return _look_into(path, status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _look_into(path: str, version: tuple[int, int] | None) -> Saved:
    content = read_content(path)
    shapes = {
        name.removeprefix('module.'): tensor.shape
        for name, tensor in tensors_of(content, path).items()
    }
    return Saved(shapes, [key for key in _OF_A_RESUME if key not in content])


def weight_file_findings(facts: Facts) -> Iterator[Finding]:
    """Files of weights that cannot be loaded, except those that the backbone reads itself."""
    for path in facts.starts:
        yield from checkpoint_findings(path)
    if facts.load_from:
        yield from checkpoint_findings(facts.load_from, resume=bool(facts.config.get('resume')))


def checkpoint_findings(path: str, *, resume: bool = False) -> Iterator[Finding]:
    """Whether a checkpoint can be loaded.

    Args:
        path: Local file; MMEngine reads what has a scheme, such as `https://`.
        resume: Whether the training goes on from it, which takes more than weights.
    """
    if '://' in path:
        return
    try:
        lacking = look_into(path).lacking
    except (OSError, ValueError) as raised:
        yield error(str(raised))
        return
    if resume and lacking:
        yield error(
            f'checkpoint {path!r} holds weights, but no {", ".join(lacking)}, so training cannot '
            f'continue from it; start from its weights by options=load_from={path}'
        )


def fit_findings(model: nn.Module, path: str) -> Iterator[Finding]:
    """Whether a checkpoint is of this model; MMEngine only warns.

    It must have 95 % of the model's tensors with their shapes, and every parameter: of hundreds of
    tensors a head may have two.
    """
    if '://' in path:
        return
    shapes = look_into(path).shapes
    wanted = {key.removeprefix('module.'): each.shape for key, each in model.state_dict().items()}
    missing = [key for key, shape in wanted.items() if shapes.get(key) != shape]
    learned = {key.removeprefix('module.') for key, _ in model.named_parameters()}
    if len(missing) > (1 - MIN_MATCHED) * len(wanted) or learned.intersection(missing):
        yield error(
            f'checkpoint {path!r} matches {len(wanted) - len(missing)} of {len(wanted)} tensors of '
            f"the config's model, and 95 % and every parameter are required: was it trained with "
            f'another config? Missing: {", ".join(missing[:10])}'
        )
