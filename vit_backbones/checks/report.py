"""What `tools/check_config.py` does: every check before a training, a line for each finding."""

import copy
import json
import logging
import os
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from vit_backbones.checks import preflight
from vit_backbones.checks.findings import Finding, attempt, error, warning
from vit_backbones.checks.recipe import WEIGHTS, config_findings, model_findings
from vit_backbones.checks.trial import trial_findings
from vit_backbones.config.datasets import leaf_datasets, missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.own_data import use_own_data
from vit_backbones.terminal import quiet_prints, quiet_warnings

_SPLITS = ('train', 'val')
_LABELLED = 50  # images whose labels are looked at; a wrong numbering shows in the first ones


def check_config(
    path: str,
    *,
    data: bool = False,
    options: Sequence[str] = (),
    dataset: str | None = None,
    val_dataset: str | None = None,
    images: str | None = None,
) -> int:
    """Print what would break or spoil a training, a line each with its fix, and a sum.

    Args:
        path: Of an mmdet or mmseg config.
        data: Whether the data must be there; if so, they are read.
        options: `key=value` changes of the config.
        dataset: One's own data, as `use_own_data` takes them, in place of the config's.
        val_dataset: Those to validate on.
        images: Folder of their images, where it is not found.

    Returns:
        Exit code: 0 without errors, 1 with, 2 for a wrong path or option.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # findings are printed, here
    try:
        with quiet_warnings(), tempfile.TemporaryDirectory() as folder:
            preflight.check_environment()
            config = load_config(path, options)
            if dataset is not None:
                print(
                    use_own_data(
                        config, dataset, val_data=val_dataset, images=images, folder=folder
                    )
                )
            count = {'error': 0, 'warning': 0}
            for finding in _findings(config, data):
                print(finding, flush=True)
                count[finding.level] += 1
    except (OSError, ValueError) as raised:
        print(f'error: {describe(raised)}', file=sys.stderr)
        return 2
    finally:
        logging.disable(disabled)
    counted = ', '.join(f'{n or "no"} {level}{"s" * (n > 1)}' for level, n in count.items())
    print(f'{path}: {counted}')
    return 1 if count['error'] else 0


def _findings(config: Config, data: bool) -> Iterator[Finding]:
    use_scope(config)
    yield from config_findings(config, _SPLITS, needs_data=data)
    model = yield from _built(config)
    if model is not None:
        yield from model_findings(config, model, _SPLITS)
        yield from trial_findings(config, model)
    for split in _SPLITS if data else ():
        yield from _data_findings(config, split)


def _built(config: Config) -> Generator[Finding, None, nn.Module | None]:
    """The model, without its weights where these are the mistake."""
    if not isinstance(config.get('model'), dict):
        yield error('the config has no model: is it only the _base_ of others?')
        return None
    wanted = _without_downloads(copy.deepcopy(config.model))
    try:
        with quiet_prints():
            model = MODELS.build(copy.deepcopy(wanted))
    except Exception as raised:  # each class has its own
        yield error(f'model: {describe(raised)}')
        try:
            with quiet_prints():
                return MODELS.build(without_weights(wanted))
        except Exception:
            return None
    with quiet_prints():
        told = list(attempt(model.init_weights))
    yield from told
    return model


def _without_downloads(node: Any) -> Any:
    """A model's config without `Pretrained` files that a training downloads or that are missing."""
    if isinstance(node, dict):
        if str(node.get('type')).endswith('ViTFeatBackbone'):  # which downloads nothing that way
            return node
        path = str(node.get('checkpoint'))
        if node.get('type') in ('Pretrained', None) and '://' in path:
            return None
        if node.get('type') == 'Pretrained' and not os.path.exists(path):
            return None
        for key, value in node.items():
            node[key] = _without_downloads(value)
        if '://' in str(node.get('pretrained')) and 'ViT' not in str(node.get('backbone')):
            node['pretrained'] = None
    elif isinstance(node, (list, tuple)):
        return type(node)(_without_downloads(each) for each in node)
    return node


def without_weights(model: dict[str, Any]) -> dict[str, Any]:
    """A model's config, changed so that its backbone starts from random weights."""
    node = model
    while isinstance(node.get('backbone'), dict):
        node = node['backbone']
    for key in (*WEIGHTS, 'init_cfg'):
        node.pop(key, None)
    return model


def _data_findings(config: Config, split: str) -> Iterator[Finding]:
    """Read the data of a split: every image, and the labels of the first ones."""
    place = f'{split}_dataloader.dataset'
    wanted = (config.get(f'{split}_dataloader') or {}).get('dataset')
    if wanted is None:
        return
    if any(missing_data(config, (split,))):
        if config.get('builtin_data'):
            yield warning(f'{place}: the built-in data are drawn by the first training')
        return
    try:
        with quiet_prints():
            dataset = DATASETS.build(copy.deepcopy(wanted))
    except Exception as raised:  # each class has its own
        yield error(f'{place}: {describe(raised)}')
        return
    if not len(dataset):
        yield error(f'{place} holds no image: its ann_file, data_prefix and filter_cfg leave none')
    yield from attempt(preflight.check_images, dataset, split)
    for leaf in leaf_datasets(dataset):
        yield from _category_findings(leaf, place)
        yield from _label_findings(leaf, place)


def _category_findings(dataset: Any, place: str) -> Iterator[Finding]:
    """Whether each class of a dataset is a category of its COCO file."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    if len(getattr(dataset, 'cat_ids', classes)) >= len(classes):
        return
    categories = json.loads(Path(dataset.ann_file).read_text(encoding='utf-8'))['categories']
    names = [each['name'] for each in categories]
    unknown = [name for name in classes if name not in names]
    yield error(
        f'{place}.metainfo.classes has {", ".join(unknown[:5])}, which {dataset.ann_file} has not '
        f'among its categories ({", ".join(names[:5])}{", ..." if len(names) > 5 else ""}): these '
        f'are never learned; spell them alike'
    )


def _label_findings(dataset: Any, place: str) -> Iterator[Finding]:
    """Whether the label maps of an mmseg dataset hold labels that it has no class for."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    if not classes or not hasattr(dataset, 'seg_map_suffix'):
        return
    loaders = [t for t in dataset.pipeline.transforms if type(t).__name__.startswith('Load')]
    for index in range(min(len(dataset), _LABELLED)):
        info = dataset.get_data_info(index)
        try:
            for loader in loaders:
                info = loader(info)
        except Exception:  # told by check_images
            continue
        labels = set(np.unique(info.get('gt_seg_map', ()))) - {
            getattr(dataset, 'ignore_index', 255)
        }
        if max(labels, default=0) >= len(classes):
            yield error(
                f'{place}: {info["seg_map_path"]} holds label {max(labels):.0f}, but labels of '
                f'{len(classes)} classes run from 0 to {len(classes) - 1}: name all classes, or '
                f'draw the labels anew (reduce_zero_label=True takes 1 off each)'
            )
            return
