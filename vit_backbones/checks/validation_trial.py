"""One validation step with the evaluator, for mistakes that only a validation shows."""

import contextlib
import copy
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner
from torch import nn

from vit_backbones.checks.channels import channel_findings
from vit_backbones.checks.drawn_data import NotDrawnError, draw_for
from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.checks.training_parts import monitor_findings
from vit_backbones.checks.trial import data_samples
from vit_backbones.checks.validating import ValidationError, validate
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts, dataset_configs, listed, nodes, type_name
from vit_backbones.terminal import quiet_prints

_DRAWN = (120, 168)  # (H, W)
_SIDE = 240  # longest side of an image that is tried; no usual size, so that resizing shows
_SIDES = ('scale', 'scales', 'size', 'crop_size', 'width', 'height', 'max_size')  # of transforms
_PROPOSALS = 50  # at most, of a head that looks at each
_METRICS = ('CocoMetric', 'CocoPanopticMetric', 'IoUMetric')
_LOADERS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations')
_WRITTEN = ('outfile_prefix', 'output_dir')
_MISSING = 'no validation step was tried: '


def validation_findings(
    facts: Facts, model: nn.Module, hooks: Iterable[Any], *, reads_data: bool
) -> Iterator[Finding]:
    """Whether a validation step works, on the first image, or without data on a drawn one.

    `hooks` are those whose metrics it must give.
    """
    config = facts.config
    loader, evaluator = config.get('val_dataloader'), config.get('val_evaluator')
    if not loader or not evaluator or data_samples(config, model, (64, 96)) is None:
        return  # the trial of a training step names other models
    training = config.get('train_cfg') or {}
    end = training.get('max_epochs', training.get('max_iters'))
    if end is not None and training.get('val_begin', 1) > end:  # it never validates
        return
    if (kind := (config.get('val_cfg') or {}).get('type', 'ValLoop')) != 'ValLoop':
        yield warning(f'{_MISSING}val_cfg has the loop {kind}')
        return
    real = reads_data and not any(missing_data(Facts.of(config, ('val',))))
    with tempfile.TemporaryDirectory() as folder:
        try:
            loader, evaluator = copy.deepcopy((loader, evaluator))
            if not real:
                loader, evaluator = _with_drawing(facts, model, loader, evaluator, Path(folder))
            _keep_files(evaluator, Path(folder))
            which = 'the first' if real else 'a drawn'
            for each in _trial(model, loader, evaluator, hooks, which):
                text = re.sub(rf'\({folder}/\S+, ', '(', each.text)
                yield each._replace(text=re.sub(rf'{folder}/\S+', 'it', text))
        except NotDrawnError as raised:
            yield warning(f'{_MISSING}{raised}')


def _trial(
    model: nn.Module, loader: dict[str, Any], evaluator: Any, hooks: Iterable[Any], which: str
) -> Iterator[Finding]:
    alone = dict(num_workers=0, persistent_workers=False, batch_size=1, prefetch_factor=None)
    try:
        with _small(model, loader), quiet_prints():
            built = Runner.build_dataloader(loader | alone, seed=0)
            others = list(channel_findings(model, built.dataset, 'val'))
            with_metrics = _built_evaluator(evaluator)
            with_metrics.dataset_meta = getattr(built.dataset, 'metainfo', None)
            done = None if others else validate(model, built, with_metrics, count=1)
    except ValidationError as raised:
        yield error(f'a validation step on {which} image fails: {raised}')
    except Exception as raised:  # each class has its own
        yield error(f'val_dataloader or val_evaluator: {describe(raised)}')
    else:
        yield from others  # outside the blocks above, which silence what a caller prints
        if done is not None:
            yield from monitor_findings(hooks, done.metrics)


def _built_evaluator(evaluator: Any) -> Evaluator:
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        return EVALUATOR.build(dict(type='Evaluator') | evaluator)
    return Evaluator(evaluator)


