"""Whether images reach the backbone as its weights expect them: normalised once, RGB."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.model import BaseDataPreprocessor
from torch import nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checks.findings import Finding, error, note, warning
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.facts import Facts, Node, nodes, type_name

_CLOSE = 1.0  # of 255: rounding in configs is no mistake
_RGB_READERS = ('tifffile',)  # of `imdecode_backend`; the others give BGR
_TURNS = ('_channel_conversion', 'channel_conversion')  # where MMEngine's and mmseg's note it
_Given = tuple[str, Mapping[str, Any], str]  # place of a mean and std, both, order of the channels


class _Images(NamedTuple):
    """How the pipeline of a dataset changes images.

    Attributes:
        place: Where the pipeline stands in the config.
        order: Of the channels behind it, `None` where that is not known.
        normalised: Its `Normalize` steps; `None` for others that may normalise.
    """

    place: str
    order: str | None
    normalised: list[Mapping[str, Any]] | None


def preprocessing_findings(
    model: nn.Module, facts: Facts | None = None, *, expects: bool = False
) -> Iterator[Finding]:
    """Whether images are normalised and ordered as the backbone's weights expect.

    A model without weights passes, unless it `expects` them. `facts` are those of its config.
    """
    vit, preprocessor = vit_of(model), getattr(model, 'data_preprocessor', None)
    if vit is None:
        return
    for name in ('mean', 'std'):
        given = getattr(preprocessor, name, None)
        if given is not None and given.numel() not in (1, vit.in_channels):
            yield error(
                f'data_preprocessor.{name} has {given.numel()} values, and the backbone takes '
                f'{vit.in_channels} channels: give one for each'
            )
    if not (vit.holds_weights or expects):
        return
    pipelines = [] if facts is None else list(_pipelines(facts))
    yield from _normalisation_findings(vit, preprocessor, pipelines)
    if vit.in_channels == 3:
        yield from _order_findings(vit, preprocessor, pipelines)


def _normalisation_findings(
    vit: ViTFeatBackbone, preprocessor: Any, pipelines: Sequence[_Images]
) -> Iterator[Finding]:
    own = _statistics(preprocessor)
    given = [('data_preprocessor', own, 'RGB')] if own else []
    for place, order, steps in pipelines:
        given += [(f'{place}: Normalize', step, order or 'RGB') for step in steps or ()]
        if own and steps:
            yield warning(
                f'{place} has Normalize, and data_preprocessor normalises by mean and std again: '
                f'leave one of them out'
            )
            return
        if own is None and steps == [] and _is_known(preprocessor):
            yield warning(
                f'nothing normalises the images of {place}, neither the pipeline nor the '
                f'data_preprocessor: {_advice(vit)}'
            )
            return
    if vit.preprocess is not None:
        yield from _statistics_findings(vit, given)
        return
    yield note(
        f'nothing shows which mean and std the weights of {vit.model_name} expect: compare '
        f"those of the data_preprocessor with their authors'; a tag in the model's name, such "
        f'as NAME.mae, shows them'
    )
    if all(order for _, order, _ in pipelines):  # of common images
        yield from _scale_findings(given)


def _statistics_findings(vit: ViTFeatBackbone, given: Sequence[_Given]) -> Iterator[Finding]:
    """Compare means and deviations with those of the weights, each place once."""
    reported = set()
    for place, statistics, order in given:
        for name in ('mean', 'std'):
            expected = vit.preprocess[name][:: 1 if order == 'RGB' else -1]
            values = [float(each) for each in statistics[name]]
            values *= vit.in_channels if len(values) == 1 else 1
            pairs = zip(values, expected, strict=False)
            differ = max(abs(one - other) for one, other in pairs) > _CLOSE
            if len(values) != len(expected) or not differ or (name, *values) in reported:
                continue
            reported.add((name, *values))
            fix = '' if order == 'RGB' else ', with to_rgb=True'
            yield warning(
                f'{place}.{name} is {_shown(values)}, but the weights of {vit.model_name} expect '
                f'{expected}, {order} on 0-255: set mean and std to backbone.preprocess{fix}'
            )


def _scale_findings(given: Sequence[_Given]) -> Iterator[Finding]:
    for place, statistics, _ in given:
        if max(statistics['std']) < 1:
            yield warning(
                f'{place}.std is {_shown(statistics["std"])}, as for images on 0-1, and these are '
                f'on 0-255: multiply mean and std by 255'
            )


def _shown(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _order_findings(
    vit: ViTFeatBackbone, preprocessor: Any, pipelines: Sequence[_Images]
) -> Iterator[Finding]:
    """Whether images reach the model as RGB, which all published ViTs take."""
    if not _is_known(preprocessor):
        return
    turns = any(getattr(preprocessor, name, False) for name in _TURNS)
    for place, order, steps in pipelines:
        if order is None or (order == 'BGR') == turns or (steps and _statistics(preprocessor)):
            continue  # or one of two normalisations has to go first
        happens = 'turns it' if turns else 'leaves it so'
        fix = 'to_rgb=True in Normalize' if steps else 'bgr_to_rgb=True there'
        fix = 'bgr_to_rgb=False there, and no rgb_to_bgr' if turns else fix
        yield warning(
            f'the weights of {vit.model_name} expect RGB and get BGR: {place} gives {order}, and '
            f'data_preprocessor {happens}: write {fix}'
        )
        return


def _advice(vit: ViTFeatBackbone) -> str:
    expected = vit.preprocess
    if expected is None:
        return 'give the data_preprocessor the mean and std that the weights expect'
    return (
        f'give the data_preprocessor mean={expected["mean"]} and std={expected["std"]}, which the '
        f'weights of {vit.model_name} expect'
    )


def _is_known(preprocessor: Any) -> bool:
    """Whether a data preprocessor is one of OpenMMLab's, all of whose steps are known."""
    plain = type(preprocessor) is BaseDataPreprocessor
    return plain or any(hasattr(preprocessor, name) for name in _TURNS)


