"""A teacher and a student that fit together, and the sizes of their images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from vit_backbones.arguments import sides
from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.position import Grid
from vit_backbones.training.seeded_data import seeded

_SIDE = 224  # of the student's images, about, unless asked for otherwise
_LAYERS = 4  # that are matched
_MARGIN = 0.9  # patch embeddings and positions let models of one size differ by less


class Pair(NamedTuple):
    """A student that learns and its teacher, both in the form `'raw'`.

    Attributes:
        size: (H, W) of the student's images.
        teacher_size: (H, W) of the teacher's.
        grid: (h, w) of the student's patches.
    """

    teacher: Loaded
    student: Loaded
    size: Grid
    teacher_size: Grid
    grid: Grid

    @property
    def with_cls(self) -> bool:
        """Whether both have a CLS token."""
        return self.teacher.backbone.has_cls_token and self.student.backbone.has_cls_token


def load_pair(
    teacher: Choice,
    student: Choice,
    *,
    size: Sequence[int] | None = None,
    teacher_size: Sequence[int] | None = None,
    seed: int = 0,
) -> Pair:
    """Load both, and find sizes of images that give them equal grids of patches.

    Args:
        teacher: With weights.
        student: Maybe without weights.
        size: Side or (H, W) of the student's images.
        teacher_size: The same for the teacher; its patches are resampled then.
        seed: Of weights that are drawn.

    Raises:
        OSError: For files that are not there.
        ValueError: If they cannot be loaded or do not fit together, or for a size that is not of
            whole patches.
    """
    with seeded(seed):
        learner = load_backbone(student, learns=True, out_type='raw', out_indices=-1)
    loaded = load_backbone(teacher, out_type='raw', out_indices=-1)
    _check(loaded, learner)
    _choose_layers(loaded.backbone, learner.backbone)
    own = _size('size', size, learner, _usual(learner.backbone))
    grid = tuple(a // b for a, b in zip(own, _steps(learner), strict=True))
    equal = tuple(a * b for a, b in zip(grid, _steps(loaded), strict=True))
    other = _size('teacher_size', teacher_size, loaded, loaded.backbone.fixed_size or equal)
    return Pair(loaded, learner, own, other, grid)


def _check(teacher: Loaded, student: Loaded) -> None:
    models = dict(teacher=teacher.backbone, student=student.backbone)
    for role, model in models.items():
        if model.in_channels != 3:
            raise ValueError(
                f'the {role} {model.model_name} takes {model.in_channels} channels, and images are '
                f'read as RGB here: take a model of 3 channels'
            )
    counts = [sum(each.numel() for each in model.parameters()) for model in models.values()]
    if counts[0] < _MARGIN * counts[1]:
        raise ValueError(
            f'the teacher {teacher.name} has {_millions(counts[0])} parameters, fewer than the '
            f'student {student.name} with {_millions(counts[1])}: a student learns from a model of '
            f'its size or a larger one; do they stand in the wrong order?'
        )
    if _same(*models.values()):
        raise ValueError(
            f'teacher and student are one model with the same weights, {teacher.name}: there is '
            f'nothing to learn; name another student'
        )


def _choose_layers(*models: ViTFeatBackbone) -> None:
    """Let models give the output of blocks at equal parts of their depth, the last one included."""
    count = min(_LAYERS, *(model.depth for model in models))
    for model in models:
        model.out_indices = tuple(i * model.depth // count - 1 for i in range(1, count + 1))


def _same(one: ViTFeatBackbone, other: ViTFeatBackbone) -> bool:
    first, second = one.vit.state_dict(), other.vit.state_dict()
    return first.keys() == second.keys() and all(
        each.shape == second[name].shape and torch.equal(each, second[name])
        for name, each in first.items()
    )


def _usual(model: ViTFeatBackbone) -> Grid:
    """The fixed size, or the largest of whole patches up to 224."""
    steps = model.layer_strides[-1]
    return model.fixed_size or tuple(max(1, _SIDE // step) * step for step in steps)


def _size(name: str, given: Sequence[int] | None, loaded: Loaded, default: Grid) -> Grid:
    """(H, W) in whole patches of a model."""
    if given is not None and len(given) not in (1, 2):
        raise ValueError(f'{name}=... takes a side, or height and width, got {len(given)} numbers')
    size = default if given is None else sides(name, (*given, *given)[:2])
    model, shown = loaded.backbone, ' '.join(map(str, size))
    if model.fixed_size not in (None, size):
        fixed = ' '.join(map(str, model.fixed_size))
        raise ValueError(f'{name}={shown}: {loaded.name} takes only {name}={fixed}')
    if (padded := model.padded_size(size)) != size:
        steps = 'x'.join(map(str, _steps(loaded)))
        raise ValueError(
            f'{name}={shown} is not of whole patches of {loaded.name}, which are {steps} pixels: '
            f'the next size is {name}={" ".join(map(str, padded))}'
        )
    return size


def _steps(loaded: Loaded) -> Grid:
    return loaded.backbone.layer_strides[-1]


def _millions(number: int) -> str:
    return f'{number / 1e6:.3g} M'
