"""Pictures of predictions: image, ground truth and prediction side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData

from vit_backbones.files import write_whole

PANOPTIC_OFFSET = 1000  # mmdet's INSTANCE_OFFSET: panoptic id = label + 1000 * instance
_SMALLEST_SIDE = 320  # smaller images are enlarged, so that labels can be read
_ALPHA = 0.5


@HOOKS.register_module()
class PredictionPicturesHook(Hook):
    """Save image | ground truth | prediction of validation and test images.

    Works for the data samples of mmdet (boxes, instance masks, panoptic) and mmseg, whatever the
    visualizer. Pictures of an earlier validation are overwritten.

    Args:
        num_images: So many images of each validation, the first ones, into `predictions` in the
            work dir.
        score_thr: Instances with a lower score, 0 to 1, are not drawn.
        test_dir: Folder for all test images; `None` draws none of them.
    """

    priority = 'LOW'

    def __init__(
        self, *, num_images: int = 8, score_thr: float = 0.3, test_dir: str | None = None
    ) -> None:
        self.num_images, self.score_thr, self.test_dir = num_images, score_thr, test_dir
        self._num_saved = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Start with the first image again."""
        self._num_saved = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Save the first images."""
        left = self.num_images - self._num_saved
        dataset = runner.val_loop.dataloader.dataset
        self._save((outputs or [])[: max(0, left)], dataset, Path(runner.work_dir) / 'predictions')

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Save all images, if there is a folder for them."""
        if self.test_dir is not None:
            self._save(outputs or [], runner.test_loop.dataloader.dataset, Path(self.test_dir))

    def _save(self, outputs: Sequence[Any], dataset: Any, folder: Path) -> None:
        if not is_main_process():
            return
        classes, palette = class_names_and_colors(getattr(dataset, 'metainfo', {}))
        for sample in outputs:
            self._num_saved += 1
            path = getattr(sample, 'img_path', None)
            if path is None:  # nothing to draw on
                continue
            picture = draw_sample(
                mmcv.imread(path), sample, classes, palette, score_thr=self.score_thr
            )
            _, content = cv2.imencode('.png', picture)
            write_whole(folder / _file_name(path, dataset), content.tobytes())


def _file_name(path: str, dataset: Any) -> str:
    """The image's name, with its folders below the dataset's: names alone may come twice."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    root = Path(prefixes.get('img_path') or prefixes.get('img') or '')
    below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path(path)
    return '_'.join(part for part in below.with_suffix('.png').parts if part != below.anchor)


def class_names_and_colors(metainfo: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names and colours of a dataset's classes.

    Args:
        metainfo: A dataset's `metainfo`; what it lacks is made up.

    Returns:
        The names and a (256, 3) uint8 table of RGB colours, at least as long as the names.
    """
    classes = [str(name) for name in metainfo.get('classes') or ()]
    colors = np.random.default_rng(0).integers(40, 256, (max(256, len(classes)), 3), dtype=np.uint8)
    palette = metainfo.get('palette')
    if palette is not None and not isinstance(palette, str) and len(palette):
        known = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)[: len(colors)]
        colors[: len(known)] = known
    return classes, colors


def draw_sample(
    image: np.ndarray,
    sample: BaseDataElement,
    classes: Sequence[str],
    palette: np.ndarray,
    *,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Draw one data sample.

    Args:
        image: (H, W, 3) uint8, BGR.
        sample: An mmdet or mmseg data sample with any of `gt_instances`, `gt_sem_seg`,
            `pred_instances`, `pred_sem_seg`, `pred_panoptic_seg`.
        classes: Names by label.
        palette: (num_colors, 3) uint8, RGB by label.
        score_thr: Predicted instances with a lower score are left out.

    Returns:
        (s * H, 3 * s * W + 8, 3) uint8, BGR: image, ground truth, prediction, with s >= 1 so that
        small images become readable.
    """
    scale = max(1, -(-_SMALLEST_SIDE // min(image.shape[:2])))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    panels = [image]
    for kind in ('gt', 'pred'):
        panel = image.copy()
        labels = semantic_labels(sample, kind)
        if labels is not None:
            _paint_labels(panel, labels, palette)
        instances = sample.get(f'{kind}_instances')
        if instances is not None:
            _paint_instances(panel, instances, classes, palette, scale, score_thr)
        panels.append(panel)
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]])


def semantic_labels(sample: BaseDataElement, kind: str) -> np.ndarray | None:
    """Labels of a semantic or panoptic map.

    Args:
        sample: An mmdet or mmseg data sample.
        kind: `'gt'` or `'pred'`.

    Returns:
        (h, w) labels, `None` if the sample has no such map.
    """
    panoptic = sample.get(f'{kind}_panoptic_seg')
    if panoptic is not None:
        return _array(panoptic.sem_seg).squeeze() % PANOPTIC_OFFSET
    semantic = sample.get(f'{kind}_sem_seg')
    if semantic is None:
        return None
    return _array(semantic.get('data', semantic.get('sem_seg'))).squeeze()


def _paint_labels(panel: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> None:
    """Tint each pixel by its label, in place; labels without a colour, as 255, stay clear."""
    labels = _fit(labels.astype(np.int32), panel)
    known = (labels >= 0) & (labels < len(palette)) & (labels != 255)
    _tint(panel, known, palette[labels[known]])


def _paint_instances(
    panel: np.ndarray,
    instances: InstanceData,
    classes: Sequence[str],
    palette: np.ndarray,
    scale: int,
    score_thr: float,
) -> None:
    """Tint masks and draw boxes, outlines and names, in place."""
    labels = _array(instances.labels)
    scores = _array(instances.scores) if 'scores' in instances else np.ones(len(labels))
    boxes = _array(instances.bboxes) if 'bboxes' in instances else np.zeros((len(labels), 4))
    masks = _masks(instances)
    for i in np.argsort(scores, kind='stable'):  # the surest on top
        if scores[i] < score_thr:
            continue
        color = palette[labels[i] % len(palette)]
        x, y, right, bottom = (boxes[i] * scale).round().astype(int).tolist()
        if masks is None:
            cv2.rectangle(panel, (x, y), (right, bottom), color[::-1].tolist(), 2)
        else:
            mask = _fit(masks[i].astype(np.uint8), panel)
            _tint(panel, mask > 0, color)
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, outlines, -1, color[::-1].tolist(), 2)
            x, y = cv2.boundingRect(mask)[:2]
        name = classes[labels[i]] if labels[i] < len(classes) else str(labels[i])
        text = f'{name} {scores[i]:.2f}' if 'scores' in instances else name
        _write(panel, text, (x + 2, y + 12))


def _write(panel: np.ndarray, text: str, corner: tuple[int, int]) -> None:
    """White letters with a dark rim, readable on anything."""
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(
            panel, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA
        )


def _tint(panel: np.ndarray, where: np.ndarray, rgb: np.ndarray) -> None:
    panel[where] = ((1 - _ALPHA) * panel[where] + _ALPHA * rgb[..., ::-1]).astype(np.uint8)


def _fit(labels: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """(h, w) labels at the panel's size."""
    height, width = panel.shape[:2]
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


def _masks(instances: InstanceData) -> np.ndarray | None:
    """(num_instances, h, w), if there are masks."""
    masks = instances.get('masks')
    if masks is None:
        return None
    return masks.to_ndarray() if hasattr(masks, 'to_ndarray') else _array(masks)


def _array(values: Any) -> np.ndarray:
    """A NumPy array of what may be a tensor, on any device, or mmdet's boxes."""
    values = getattr(values, 'tensor', values)
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)
