"""Whether an exported model reaches the metric of the model itself, on images of its config."""

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

from vit_backbones.config.datasets import build_dataset, pads_with_black
from vit_backbones.config.facts import dataset_configs, type_name
from vit_backbones.config.loading import use_scope
from vit_backbones.evaluation.decoding import labels_of, objects_of, panoptic_of
from vit_backbones.metrics import headline, in_points
from vit_backbones.models.chosen import Loaded
from vit_backbones.models.trained import Trained
from vit_backbones.position import Grid
from vit_backbones.terminal import quiet_prints, silence

IMAGES = 20  # of the validation data, spread over all of it
POINTS = 0.1  # by which the metrics may differ, on 0-100
_OF_SIZE = re.compile('Resize|Pad|Crop|Flip|Normalize')  # transforms that one resize replaces

Run = Callable[[Tensor], Sequence[Tensor]]


class FileCheck(NamedTuple):
    """What an exported file is compared with.

    Attributes:
        expected: Name, mean and std of the model's images.
        normalises: Whether the file takes RGB images on 0-255.
    """

    trained: Trained
    expected: Loaded
    normalises: bool = False

    def __call__(self, run: Run, size: Grid) -> str:
        """Compare the metric of a file for images (H, W) with the model's; gives a line.

        Each image is resized to fit into the size, and padded right and below: with black if the
        config does, else with the mean, which is 0 for the model.

        Raises:
            ValueError: If they differ by more than 0.1 points.
        """
        try:
            dataset = build_dataset(_sized(self.trained.config, size), 'val')
            evaluators = [_evaluator(self.trained.config, dataset) for _ in 'ab']
        except (OSError, ValueError) as error:
            return f'no metric was compared, only the numbers: {error}'
        count = len(dataset)
        chosen = np.unique(np.linspace(0, count - 1, min(count, IMAGES)).round().astype(int))
        samples = self._samples(run, size, [dataset[index] for index in chosen])
        found = [_metric(*each) for each in zip(evaluators, samples, strict=True)]
        return _verdict(found, len(chosen), self.expected.name, size)

    @torch.no_grad()
    def _samples(
        self, run: Run, size: Grid, items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[BaseDataElement], list[BaseDataElement]]:
        """The data samples with predictions of the file, and with those of the model."""
        model, by_file, by_model = _whole(self.trained), [], []
        device = next(model.parameters()).device
        for item in items:
            images, sample = self._images(item['inputs'], size), item['data_samples']
            shape, (height, width) = tuple(item['inputs'].shape[-2:]), size
            padding = [0, width - shape[1], 0, height - shape[0]]
            sample.set_metainfo(dict.fromkeys(('batch_input_shape', 'pad_shape'), size))
            sample.set_metainfo(dict(img_shape=shape, img_padding_size=padding))
            outputs = [each[0].numpy() for each in run(self._for_file(images))]
            by_file.append(_decoded(outputs, sample.clone(), model))
            by_model += model(images.to(device), [sample.to(device)], mode='predict')
        return by_file, by_model

    def _images(self, pixels: Tensor, size: Grid) -> Tensor:
        """(1, C, H, W) as the model takes them, of an image (C, h, w) as mmcv loads it."""
        turned = pixels.flip(0) if len(pixels) == 3 and not self.expected.is_bgr else pixels
        mean, std = self._statistics()
        padded = mean.expand(-1, *size).clone()
        if pads_with_black(self.trained.config):
            padded.zero_()
        padded[:, : pixels.shape[1], : pixels.shape[2]] = turned
        return ((padded - mean) / std)[None]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std, (C, 1, 1)."""
        shape = (self.expected.backbone.in_channels, 1, 1)
        given = self.expected.mean, self.expected.std
        return tuple(torch.tensor(values).view(-1, 1, 1).expand(shape) for values in given)

    def _for_file(self, images: Tensor) -> Tensor:
        """The same images as the file takes them."""
        if not self.normalises:
            return images
        mean, std = self._statistics()
        pixels = images * std + mean
        return pixels.flip(1) if self.expected.is_bgr else pixels


def _sized(config: Config, size: Grid) -> Config:
    """A copy of a config whose validation images fit into a size."""
    config = copy.deepcopy(config)
    use_scope(config)
    for _, dataset in dataset_configs(config.get('val_dataloader') or {}, ''):
        steps = dataset.get('pipeline') or []
        places = [n for n, step in enumerate(steps) if _OF_SIZE.search(type_name(step))]
        kept = [step for n, step in enumerate(steps) if n not in places]
        resize = next((step for step in steps if type_name(step) == 'Resize'), {})
        kept.insert(places[0] if places else 1, _fitting(resize, size))
        dataset['pipeline'] = kept
    return config


def _fitting(resize: Mapping[str, Any], size: Grid) -> Callable[[dict[str, Any]], Any]:
    """A transform that resizes an image to fit into (H, W); mmcv's would turn the size for it."""

    def fit(results: dict[str, Any]) -> Any:
        sides = results['img'].shape[:2]
        factor = min(most / side for most, side in zip(size, sides, strict=True))
        height, width = (max(1, round(side * factor)) for side in sides)
        wanted = dict(type='Resize') | dict(resize) | dict(scale=(width, height), keep_ratio=False)
        return TRANSFORMS.build(wanted)(results)

    return fit


