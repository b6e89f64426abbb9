"""Train a head on the features of a frozen backbone, which is run once for each view."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vit_backbones.arguments import choice, integer, positive
from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.heads.joint_features import ThroughBackbone
from vit_backbones.training.feature_store import DTYPES, FeatureCacheError, FeatureStore, View
from vit_backbones.training.fixed_views import VIEW, FixedViews

_TRIED = 4  # images of a dataset, whether a view of them comes again


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Keep a frozen backbone's maps on disk, and train the head on them.

    Each training image has `views` fixed augmentations. The first time that one comes up, the
    backbone runs and its maps are written to a file; after that they are read. Files are of one
    backbone, its weights, the data and the pipeline: anything else gets another folder. A training
    that was stopped goes on with the files that are there.

    Examples:
        >>> custom_hooks = [dict(type='FeatureCacheHook', views=4, max_gb=20)]

    Args:
        views: Augmentations of each image, at least 1.
        folder: Where to keep caches.
        max_gb: A larger cache, in 10**9 bytes, is refused; its size is in the log first.
        dtype: Of the files, `'float16'` or `'float32'`.
        seed: Of the augmentations.

    Raises:
        ValueError: The backbone learns, or runs a head's queries, or the cache is too large, or
            images depend on more than the dataset's pipeline.
    """

    def __init__(
        self,
        views: int,
        folder: str = 'work_dirs/feature_cache',
        max_gb: float = 20.0,
        dtype: str = 'float16',
        seed: int = 0,
    ) -> None:
        self.views = integer('views', views, 1)
        self.folder, self.max_gb = Path(folder), positive('max_gb', max_gb)
        self.dtype, self.seed = choice('dtype', dtype, tuple(DTYPES)), seed
        self._batch: list[View] | None = None
        self._replaced: list[tuple[Any, str]] = []
        self._pipelines: list[tuple[Any, Any]] = []  # of datasets, as the training began

    def after_build_train_dataloader(self, runner: Runner, dataloader: DataLoader) -> None:
        """Fix the views, before any worker starts; our runners call this."""
        for number, leaf in enumerate(leaf_datasets(dataloader.dataset)):
            leaf.prepare_data = FixedViews(leaf.prepare_data, number, self.views, self.seed)
            self._replaced.append((leaf, 'prepare_data'))

    def before_train(self, runner: Runner) -> None:
        """Let the backbone read what it has computed before."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = _frozen_backbone(model)
        _check_augments(model)
        if not self._replaced:
            _check_no_worker_runs(runner)
            self.after_build_train_dataloader(runner, runner.train_dataloader)
        leaves = [owner for owner, _ in self._replaced]
        self._pipelines = [(leaf, getattr(leaf, 'pipeline', None)) for leaf in leaves]
        for leaf in leaves:
            leaf.prepare_data.check(min(_TRIED, len(leaf)))
        folder = self.folder / self._fingerprint(runner, backbone, leaves)
        num_views = self.views * sum(map(len, leaves))
        about = dict(backbone=backbone.model_name, views=self.views, seed=self.seed)
        store = FeatureStore(folder, num_views, self.dtype, self.max_gb, about)
        backbone.forward = self._kept(backbone.forward, store)
        self._replaced.append((backbone, 'forward'))

    def after_train(self, runner: Runner) -> None:
        """Leave model and data as they were."""
        for owner, name in self._replaced:
            delattr(owner, name)
        self._replaced = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Note the views of the batch."""
        if any(getattr(leaf, 'pipeline', None) is not own for leaf, own in self._pipelines):
            raise FeatureCacheError(
                'feature cache: the pipeline of the data has changed in the training, as by '
                'PipelineSwitchHook, and what is kept is of the first one: train without that hook'
            )
        self._batch = [sample.metainfo[VIEW] for sample in data_batch['data_samples']]

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Images of validations are not kept."""
        self._batch = None

    def _kept(
        self, forward: Callable[[Tensor], Sequence[Tensor]], store: FeatureStore
    ) -> Callable[[Tensor], tuple[Tensor, ...]]:
        @torch.compiler.disable  # files are read here, of other names for each batch
        def run(images: Tensor) -> tuple[Tensor, ...]:
            if self._batch is None:
                return forward(images)
            size = tuple(images.shape[-2:])
            maps = store.read(self._batch, size)
            if maps is None:
                maps = store.write(self._batch, size, forward(images))
            return tuple(each.to(images.device, non_blocking=True) for each in maps)

        return run

    def _fingerprint(self, runner: Runner, backbone: nn.Module, leaves: Sequence[Any]) -> str:
        """Of all that the maps depend on."""
        found = hashlib.sha256()
        model, loader = (runner.cfg.get(key) or {} for key in ('model', 'train_dataloader'))
        parts = [model.get('backbone'), model.get('data_preprocessor'), loader.get('dataset')]
        precision = getattr(runner.optim_wrapper, 'cast_dtype', None)
        parts += [type(runner.optim_wrapper).__name__, precision, self.seed, self.dtype]
        found.update(json.dumps(parts, default=str).encode())
        for name, tensor in backbone.state_dict().items():
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        for path in _files(leaves):
            about = os.stat(path)
            found.update(f'{path} {about.st_size} {about.st_mtime_ns}'.encode())
        return found.hexdigest()[:16]


def _frozen_backbone(model: nn.Module) -> ViTFeatBackbone:
    found = [each for each in model.modules() if isinstance(each, ViTFeatBackbone)]
    if len(found) != 1:
        raise ValueError(
            f'feature cache: {type(model).__name__} has {len(found)} backbones of type '
            f'ViTFeatBackbone, and the cache is for one'
        )
    if any(isinstance(each, ThroughBackbone) for each in model.modules()):
        raise ValueError(
            f'feature cache: the queries of {type(model).__name__} run in the blocks of its '
            f'backbone, so that there is nothing to keep; PlainMaskHead takes features'
        )
    if found[0].learns:
        raise ValueError(
            f'feature cache: the backbone learns, so that its features change: set '
            f'frozen_stages={found[0].depth} and no lora'
        )
    return found[0]


def _check_augments(model: nn.Module) -> None:
    """Padding to one size may stay: it is the same in any batch."""
    given = getattr(model.data_preprocessor, 'batch_augments', None) or ()
    names = [type(each).__name__ for each in (given if isinstance(given, Iterable) else [given])]
    if others := [name for name in names if name != 'BatchFixedSizePad']:
        raise ValueError(
            f'feature cache: {", ".join(others)} of data_preprocessor.batch_augments changes an '
            f'image with its batch, which no fixed view shows: leave it out'
        )


def _files(leaves: Sequence[Any]) -> Iterator[str]:
    """Images and annotations: crops and masks may depend on labels too."""
    for leaf in leaves:
        if os.path.isfile(path := getattr(leaf, 'ann_file', '') or ''):
            yield path
        for index in range(len(leaf)):
            info = leaf.get_data_info(index)
            yield from (info[key] for key in ('img_path', 'seg_map_path') if info.get(key))


def _check_no_worker_runs(runner: Runner) -> None:
    """MMEngine's own runner starts the workers of iteration-based loops before any hook."""
    if runner.train_dataloader.num_workers and isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            'feature cache: the workers of an iteration-based training already run: train by '
            'tools/train.py, by epochs, or with train_dataloader.num_workers=0'
        )
