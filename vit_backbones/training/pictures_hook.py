"""Pictures of predictions: image, ground truth and prediction side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from vit_backbones.config.datasets import class_names_and_colors
from vit_backbones.files import mark, shortened, write_whole
from vit_backbones.loaders import picture_of, reader_of
from vit_backbones.pictures.canvas import png
from vit_backbones.pictures.overlay import draw_sample
from vit_backbones.samples import marks_of

Outputs = Sequence[BaseDataElement] | None


@HOOKS.register_module()
class PredictionPicturesHook(Hook):
    """Save image | ground truth | prediction of validation and test images.

    Works for the data samples of mmdet (boxes, instance masks, panoptic) and mmseg, whatever the
    visualizer. Pictures of an earlier validation are overwritten.

    Args:
        num_images: How many images of each validation to draw, the first ones, into `predictions`
            in the work dir.
        score_thr: Instances with a lower score, 0 to 1, are not drawn.
        test_dir: Folder for all test images; `None` draws none.
    """

    priority = 'LOW'

    def __init__(
        self, *, num_images: int = 8, score_thr: float = 0.3, test_dir: str | None = None
    ) -> None:
        self.num_images, self.score_thr, self.test_dir = num_images, score_thr, test_dir
        self._num_saved = 0
        self._named: dict[str, str] = {}  # paths of images by the names of their pictures

    def before_val_epoch(self, runner: Runner) -> None:
        """Start with the first image again."""
        self._num_saved = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Outputs = None
    ) -> None:
        """Save the first images."""
        left = self.num_images - self._num_saved
        dataset = runner.val_loop.dataloader.dataset
        folder = Path(runner.work_dir) / 'predictions'
        self._save((outputs or [])[: max(0, left)], dataset, folder, runner.cfg)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Outputs = None
    ) -> None:
        """Save all images, if there is a folder for them."""
        if self.test_dir is not None:
            dataset = runner.test_loop.dataloader.dataset
            self._save(outputs or [], dataset, Path(self.test_dir), runner.cfg)

    def _save(self, outputs: Sequence[Any], dataset: Any, folder: Path, config: Config) -> None:
        if not is_main_process() or not outputs:
            return
        reader = reader_of(config)
        classes, palette = class_names_and_colors(getattr(dataset, 'metainfo', {}))
        for sample in outputs:
            self._num_saved += 1
            path = getattr(sample, 'img_path', None)
            if path is None:  # nothing to draw on
                continue
            image = picture_of(path, reader)
            picture = draw_sample(image, *marks_of(sample, self.score_thr), classes, palette)
            write_whole(folder / self._free_name(_file_name(path, dataset), path), png(picture))

    def _free_name(self, name: str, path: str) -> str:
        """`name`, or one that no other image has, as `a.jpg` and `a.png`."""
        first = self._named.setdefault(name, path)
        return name if first == path else f'{Path(name).stem}_{mark(path)}.png'


def _file_name(path: str, dataset: Any) -> str:
    """The image's name with its folders below the dataset's, since names may repeat."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    root = Path(prefixes.get('img_path') or prefixes.get('img') or '')
    below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path(path)
    parts = (part for part in below.with_suffix('').parts if part != below.anchor)
    return f'{shortened("_".join(parts))}.png'
