"""What is wrong is told before any training starts: in one line, with exit code 2.

`check_environment` needs nothing, `check_optimizer` and `check_files` the config, `check_fit` the
built model, `check_images` a built dataset. `vit_backbones.checks.recipe` has them all in order.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from mmengine.config import Config
from rich.progress import Progress
from torch import nn

from vit_backbones import environment
from vit_backbones.checkpoints import read_checkpoint
from vit_backbones.checkpoints.fitting import MIN_MATCHED
from vit_backbones.config.datasets import dataset_configs, leaf_datasets, missing_data
from vit_backbones.config.registries import find_registered

_SILENT_SECONDS = 3  # a progress bar for what takes longer


def check_environment() -> None:
    """Refuse packages that do not work together, before mmdet or mmseg is imported.

    Raises:
        ValueError: For the first problem that stops everything, see `vit_backbones.environment`.
    """
    for problem in environment.problems():
        if problem.stops:
            raise ValueError(problem.text)


def check_optimizer(config: Config) -> None:
    """Refuse what MMEngine, mmdet and mmseg refuse without saying why.

    Args:
        config: The merged config.

    Raises:
        KeyError: For an unknown optimizer (`None is not a callable object`), as MMEngine's
            registries raise it.
        ValueError: For a constructor that knows the layers of other backbones only
            (`NotImplementedError`).
    """
    wrapper = config.get('optim_wrapper') or {}
    kind = (wrapper.get('optimizer') or {}).get('type')
    if isinstance(kind, str) and not find_registered(kind, config.get('default_scope')):
        raise KeyError(f'{kind} is not in the mmengine::optimizer registry')
    constructor = str(wrapper.get('constructor'))
    backbone = (config.get('model') or {}).get('backbone') or {}
    if constructor.endswith('DecayOptimizerConstructor') and 'ViTFeat' in str(backbone.get('type')):
        raise ValueError(
            f'optim_wrapper.constructor={constructor!r} knows the layers of ConvNeXt and BEiT '
            f"alone: write 'ViTLayerDecayConstructor' in its place, paramwise_cfg may stay"
        )


def check_files(config: Config, splits: Sequence[str]) -> None:
    """Refuse a config whose data or weights are not there.

    Args:
        config: The merged config.
        splits: Which dataloaders and evaluators count, of `'train'`, `'val'` and `'test'`.

    Raises:
        FileNotFoundError: If a data folder, annotation file or checkpoint is missing.
        ValueError: If a checkpoint cannot be read.
    """
    for line in missing_data(config, splits):
        raise FileNotFoundError(line)
    check_weights(config)


def check_weights(config: Config) -> None:
    """Refuse a config whose weights are not there, but for those that the backbone reads itself.

    Args:
        config: The merged config.

    Raises:
        FileNotFoundError: If a checkpoint is missing.
        ValueError: If it cannot be read.
    """
    for path in _pretrained(config.get('model')):
        check_checkpoint(path)
    if config.get('load_from'):
        check_checkpoint(config.load_from, resume=bool(config.get('resume')))


def check_drawn(config: Config, splits: Sequence[str]) -> None:
    """Refuse a config that draws its built-in data in one folder and reads another.

    Args:
        config: With the key `builtin_data`.
        splits: As in `check_files`.

    Raises:
        ValueError: If a dataset's `data_root` is not `builtin_data.root`.
    """
    root = config.builtin_data.get('root', 'data/shapes')
    for split in splits:
        loader = config.get(f'{split}_dataloader') or {}
        for place, dataset in dataset_configs(loader, f'{split}_dataloader'):
            read = dataset.get('data_root') or ''
            if os.path.abspath(read) != os.path.abspath(root):
                raise ValueError(
                    f'builtin_data.root is {root!r}, but {place}.data_root is {read!r}: give both, '
                    f'and {split}_evaluator.ann_file where there is one, the same folder'
                )


def _pretrained(node: Any) -> Iterator[str]:
    """Files named by `init_cfg=dict(type='Pretrained', checkpoint=...)` anywhere in a model."""
    if isinstance(node, dict):
        if node.get('type') == 'Pretrained' and '://' not in str(node.get('checkpoint')):
            yield str(node.get('checkpoint'))
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for each in node:
            yield from _pretrained(each)


def check_checkpoint(path: str, *, resume: bool = False) -> None:
    """Refuse a checkpoint that cannot be loaded.

    Args:
        path: Local file; anything with a scheme, such as `https://`, is left to MMEngine.
        resume: Whether training shall continue from it, which takes more than weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, truncated, no checkpoint, or lacks what a resume needs.
    """
    if '://' in path:
        return
    read_checkpoint(path)
    if not resume:
        return
    content = torch.load(path, map_location='cpu', weights_only=True)
    lacking = [key for key in ('meta', 'message_hub', 'optimizer') if key not in content]
    if lacking:
        raise ValueError(
            f'checkpoint {path!r} holds weights, but no {", ".join(lacking)}, so training cannot '
            f'continue from it; start from its weights with --cfg-options load_from={path}'
        )


def check_fit(model: nn.Module, path: str) -> None:
    """Refuse the checkpoint of another model, of which MMEngine only warns.

    Args:
        model: The built model.
        path: A checkpoint that `check_checkpoint` accepted.

    Raises:
        ValueError: If under 95 % of the model's tensors are in the file with their shape, or if one
            that is learned is not: a head may have two of hundreds.
    """
    if '://' in path:
        return
    tensors = {key.removeprefix('module.'): each for key, each in read_checkpoint(path).items()}
    wanted = {key.removeprefix('module.'): each.shape for key, each in model.state_dict().items()}
    missing = [k for k, shape in wanted.items() if k not in tensors or tensors[k].shape != shape]
    learned = {key.removeprefix('module.') for key, _ in model.named_parameters()}
    if len(missing) > (1 - MIN_MATCHED) * len(wanted) or learned.intersection(missing):
        raise ValueError(
            f'checkpoint {path!r} matches {len(wanted) - len(missing)} of {len(wanted)} tensors of '
            f"the config's model, 95 % and all parameters are needed; is it of another config? "
            f'Missing: {", ".join(missing[:10])}'
        )


def check_images(dataset: Any, split: str) -> None:
    """Decode each image and annotation once, as the dataset's pipeline will.

    Args:
        dataset: A built dataset, possibly a wrapper; other than MMEngine's are passed over.
        split: Name for the message, such as `'val'`.

    Raises:
        ValueError: If one cannot be decoded, of which the first five are named, or if what else the
            pipeline does fails on the first one.
    """
    broken: list[str] = []
    for leaf in leaf_datasets(dataset):
        transforms = getattr(getattr(leaf, 'pipeline', None), 'transforms', [])
        loaders = [each for each in transforms if type(each).__name__.startswith('Load')]
        if loaders and hasattr(leaf, 'get_data_info'):
            broken += [reason for reason in _decode_all(leaf, loaders) if reason]
    if broken:
        raise ValueError(
            f'{len(broken)} {split} image{"s" * (len(broken) > 1)} cannot be decoded: '
            f'{", ".join(broken[:5])}{" ..." if len(broken) > 5 else ""}; repair or remove them'
        )
    try:
        dataset[0]
    except Exception as error:  # each transform has its own exceptions
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(
            f'{split}_dataloader.dataset.pipeline fails on the first image ({reason})'
        ) from error


def _decode_all(dataset: Any, loaders: Sequence[Any]) -> Iterator[str | None]:
    """For each image, what is wrong with it or `None`."""
    start, paths = time.monotonic(), set()

    def decode(index: int) -> str | None:
        info = dataset.get_data_info(index)
        path = info.get('img_path')
        if path in paths:
            return None
        paths.add(path)
        try:
            for loader in loaders:
                info = loader(info)
        except Exception as error:  # each decoder has its own exceptions
            return f'{path} ({" ".join(str(error).split()) or type(error).__name__})'
        return None

    bar = Progress()
    task = bar.add_task('decoding images, to find broken ones', total=len(dataset))
    try:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for reason in pool.map(decode, range(len(dataset))):
                if not bar.live.is_started and time.monotonic() - start > _SILENT_SECONDS:
                    bar.start()
                bar.advance(task)
                yield reason
    finally:
        if bar.live.is_started:  # it would print an empty line
            bar.stop()
