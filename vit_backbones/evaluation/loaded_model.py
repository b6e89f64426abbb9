"""A trained model in two lines: `load_model('work_dirs/run').predict('image.jpg')`."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image

from vit_backbones.config.loading import CONFIGS, config_file
from vit_backbones.errors import counted
from vit_backbones.evaluation.predicting import Predictor
from vit_backbones.evaluation.result_arrays import Result, result_of
from vit_backbones.evaluation.runs import checkpoint_of, config_of, find_runs
from vit_backbones.evaluation.sliding import Slide
from vit_backbones.images import HeldItem, Item, rgb_of
from vit_backbones.loaders import reader_of
from vit_backbones.models.trained import Trained, load_trained
from vit_backbones.position import Grid

# One for all models: transforms keep what they drew, MMEngine its scope, and preprocessors announce
# the sizes of images to the backbones of all models
_ONE_AT_A_TIME = threading.RLock()
AnImage = str | os.PathLike | np.ndarray | Image.Image
_KINDS = 'a path, an array (H, W, C) in RGB, a PIL image, or a list of these'


def load_model(
    source: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    *,
    options: Sequence[str] = (),
    device: str | None = None,
) -> 'LoadedModel':
    """Load a trained detector or segmenter.

    Args:
        source: A work dir of `tools/train.py`, or a config of mmdet or mmseg. A config is a
            program: take only those that you trust.
        checkpoint: File with the trained weights; by default the best of the work dir, else the
            last one.
        options: `key=value` changes of the config.
        device: By default the GPU if there is one.

    Raises:
        ValueError: If the work dir holds no config or no whole checkpoint, the model cannot be
            built of them, or there is no such device.
        OSError: For files that are not there.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f'source={source!r}: takes the path of a work dir or a config')
    config = config_file(source)
    if config.is_dir():
        (run,) = find_runs([config])
        config, checkpoint = config_of(run), checkpoint or checkpoint_of(run)
    elif not config.exists():
        raise FileNotFoundError(f'{str(source)!r} is no work dir and no config (from {Path.cwd()})')
    elif config.suffix not in CONFIGS:
        raise ValueError(f'{source}: no config; of a checkpoint, give its work dir, or both')
    elif checkpoint is None:
        raise ValueError(f'{source}: a config needs checkpoint=FILE; or give a whole work dir')
    with _ONE_AT_A_TIME:
        return LoadedModel(load_trained(str(config), str(checkpoint), options, device=device))