def _statistics(preprocessor: Any) -> dict[str, list[float]] | None:
    """Mean and deviation of a data preprocessor; `None` where they change nothing."""
    if getattr(preprocessor, 'mean', None) is None:
        return None
    given = {name: getattr(preprocessor, name).flatten().tolist() for name in ('mean', 'std')}
    changes = any(given['mean']) or any(value != 1 for value in given['std'])
    return given if changes else None


def _pipelines(facts: Facts) -> Iterator[_Images]:
    for split, datasets in facts.datasets.items():
        # a wrapper may normalise behind its datasets
        loader = facts.config.get(f'{split}_dataloader') or {}
        all_names = [type_name(node) for _, node, _ in nodes(loader)]
        for place, dataset in datasets:
            found = nodes(dataset.get('pipeline') or (), closed=lambda node, key: _is_albu(node))
            steps = [node for _, node, _ in found if 'type' in node]
            own = [step for step in steps if type_name(step) == 'Normalize' and 'mean' in step]
            known = own or not any('normali' in name.lower() for name in all_names)
            if steps:
                yield _Images(f'{place}.pipeline', _order(steps), own if known else None)


def _is_albu(node: Node) -> bool:
    """Whether a step runs those of another library, of the same names."""
    return type_name(node.content) == 'Albu'


def _order(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """Order of three channels behind a pipeline; `None` where it cannot be known."""
    order = None
    for step in steps:
        name = type_name(step)
        if name.startswith('Load') and 'Annot' not in name and 'Proposal' not in name:
            if name != 'LoadImageFromFile' or 'gray' in str(step.get('color_type')):
                return None
            order = 'RGB' if step.get('imdecode_backend') in _RGB_READERS else 'BGR'
        elif name == 'Normalize':
            turned = step.get('to_rgb', True)
            order = {'RGB': 'BGR', 'BGR': 'RGB'}.get(order) if turned else order
        elif any(part in name.lower() for part in ('rgb', 'bgr', 'gray')):
            return None
    return order
