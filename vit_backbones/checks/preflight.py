"""Checks of the environment and of the weight files that a training starts from.

MMEngine reads the values of these files; here, only their names and shapes are read.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from vit_backbones import environment
from vit_backbones.checkpoints import names, sections
from vit_backbones.checkpoints.fitting import MIN_MATCHED
from vit_backbones.checks.findings import Finding, error
from vit_backbones.config.facts import Facts, listed
from vit_backbones.sources.published import where_to_get

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


def fit_findings(model: nn.Module, path: str) -> Iterator[Finding]:
    """Whether a checkpoint is of this model; MMEngine only warns.

    It must have 95 % of the model's tensors with their shapes, and every parameter: of hundreds of
    tensors a head may have two.
    """
    if '://' in path:
        return
    shapes = {key.removeprefix('module.'): shape for key, shape in names(path).items()}
    wanted = {key.removeprefix('module.'): each.shape for key, each in model.state_dict().items()}
    missing = [key for key, shape in wanted.items() if shapes.get(key) != shape]
    learned = {key.removeprefix('module.') for key, _ in model.named_parameters()}
    if len(missing) > (1 - MIN_MATCHED) * len(wanted) or learned.intersection(missing):
        yield error(
            f'checkpoint {path!r} matches {len(wanted) - len(missing)} of {len(wanted)} tensors of '
            f"the config's model, and 95 % and every parameter are required: was it trained with "
            f'another config? Missing: {", ".join(missing[:10])}'
        )
