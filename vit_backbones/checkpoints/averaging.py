"""Which copy of a model to take, where a file holds several: the one that its authors evaluate.

A copy is a section of a file (`'state_dict_ema'` beside `'state_dict'`) or its tensors below a
prefix (`'teacher.'` beside `'student.'`). docs/checkpoints.md has the projects with their sources.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

ALIKE = 0.9  # share of a model's names that a copy of it has at least

# Pairs of names, as a section or a part of a prefix: the first is evaluated where both are there.
# Only those that `_AVERAGED` would get wrong
_EVALUATED = (
    # the hook of MMEngine swaps the average into `state_dict`
    *(('state_dict', 'ema_state_dict'),),
    # MoCo v3, MoCo v1 and v2
    *(('base_encoder', 'momentum_encoder'), ('encoder_q', 'encoder_k')),
    # BYOL
    *(('online_encoder', 'target_encoder'), ('online_network', 'target_network')),
    # MoCo v3 of mmpretrain, solo-learn
    *(('backbone', 'momentum_encoder'), ('backbone', 'momentum_backbone')),
    # Lightly: BYOL, MoCo and DINO
    *(('backbone', 'teacher_backbone'), ('backbone', 'backbone_momentum')),
    ('backbone', 'student_backbone'),
    # DINOv3, whose teacher is another model in a distillation
    *(('model_ema', 'teacher'), ('model_ema', 'gram_teacher'), ('teacher', 'gram_teacher')),
)
_AVERAGED = re.compile(r'(^|[._])(teacher|ema|target|momentum)')
_SECTIONS = (
    *('state_dict', 'model', 'teacher', 'student', 'model_state', 'model_state_dict', 'module'),
    *('ema', 'target_encoder', 'encoder'),
    *(name for pair in _EVALUATED for name in pair),
)
_AVERAGED_SECTION = re.compile(rf'(\w+_)?ema_({"|".join(_SECTIONS)})|({"|".join(_SECTIONS)})_ema')


def by_choice(copies: Iterable[str]) -> list[str]:
    """The names of copies, the one to take first.

    That is the one which its authors evaluate; where that is not known, the averaged one, and
    among equals the one that comes first.
    """
    copies = list(dict.fromkeys(copies))
    parts = {copy: set(copy.split('.')) for copy in copies}

    def is_left(copy: str) -> bool:
        return any(
            left in parts[copy] and taken in parts[other] and left not in parts[other]
            for taken, left in _EVALUATED
            for other in copies
        )

    return sorted(copies, key=lambda copy: (is_left(copy), _AVERAGED.search(copy) is None))


def sections_by_choice(content: Mapping[object, object]) -> list[str]:
    """The keys of a file under which weights lie, the one to open first.

    Those of known names, and any other average of as good as the same tensors.
    """
    held = {key: _tensors(each) for key, each in content.items() if isinstance(key, str)}
    held = {key: names for key, names in held.items() if names}
    known = [name for name in _SECTIONS if name in held]
    known += [key for key in held if key not in known and _AVERAGED_SECTION.fullmatch(key)]
    return by_choice(
        known
        + [
            key
            for key in held
            if _AVERAGED.search(key) and any(_alike(held[key], held[other]) for other in known)
        ]
    )


def _tensors(section: object) -> set[str]:
    """Names of the tensors in a section of a file, or in its own sections."""
    if not isinstance(section, dict):
        return set()
    names = {str(name) for name, each in section.items() if isinstance(each, Tensor)}
    return names or set().union(*(_tensors(section[key]) for key in _SECTIONS if key in section))


def _alike(ours: set[str], theirs: set[str]) -> bool:
    bare = [{name.removeprefix('module.') for name in names} for names in (ours, theirs)]
    return len(bare[0] & bare[1]) >= ALIKE * max(map(len, bare))


def noted(copies: Sequence[str]) -> str | None:
    """A few words that name the copy taken, if there are several."""
    if len(copies) < 2:
        return None
    taken, *left = (repr(copy.removesuffix('.')) for copy in copies)
    return f'its {taken}, not its {", ".join(left)}'
