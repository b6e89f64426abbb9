"""Images without labels, and the same crop of each for two models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from vit_backbones.images import find_images, read_image
from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.training.fixed_views import FixedViews

# Share of an image's area, and width to height beside those of the crop. Source of the second:
# Szegedy et al., Going Deeper with Convolutions, 2015; crops of less area show parts of things
SCALE, RATIO = (0.25, 1.0), (3 / 4, 4 / 3)


@DATASETS.register_module()
class UnlabelledImages(BaseDataset):
    """All images of `vit_backbones.images.find_images`; those that cannot be read are replaced.

    Args:
        inputs: Folders, patterns, lists and images.
        pipeline: Transforms of each image.
        views: Augmentations that each image has; `None` draws another one each time.
        seed: Of these augmentations.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        pipeline: Sequence[Any],
        views: int | None = None,
        seed: int = 0,
    ) -> None:
        self.inputs = list(inputs)
        super().__init__(pipeline=pipeline)
        if views is not None:
            self.prepare_data = FixedViews(self.prepare_data, 0, views, seed)

    def load_data_list(self) -> list[dict[str, str]]:
        """A dict with `img_path` for each image."""
        return [dict(img_path=str(path)) for path in find_images(self.inputs)]


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Read `img_path` into `img`, (H, W, 3) uint8 RGB."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read one image."""
        image = read_image(results['img_path'])
        return results | dict(img=image, ori_shape=image.shape[:2])


@TRANSFORMS.register_module()
class CropForBoth(BaseTransform):
    """Cut one random crop, maybe mirrored, and resize it for the student and for the teacher.

    Both see the same part of the image, so that patches of equal grids lie at the same place.

    Args:
        student: (H, W) of the student's image.
        teacher: (H, W) of the teacher's.
    """

    def __init__(self, student: Grid, teacher: Grid) -> None:
        self.sizes = dict(student=tuple(student), teacher=tuple(teacher))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Give `inputs`, (3, H, W) uint8 by `'student'` and `'teacher'`, and a data sample."""
        image = Image.fromarray(results['img'])
        height, width = self.sizes['student']
        ratio = [each * width / height for each in RATIO]
        top, left, rows, columns = RandomResizedCrop.get_params(image, SCALE, ratio)
        box = left, top, left + columns, top + rows
        mirrored = bool(torch.rand(()) < 0.5)
        views = {name: _view(image, box, size, mirrored) for name, size in self.sizes.items()}
        about = dict(img_path=results['img_path'], box=box, mirrored=mirrored)
        return dict(inputs=views, data_samples=BaseDataElement(metainfo=about))


def _view(image: Image.Image, box: tuple[int, ...], size: Grid, mirrored: bool) -> Tensor:
    """A part of an image at a size (H, W), as (3, H, W) uint8."""
    part = image.resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(part)[:, ::-1] if mirrored else np.asarray(part)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


class PairPreprocessor(BaseDataPreprocessor):
    """Normalises the crops of a batch, those of each model as its weights expect."""

    def __init__(self, student: Loaded, teacher: Loaded) -> None:
        super().__init__()
        self.student, self.teacher = map(_normalising, (student, teacher))

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """`inputs` as (B, 3, H, W) float32 by `'student'` and `'teacher'`, on the device."""
        inputs = {
            name: getattr(self, name)(dict(inputs=images), training)['inputs']
            for name, images in data['inputs'].items()
        }
        return dict(inputs=inputs, data_samples=data['data_samples'])


def _normalising(loaded: Loaded) -> ImgDataPreprocessor:
    return ImgDataPreprocessor(loaded.mean, loaded.std, rgb_to_bgr=loaded.is_bgr)