class LoadedModel:
    """A trained model that predicts images; safe to call from several threads.

    One call runs at a time, in the whole process, whichever the model.

    Attributes:
        trained: The model of mmdet or mmseg, in eval mode, with its config.
        classes: Names of the classes, by label.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.classes = trained.classes
        self._reader = reader_of(trained.config)

    def __repr__(self) -> str:
        name = type(self.trained.model).__name__
        return f'{type(self).__name__}({name}, {counted(len(self.classes), "class")})'

    def predict(
        self,
        images: AnImage | Sequence[AnImage],
        *,
        score_thr: float = 0.3,
        batch_size: int = 1,
        flip: bool = False,
        slide: tuple[int, int] | None = None,
        merge_thr: float | None = None,
    ) -> Result | list[Result]:
        """Predict an image, or each of a list of images of any sizes, as `tools/predict.py` does.

        Args:
            images: A path; an array (H, W, 3) in RGB or (H, W) grey, uint8, or what the config's
                loader reads, (H, W, C); a PIL image; or a list or tuple of these.
            score_thr: Objects with a lower score are left out.
            batch_size: Images at a time, consecutive and of equal size; with a detector's `slide`
                tiles at a time.
            flip: Average with the mirrored image.
            slide: (crop, stride) in pixels: windows for large images.
            merge_thr: With a detector's `slide`: objects of two tiles are one if they share this
                part of the smaller one, by default 0.5.

        Returns:
            `Objects` of a detector, `LabelMap` of a segmenter, `PanopticMap` of a panoptic model; a
            list of them for a list.

        Raises:
            ValueError: If an image cannot be read, or an argument does not suit the model.
            TypeError: If one is no image.
        """
        items = self._items(images)
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: takes whole numbers from 1')
        if not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr={score_thr}: takes numbers from 0 to 1')
        windows = Slide.given(slide, merge_thr, score_thr)
        with self._alone():
            predictor = Predictor(self.trained, flip=flip, slide=windows)
            if windows:
                predictor.check_slide(_listed(images), self._size, self._item)
            made = predictor(items, batch_size)
            found = [result_of(each.sample, self.trained, score_thr) for each in made]
        return found if _are_many(images) else found[0]

    def features(
        self, images: AnImage | Sequence[AnImage]
    ) -> tuple[np.ndarray, ...] | list[tuple[np.ndarray, ...]]:
        """Maps (C, h, w) of the backbone, one of each of its levels, as the model sees the image.

        The image goes through the config's test pipeline, so maps are those of the resized and
        padded image. Of a list, a list of these tuples.
        """
        items = self._items(images)
        model, found = self.trained.model, []
        with self._alone(), torch.no_grad():
            pipeline = Predictor(self.trained).pipeline
            for number, item in enumerate(items):
                data = pipeline.tensors(pipeline.load(item, number), item)
                batch = model.data_preprocessor(pseudo_collate([data]), False)
                maps = model.backbone(batch['inputs'])
                maps = maps if isinstance(maps, tuple | list) else (maps,)
                found.append(tuple(each[0].float().cpu().numpy() for each in maps))
        return found if _are_many(images) else found[0]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        scope = self.trained.config.get('default_scope') or 'mmengine'
        with _ONE_AT_A_TIME, DefaultScope.overwrite_default_scope(scope):
            yield

    def _items(self, images: AnImage | Sequence[AnImage]) -> Iterator[Item]:
        """The images, each read when it is its turn."""
        given, many = _listed(images), _are_many(images)
        if not given:
            raise ValueError('images=[]: give at least one image')
        names = [f'images[{i}]' if many else 'the image' for i in range(len(given))]
        for each, name in zip(given, names, strict=True):
            if not isinstance(each, AnImage):
                raise TypeError(f'{name} is of {type(each).__name__}: takes {_KINDS}')
        return map(self._item, given, names)

    def _item(self, given: AnImage, name: str = 'the image') -> Item:
        if isinstance(given, np.ndarray | Image.Image):
            return HeldItem(Path(name), name, name, self._pixels(given, name))
        return self._reader.item(Path(given))

    def _pixels(self, given: np.ndarray | Image.Image, name: str) -> np.ndarray:
        """(H, W, C), as the reader would give it of a file."""
        plain = not self._reader.steps
        if isinstance(given, Image.Image):
            if plain:
                return rgb_of(given, name)
            raise TypeError(f"{name}: the config's loader gives no RGB; give an array (H, W, C)")
        pixels = given[..., None] if given.ndim == 2 else given
        if plain and pixels.shape[2:] == (1,):
            pixels = pixels.repeat(3, axis=2)
        kinds = 'uint8' if self._reader.in_8_bits else 'uint8 uint16 int16 int32 float32 float64'
        fits = pixels.ndim == 3 and pixels.size and (not plain or pixels.shape[2] == 3)
        if not fits or pixels.dtype.name not in kinds.split():
            wanted = '(H, W, 3) in RGB or (H, W)' if plain else '(H, W, C) or (H, W)'
            raise ValueError(
                f'{name} is an array {given.shape} of {given.dtype}: takes {wanted}, of '
                f'{kinds.replace(" ", ", ")}'
            )
        return pixels

    def _size(self, given: AnImage) -> Grid:
        if isinstance(given, np.ndarray):
            return (*given.shape, 1)[:2]
        return given.size[::-1] if isinstance(given, Image.Image) else self._reader.size(given)


def _are_many(images: Any) -> bool:
    return isinstance(images, list | tuple)


def _listed(images: Any) -> list[Any]:
    return list(images) if _are_many(images) else [images]
