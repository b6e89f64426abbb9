"""Checks of the environment and of the weight files that a training starts from.

MMEngine reads the values of these files; here, names and shapes, and values where a model asks.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from vit_backbones import environment
from vit_backbones.checkpoints import contents, names, sections, updates
from vit_backbones.checkpoints.fitting import RECORDS
from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.wiring import bare, vit_of
from vit_backbones.config.facts import Facts, listed
from vit_backbones.errors import counted, some
from vit_backbones.sources.copies import hollow
from vit_backbones.sources.published import where_to_get

_OPTIONAL = (*RECORDS, 'num_batches_tracked')  # older files lack them
_MOST = 5  # names in a message
_OF_A_RESUME = ('meta', 'message_hub', 'optimizer')  # keys of the file


def check_environment() -> None:
    """Refuse packages that do not work together, before mmdet or mmseg is imported."""
    for problem in environment.problems():
        if problem.stops:
            raise ValueError(problem.text)


def weight_file_findings(facts: Facts) -> Iterator[Finding]:
    """Files of weights that cannot be loaded, except those that the backbone reads itself."""
    vit = facts.chain[-1]
    own = [start.get('checkpoint') for start in listed(vit.get('init_cfg'))]
    for path in facts.starts:
        found = list(checkpoint_findings(path))
        if path in own and not Path(path).expanduser().exists():
            fix = where_to_get(vit.get('source', 'timm'), vit.get('model_name'), path)
            found = [each._replace(text=f'{each.text}{fix}') for each in found]
        yield from found
    if facts.load_from:
        yield from checkpoint_findings(facts.load_from, resume=bool(facts.config.get('resume')))


def checkpoint_findings(path: str, *, resume: bool = False) -> Iterator[Finding]:
    """Whether a checkpoint can be loaded, and holds all that a resumed training needs."""
    if '://' in path:  # MMEngine reads it
        return
    try:
        names(path)
    except (OSError, ValueError) as raised:
        yield error(str(raised))
        return
    held = sections(path) if resume else _OF_A_RESUME
    if lacking := [key for key in _OF_A_RESUME if key not in held]:
        yield error(
            f'checkpoint {path!r} holds weights, but no {", ".join(lacking)}, so training cannot '
            f'continue from it; start from its weights by options=load_from={path}'
        )


def fit_findings(model: nn.Module, path: str, *, resume: bool = False) -> Iterator[Finding]:
    """Whether a checkpoint is of this model; MMEngine only logs what it lacks."""
    if '://' in path:
        return
    try:
        given, state, left = _loaded(model, path)
    except ValueError as raised:
        yield error(str(raised))
    else:
        yield from _missing_findings(path, given, state, resume)
        yield from _left_findings(path, left)


def load_from_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a checkpoint that a training starts from holds the ViT; heads may be others."""
    vit, path = vit_of(model), facts.load_from
    if vit is None or not path or '://' in path or facts.config.get('resume'):
        return
    if any(checkpoint_findings(path)):  # `weight_file_findings` has a line on it
        return
    place = next(name for name, each in bare(model).named_modules() if each is vit)
    try:
        given, state, _ = _loaded(model, path)
    except ValueError as raised:
        yield error(str(raised))
        return
    own = {name: t for name, t in state.items() if name.startswith(f'{place}.vit.')}
    for name in updates.only(own):  # they start at zero
        del own[name]
    if missing := _missing(own):
        shown = some([_compared(name, given.get(name), own[name]) for name in missing], _MOST)
        stay = 'keep the values of its own start' if facts.names_weights else 'stay random'
        fix = '; a file of a backbone only is for its checkpoint=...'
        yield warning(
            f'load_from={path!r} lacks {len(missing)} of {len(own)} tensors of the backbone, '
            f'which {stay}: {shown}{"" if given.keys() & own.keys() else fix}'
        )


def _loaded(model: nn.Module, path: str) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Tensors of a file, a model's state with them, and the file's names that fit nowhere.

    A copy of the model without values loads it as the model will, with all that its parts resample
    and rename: a tensor without values then was not in the file.
    """
    content = contents(path)
    content = content.get('state_dict', content)  # MMEngine opens no other wrapper
    given = {k.removeprefix('module.'): v for k, v in content.items() if isinstance(v, Tensor)}
    if not given:
        raise ValueError(
            f"checkpoint {path!r} has no 'state_dict' of tensors, which MMEngine reads, but "
            f'{some(content)}: save it as dict(state_dict=...)'
        )
    copy, left = hollow(bare(model)), []
    try:
        left = copy.load_state_dict(given, strict=False, assign=True).unexpected_keys
    except ValueError as raised:
        raise ValueError(f'checkpoint {path!r}: {raised}') from None
    except RuntimeError:  # of shapes; these tensors stay without values
        pass
    return given, copy.state_dict(), left


def _missing_findings(
    path: str, given: dict[str, Tensor], state: dict[str, Tensor], resume: bool
) -> Iterator[Finding]:
    missing = _missing(state)
    shown = [_compared(name, given.get(name), state[name]) for name in missing]
    fix = f'; to train this model from what fits, options=load_from={path}' if resume else ''
    if missing:
        yield error(
            f"checkpoint {path!r} lacks {len(missing)} of {len(state)} tensors of the config's "
            f'model: was it trained with another config? Missing: {some(shown, _MOST)}{fix}'
        )


def _left_findings(path: str, left: list[str]) -> Iterator[Finding]:
    if left := [name for name in left if not _is_optional(name)]:
        yield warning(
            f"checkpoint {path!r} holds {counted(len(left), 'tensor')} that the config's model "
            f'lacks and leaves out: was it trained with another config? {some(left)}'
        )


def _missing(state: dict[str, Tensor]) -> list[str]:
    return [name for name in state if state[name].is_meta and not _is_optional(name)]


def _is_optional(name: str) -> bool:
    return name.rpartition('.')[2] in _OPTIONAL


def _compared(name: str, given: Tensor | None, own: Tensor) -> str:
    """The name of a missing tensor, with both shapes if the file has it in another one."""
    if given is None or given.shape == own.shape:
        return name
    return f'{name} ({_sides(given)} in the file, {_sides(own)} here)'


def _sides(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape)) or 'a number'
