"""Run a trained model on images, as its config tests it."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import nn

from vit_backbones.checks.wiring import vit_of
from vit_backbones.evaluation.image_pipeline import ImagePipeline, Results, shapes_of
from vit_backbones.evaluation.sliding import (
    Slide,
    check_tiles,
    instances_of,
    merged,
    parts_of,
    tile_places,
)
from vit_backbones.images import ImageWalk, Item, UnreadableImageError
from vit_backbones.models.trained import Trained
from vit_backbones.position import Grid
from vit_backbones.terminal import track_parts

# As in mmdet's configs for flips
_BOXES = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)


class Prediction(NamedTuple):
    """An image with the data sample that mmdet or mmseg predicts, at the image's own size.

    After tiles, `pred_instances.masks` are a list of `vit_backbones.cutouts.Cutout`.
    """

    item: Item
    sample: BaseDataElement


def predict(predictor: 'Predictor', walk: ImageWalk, batch_size: int = 1) -> Iterator[Prediction]:
    """Run a model on images; gives predictions in their order.

    An image that the config's pipeline cannot load counts as unreadable.
    """

    def leave_out(item: Item, error: UnreadableImageError) -> None:
        walk.unreadable[item.path] = str(error)

    yield from predictor(walk, batch_size, leave_out)


def _refuse(item: Item, error: UnreadableImageError) -> NoReturn:
    raise error


class Predictor:
    """A model with the transforms that its config tests with.

    Args:
        flip: Average with the mirrored images, by mmseg's `SegTTAModel` or mmdet's `DetTTAModel`.
        slide: Go over images in windows: mmseg's, of the resized image, whose scores are averaged;
            with a detector tiles of the image itself, whose objects are merged.

    Raises:
        ValueError: If the config has no pipeline for tests, or the model cannot use `flip` or
            `slide`.
    """

    def __init__(self, trained: Trained, *, flip: bool = False, slide: Slide | None = None) -> None:
        if slide is not None:
            _check_slide(trained, slide)
        vit = vit_of(trained.model)
        self.pipeline = ImagePipeline(trained.config, vit and vit.in_channels, flip=flip)
        self._trained, self._slide = trained, slide
        self._model = _with_flips(trained) if flip else trained.model

    def __call__(
        self,
        items: Iterable[Item],
        batch_size: int = 1,
        leave_out: Callable[[Item, UnreadableImageError], None] = _refuse,
    ) -> Iterator[Prediction]:
        """Predictions of images in their order; `leave_out` is called for unreadable ones.

        `batch_size` counts images (tiles, with a detector's `slide`) at a time, consecutive and of
        equal size, so that none is padded because of another.
        """
        tiled = self._slide is not None and not self._trained.segments
        make = self._in_tiles(batch_size) if tiled else self._tensors
        made = _made(items, make, leave_out)
        if tiled:
            yield from itertools.starmap(Prediction, made)
            return
        for _, group in itertools.groupby(made, key=lambda pair: shapes_of(pair[1])):
            for batch in _batches(group, batch_size):
                samples = self._step([data for _, data in batch])
                for (item, _), sample in zip(batch, samples, strict=True):
                    yield Prediction(item, sample)

    def check_slide(
        self, images: Sequence[Any], size_of: Callable[[Any], Grid], item_of: Callable[[Any], Item]
    ) -> None:
        """Refuse windows that are larger than all images, as `slide` cuts them.

        Args:
            images: Whatever the two functions take.
            size_of: Gives (H, W) of one.
            item_of: Reads one.
        """
        resized = self._trained.segments
        sizes = (lambda each: self._resized(item_of(each))) if resized else size_of
        check_tiles(images, sizes, self._slide, resized=resized)

    def _resized(self, item: Item) -> Grid:
        return shapes_of(self._tensors(item, 0))[0][1:]

    def _tensors(self, item: Item, number: int) -> Results:
        return self.pipeline.tensors(self.pipeline.load(item, number), item)

    def _in_tiles(self, batch_size: int) -> Callable[[Item, int], BaseDataElement]:
        def predicted(item: Item, number: int) -> BaseDataElement:
            results, parts = self.pipeline.load(item, number), []
            size, slide = results['img'].shape[:2], self._slide
            places = tile_places(size, slide)
            tiles = (self.pipeline.tile(results, place) for place in places)
            data = (self.pipeline.tensors(tile, item) for tile in tiles)
            samples = (each for batch in _batches(data, batch_size) for each in self._step(batch))
            tracked = track_parts(places, 'tiles')
            for tile, (place, sample) in enumerate(zip(tracked, samples, strict=True)):
                instances = sample.pred_instances
                parts += parts_of(instances, tile, place, size, slide.score_thr)
            found = merged(parts, places, slide.merge_thr)
            metainfo = dict(img_path=str(item.path), ori_shape=size, img_shape=size)
            whole = type(sample)(metainfo=metainfo)
            whole.pred_instances = instances_of(found, with_masks='masks' in instances)
            return whole

        return predicted

    def _step(self, batch: list[Results]) -> list[BaseDataElement]:
        windows = contextlib.nullcontext()
        if self._slide is not None and self._trained.segments:
            windows = _in_windows(self._trained.model, self._slide)
        with torch.no_grad(), windows:
            return self._model.test_step(pseudo_collate(batch))


def _made(
    items: Iterable[Item],
    make: Callable[[Item, int], Any],
    leave_out: Callable[[Item, UnreadableImageError], None],
) -> Iterator[tuple[Item, Any]]:
    """Pair each image with what is made of it and its number."""
    for number, item in enumerate(items):
        try:
            made = make(item, number)
        except UnreadableImageError as error:
            leave_out(item, error)
            continue
        yield item, made


def _batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _check_slide(trained: Trained, slide: Slide) -> None:
    model, vit = trained.model, vit_of(trained.model)
    name, patch = type(model).__name__, max(vit.patch_size) if vit else 1
    if slide.crop < patch:
        raise ValueError(f"{slide.name}: CROP must be at least the ViT's patch, {patch} pixels")
    if trained.segments:
        if not hasattr(model, 'slide_inference'):
            raise ValueError(f'{slide.name}: {name} has no slide_inference, as mmseg names it')
        if slide.merge_thr is not None:
            raise ValueError(
                f'merge_thr={slide.merge_thr}: {name} averages scores and merges no objects; '
                f'leave it out'
            )
    elif gives_panoptic(model):
        raise ValueError(
            f'{slide.name}: {name} gives panoptic maps, which cannot be merged across tiles; '
            f'leave it out'
        )


def gives_panoptic(model: nn.Module) -> bool:
    """Whether a detector of mmdet predicts panoptic maps."""
    fusion = getattr(model, 'panoptic_fusion_head', None)
    return fusion is not None and (fusion.test_cfg or {}).get('panoptic_on', True)


@contextlib.contextmanager
def _in_windows(model: nn.Module, slide: Slide) -> Iterator[None]:
    """Let a segmenter of mmseg test in windows here."""
    sizes = dict(crop_size=(slide.crop,) * 2, stride=(slide.stride,) * 2)
    kept = model.test_cfg
    model.test_cfg = ConfigDict(dict(kept or {}) | dict(mode='slide') | sizes)
    try:
        yield
    finally:
        model.test_cfg = kept


def _with_flips(trained: Trained) -> nn.Module:
    """The model that merges its predictions of an image and of the mirrored image."""
    if trained.segments:
        from mmseg.models import SegTTAModel

        return SegTTAModel(module=trained.model)
    masks = getattr(trained.model, 'with_mask', False) or hasattr(trained.model, 'panoptic_head')
    if masks or not hasattr(trained.model, 'with_bbox'):
        raise ValueError(
            f'flip=True: mmdet merges only boxes, and {type(trained.model).__name__} gives masks; '
            f'leave it out'
        )
    from mmdet.models.test_time_augs import DetTTAModel

    return DetTTAModel(module=trained.model, tta_cfg=_BOXES)