def _evaluator(config: Config, dataset: Any) -> Evaluator:
    if not config.get('val_evaluator'):
        raise ValueError('the config has no val_evaluator')
    use_scope(config)
    with quiet_prints(), silence():
        evaluator = Evaluator(copy.deepcopy(config.val_evaluator))
    evaluator.dataset_meta = dataset.metainfo
    return evaluator


def _whole(trained: Trained) -> nn.Module:
    """The model, which then sees whole images, no windows."""
    model = trained.model
    if trained.segments:
        model.test_cfg = type(model.test_cfg)(model.test_cfg or {}, mode='whole')
    return model


def _decoded(
    outputs: Sequence[np.ndarray], sample: BaseDataElement, model: nn.Module
) -> BaseDataElement:
    """A data sample with what the outputs of a file show."""
    shape, size = sample.img_shape, tuple(sample.ori_shape[:2])
    if len(outputs) == 1:
        labels = labels_of(*outputs, shape, size)
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        return sample
    options, num_things = model.test_cfg, model.panoptic_head.num_things_classes
    if options.get('panoptic_on', True):
        segments = panoptic_of(
            *outputs,
            shape,
            size,
            num_things=num_things,
            score_thr=options.get('object_mask_thr', 0.8),
            overlap_thr=options.get('iou_thr', 0.8),
            only_inside=options.get('filter_low_score', False),
        )
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(segments)[None])
    if options.get('instance_on', False):
        top = options.get('max_per_image', 100)
        found = objects_of(*outputs, shape, size, top=top, num_things=num_things)
        sample.pred_instances = _instances(*map(torch.from_numpy, found))
    return sample


def _instances(scores: Tensor, labels: Tensor, masks: Tensor) -> InstanceData:
    from mmdet.structures.mask import mask2bbox

    return InstanceData(scores=scores, labels=labels, masks=masks, bboxes=mask2bbox(masks))


def _metric(evaluator: Evaluator, samples: Sequence[BaseDataElement]) -> tuple[str, float]:
    """The main metric, on 0-100, and its name; NaN without one."""
    for metric in evaluator.metrics:
        if getattr(metric, '_coco_api', None) is not None and hasattr(metric, 'img_ids'):
            metric.img_ids = [sample.img_id for sample in samples]  # not all of the file
    with quiet_prints(), silence():
        for sample in samples:
            evaluator.process(data_samples=[sample.cpu()], data_batch=None)
        metrics = evaluator.evaluate(len(samples))
    if not metrics:  # detectors that detect nothing have none
        return 'metric', math.nan
    name = headline(metrics)
    return name.split('/')[-1], in_points(name, float(metrics[name]))


def _verdict(found: Sequence[tuple[str, float]], count: int, name: str, size: Grid) -> str:
    (_, of_file), (metric, of_model) = found
    where = f'{count} validation image{"s" * (count != 1)} at {size[0]}x{size[1]}'
    if math.isnan(of_file) and math.isnan(of_model):
        return f'no metric on {where}: the model finds nothing there, and so does the file'
    line = f'{metric} on {where}: {of_file:.2f} of the file, {of_model:.2f} of PyTorch'
    if abs(of_file - of_model) <= POINTS:  # false for NaN
        return f'{line}; {POINTS:g} points allowed'
    raise ValueError(
        f'{name!r} as a file gives another metric than PyTorch, so nothing is written: {line}, '
        f'where {POINTS:g} points are allowed'
    )
