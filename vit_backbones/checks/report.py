"""Every check before a training: of a config, of the model that it builds, and of its data."""

import contextlib
import copy
import os
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from vit_backbones.checks.channels import channel_findings
from vit_backbones.checks.coco_files import build_surveyed, evaluator_findings, file_findings
from vit_backbones.checks.data import dataset_findings
from vit_backbones.checks.findings import Finding, caught, error, warning
from vit_backbones.checks.recipe import config_findings, model_findings
from vit_backbones.checks.training_parts import built_hooks, part_findings
from vit_backbones.checks.trial import trial_findings
from vit_backbones.checks.validation_trial import validation_findings
from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import WEIGHTS, Facts, model_chain, nodes, type_name
from vit_backbones.config.loading import use_scope
from vit_backbones.terminal import quiet_prints


def check_config(config: Config, *, reads_data: bool = False) -> Iterator[Finding]:
    """Mistakes that break or spoil a training.

    `reads_data` reads its data, which it then needs; else only COCO files that are there and small.
    """
    use_scope(config)
    facts = Facts.of(config, ('train', 'val'))
    yield from caught(config_findings(facts, needs_data=reads_data))
    hooks, failed = built_hooks(facts)
    yield from caught(part_findings(facts, failed))
    model, found = _built(_with_preprocessor(config))
    yield from found
    if (vit := vit_of(model)) is not None and vit.weights.remark:
        yield warning(vit.weights.remark)
    faulty = False  # the model, or the data to validate on
    if model is not None:
        found = caught(model_findings(facts, model)), caught(trial_findings(facts, model))
        for each in chain(*found):
            faulty |= each.level == 'error'
            yield each
    for split in facts.datasets:
        found = _data_findings(facts, split, model) if reads_data else file_findings(facts, split)
        for each in chain(caught(found), caught(evaluator_findings(facts, split))):
            faulty |= split == 'val' and each.level == 'error'
            yield each
    if model is not None and not faulty:
        yield from caught(validation_findings(facts, model, hooks, reads_data=reads_data))


def _with_preprocessor(config: Config) -> Any:
    """The model's config, with the data preprocessor that MMEngine gives it."""
    model, outside = config.get('model'), config.get('data_preprocessor')
    if isinstance(model, dict) and outside and 'data_preprocessor' not in model:
        return dict(model, data_preprocessor=outside)
    return model


def _built(config: Any) -> tuple[nn.Module | None, list[Finding]]:
    """The model, without its weights where these are the mistake."""
    if not isinstance(config, dict):
        return None, [error('the config has no model: is it only the _base_ of others?')]
    wanted = copy.deepcopy(config)
    _leave_out_downloads(wanted)
    with quiet_prints():
        try:
            model = MODELS.build(copy.deepcopy(wanted))
        except Exception as raised:  # each class has its own
            found = [error(f'model: {describe(raised)}')]
            with contextlib.suppress(Exception):
                return MODELS.build(without_weights(wanted)), found
            return None, found
        try:
            model.init_weights()
        except Exception as raised:
            return model, [error(describe(raised))]
    return model, []


def _leave_out_downloads(model: dict[str, Any]) -> None:
    """Take `Pretrained` files out of a model's config that MMEngine downloads or that are missing.

    A `ViTFeatBackbone` keeps its own: it downloads nothing that way.
    """
    for _, node, _ in nodes(model, closed=lambda node, key: _is_vit(node.content)):
        if _is_vit(node):
            continue
        for key, value in node.items():
            if isinstance(value, (list, tuple)):
                node[key] = type(value)(each for each in value if not _is_download(each))
            elif _is_download(value):
                node[key] = None
        if '://' in str(node.get('pretrained')) and 'ViT' not in str(node.get('backbone')):
            node['pretrained'] = None


def _is_vit(node: dict[str, Any]) -> bool:
    return type_name(node).endswith('ViTFeatBackbone')


def _is_download(value: Any) -> bool:
    if not isinstance(value, dict) or value.get('type') not in ('Pretrained', None):
        return False
    path = str(value.get('checkpoint'))
    return '://' in path or (value.get('type') == 'Pretrained' and not os.path.exists(path))


def without_weights(model: dict[str, Any]) -> dict[str, Any]:
    """A model's config, changed so that its backbone starts from random weights."""
    for key in (*WEIGHTS, 'init_cfg'):
        model_chain(model)[-1].pop(key, None)
    return model


def _data_findings(facts: Facts, split: str, model: nn.Module | None) -> Iterator[Finding]:
    """Read the data of a split: every image with its labels."""
    wanted = (facts.config.get(f'{split}_dataloader') or {}).get('dataset')
    if wanted is None:
        return
    place = f'{split}_dataloader.dataset'
    if any(missing_data(Facts.of(facts.config, (split,)))):
        if facts.builtin_data:
            yield warning(f'{place}: the built-in data are drawn by the first training')
        return
    try:
        dataset = build_surveyed(facts.config, wanted)
    except Exception as raised:  # each class has its own
        yield error(f'{place}: {describe(raised)}')
        return
    if model is not None:
        yield from channel_findings(model, dataset, split)
    yield from dataset_findings(dataset, split)
