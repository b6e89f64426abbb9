"""A detector and a segmenter that predict with one run of the backbone they share."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import Tensor

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.config.loading import use_scope
from vit_backbones.evaluation.image_pipeline import pipeline_for_images
from vit_backbones.heads.joint_features import INSTEAD
from vit_backbones.models.trained import Trained, load_trained

# What may differ: outputs, the source of the weights, training; the readout is compared whole
_FREE = {'type', 'out_indices', 'pretrained', 'checkpoint', 'checkpoint_path', 'allow_partial'}
_FREE |= {'init_cfg', 'features_only', 'drop_path_rate', 'with_cp', 'frozen_stages'}
_FREE |= {'out_type', 'pool', 'cls_readout', 'norm', 'final_norm', 'out_stride'}
Samples = list[BaseDataElement]


class SharedBackbone:
    """A detector of mmdet and a segmenter of mmseg, trained apart on equal frozen backbones.

    Args:
        detector: Trained model, or its (config, checkpoint).
        segmenter: The same of the segmenter, which must predict whole images.

    Raises:
        ValueError: If the models cannot share one run of the backbone.
    """

    def __init__(
        self, detector: Trained | tuple[str, str], segmenter: Trained | tuple[str, str]
    ) -> None:
        pair = [
            each if isinstance(each, Trained) else load_trained(*each)
            for each in (detector, segmenter)
        ]
        self.trained = pair
        self._backbones = [_backbone(each) for each in pair]
        mode = (pair[1].model.test_cfg or {}).get('mode', 'whole') if pair[1].segments else None
        if pair[0].segments or mode != 'whole':
            raise ValueError(
                f'models={[type(each.model).__name__ for each in pair]}, mode={mode!r}: give a '
                f"detector, then a segmenter with test_cfg=dict(mode='whole')"
            )
        _check_options(pair, self._backbones)
        shallow, self._deep = sorted(self._backbones, key=_reach)
        _check_norm(shallow, self._deep)
        _check_weights(shallow, self._deep)
        self._pipelines = [Compose(_scoped_pipeline(each.config)) for each in pair]

    @torch.no_grad()
    def predict(self, images: Sequence[str | Path]) -> tuple[Samples, Samples]:
        """The detector's and the segmenter's data samples of image files, run as one batch.

        Raises:
            ValueError: If the two pipelines make different tensors of an image, or images are of
                several sizes, which mmseg does not pad.
        """
        if not images:
            return [], []
        batches = []
        for trained, pipeline in zip(self.trained, self._pipelines, strict=True):
            use_scope(trained.config)
            data = [pipeline(dict(img_path=str(path), img_id=i)) for i, path in enumerate(images)]
            shapes = [tuple(each['inputs'].shape) for each in data]
            if others := sorted(set(shapes))[1:]:
                raise ValueError(
                    f'the images become tensors of {min(shapes)} and {others[0]}, and a batch has '
                    f'one size: give the images of each size in a call of their own'
                )
            batches.append((shapes, trained.model.data_preprocessor(pseudo_collate(data), False)))
        (first, ours), (second, theirs) = batches
        if first != second or not torch.equal(ours['inputs'], theirs['inputs']):
            raise ValueError(
                f'the pipelines make different tensors, {tuple(ours["inputs"].shape)} and '
                f'{tuple(theirs["inputs"].shape)}, of an image: '
                f'give both the same sizes and padding'
            )
        with self._one_run(ours['inputs']):
            found = []
            for trained, data in zip(self.trained, (ours, theirs), strict=True):
                use_scope(trained.config)
                found.append(trained.model(**data, mode='predict'))
        return tuple(found)

    @contextmanager
    def _one_run(self, images: Tensor) -> Iterator[None]:
        """Let both backbones return their part of what one of them computes here."""
        deep, own = self._deep, self._deep.out_indices
        union = sorted({index for each in self._backbones for index in each.out_indices})
        try:
            deep.out_indices = tuple(union)
            kept = dict(zip(union, deep(images), strict=True))
            deep.out_indices = own
            for each in self._backbones:
                each.forward = _returning(tuple(kept[index] for index in each.out_indices))
            yield
        finally:
            deep.out_indices = own
            for each in self._backbones:
                each.__dict__.pop('forward', None)


def _returning(maps: tuple[Tensor, ...]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    return lambda images: maps


def _scoped_pipeline(config: Config) -> list[dict[str, Any]]:
    use_scope(config)
    return pipeline_for_images(config)


def _backbone(trained: Trained) -> ViTFeatBackbone:
    name, found = type(trained.model).__name__, getattr(trained.model, 'backbone', None)
    if 'EoMT' in name:
        raise ValueError(f'{name} runs its queries in the blocks, so nothing is shared: {INSTEAD}')
    if not isinstance(found, ViTFeatBackbone) or found.pool == 'model':
        raise ValueError(
            f'{name} has a {type(found).__name__}: SharedBackbone needs maps of a ViTFeatBackbone'
        )
    return found


def _check_options(pair: Sequence[Trained], backbones: Sequence[ViTFeatBackbone]) -> None:
    """Refuse what makes other maps of the same weights, or other tensors of the same image."""
    options = []
    for trained, backbone in zip(pair, backbones, strict=True):
        given, prepare = trained.config.model.backbone, trained.model.data_preprocessor
        own = {
            key: each.default for key, each in inspect.signature(ViTFeatBackbone).parameters.items()
        } | dict(given)
        own = {key: value for key, value in own.items() if key not in _FREE}
        own['readout'] = replace(backbone.readout, norm='last')  # see _check_norm
        for name in ('mean', 'std'):
            value = getattr(prepare, name, None)
            own[name] = None if value is None else value.flatten().tolist()
        swaps = getattr(prepare, '_channel_conversion', False)  # mmengine's, and mmseg's name
        own['bgr_to_rgb'] = getattr(prepare, 'channel_conversion', swaps)
        options.append(own)
    for name in options[0]:
        ours, theirs = (each[name] for each in options)
        if ours != theirs:
            raise ValueError(
                f'{name}={ours!r} in the detector, {theirs!r} in the segmenter: '
                f'a shared backbone needs the same'
            )


def _check_weights(shallow: ViTFeatBackbone, deep: ViTFeatBackbone) -> None:
    ours, theirs = shallow.state_dict(), deep.state_dict()
    names = list(ours)
    if max(shallow.out_indices) == max(deep.out_indices):
        names = list(ours | theirs)
    for name in names:
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]):
            raise ValueError(f'the backbones differ in {name}: train both heads on one frozen one')


def _check_norm(shallow: ViTFeatBackbone, deep: ViTFeatBackbone) -> None:
    """Refuse a map that one model takes with the final norm and the other without."""
    for index in shallow.out_indices:
        if len({each.readout.norms(index, each.depth) for each in (shallow, deep)}) > 1:
            norms = f'{shallow.norm!r} and {deep.norm!r}'
            raise ValueError(f'norm={norms} differ in block {index}: give both models the same')


def _reach(backbone: ViTFeatBackbone) -> tuple[int, bool]:
    """How much of the ViT a backbone holds: its last block, and the norm of all."""
    return max(backbone.out_indices), backbone.norm == 'all'