def _with_drawing(
    facts: Facts, model: nn.Module, loader: dict[str, Any], evaluator: Any, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The dataloader and the metrics, for a drawn image."""
    dataset = next((each for _, each in dataset_configs(loader, '')), {})
    types = [type_name(step) for step in dataset.get('pipeline') or ()]
    if other := [each for each in types if each.startswith('Load') and each not in _LOADERS]:
        raise NotDrawnError(f'{other[0]} reads other files than a drawn image has')
    metrics = listed(evaluator.get('metrics') if 'metrics' in evaluator else evaluator)
    if other := [type_name(each) for each in metrics if type_name(each) not in _METRICS]:
        raise NotDrawnError(f'{other[0]} may read other files than a drawn image has')
    vit = vit_of(model)
    fixed = vit.fixed_size if vit and not _longest(dataset) else None
    channels = getattr(vit, 'in_channels', 3)
    size = fixed or _DRAWN
    drawn, files = draw_for(dataset, facts.scope, folder, size=size, channels=channels)
    for each in metrics:
        changed = files.get(type_name(each), {})
        each.update({key: file for key, file in changed.items() if each.get(key)})
    return loader | dict(dataset=drawn), metrics


def _keep_files(evaluator: Any, folder: Path) -> None:
    """Let metrics write into a folder that is removed."""
    for _, node, _ in nodes(evaluator):
        for key in _WRITTEN:
            if node.get(key):
                node[key] = str(folder / key / Path(node[key]).name)


def _longest(dataset: dict[str, Any]) -> float:
    """The longest side to which a pipeline resizes a picture of 4:3 or longer; 0 without."""
    for step in dataset.get('pipeline') or ():
        scale = step.get('scale') if 'Resize' in type_name(step) else None
        if isinstance(scale, int):
            return scale * 4 / 3
        if isinstance(scale, (list, tuple)) and all(isinstance(each, int) for each in scale):
            return min(max(scale), min(scale) * 4 / 3) if step.get('keep_ratio') else max(scale)
    return 0


@contextlib.contextmanager
def _small(model: nn.Module, loader: dict[str, Any]) -> Iterator[None]:
    """Resize to a small image, and cut the windows of the model in proportion.

    A model that takes one size keeps it.
    """
    vit = vit_of(model)
    dataset = next((each for _, each in dataset_configs(loader, '')), {})
    longest = _longest(dataset)
    if longest <= _SIDE or (vit is not None and vit.fixed_size):
        yield
        return
    factor = _SIDE / longest
    dataset['pipeline'] = [_scaled(step, factor, _SIDES) for step in dataset['pipeline']]
    preprocessor, test_cfg = (
        getattr(model, 'data_preprocessor', None),
        getattr(model, 'test_cfg', None),
    )
    with contextlib.ExitStack() as stack:
        if getattr(test_cfg, 'get', {}.get)('mode') == 'slide':
            small = _scaled(test_cfg, factor, ('crop_size', 'stride'))
            stack.enter_context(_replaced(model, 'test_cfg', small))
        if (getattr(preprocessor, 'pad_size_divisor', None) or 1) > 64:
            stack.enter_context(_replaced(preprocessor, 'pad_size_divisor', 64))
        proposing = getattr(getattr(model, 'rpn_head', None), 'test_cfg', None)
        if proposing and proposing.get('max_per_img', 0) > _PROPOSALS:
            few = proposing | dict(max_per_img=_PROPOSALS)
            stack.enter_context(_replaced(model.rpn_head, 'test_cfg', few))
        yield


def _scaled(node: Any, factor: float, keys: Iterable[str]) -> Any:
    """A copy of a dict whose sizes are multiplied."""

    def times(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(times, value))
        return max(16, round(value * factor)) if isinstance(value, int) else value

    scaled = copy.copy(node)
    for key in keys:
        if key in scaled:
            scaled[key] = times(scaled[key])
    return scaled


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)
