"""Mend predictions of mmseg 1.2 that are wrong or fail, wherever mmseg is imported.

- The heads of Mask2Former and MaskFormer resize masks to one shape of the whole image. In windows
  this fails beside test padding (`pad_shape`), and MaskFormer leaves test padding out altogether.
  Here the shape is that of the batch, as in mmseg's other heads.
- `SegTTAModel` takes the sigmoid twice for heads with one output, so all pixels are foreground.
- `CrossEntropyLoss` with class weights looks up a weight for ignored pixels (255) too: IndexError.
  Here they have none, as in PyTorch's own mean of a weighted cross entropy.
- `SegDataPreProcessor` of onedl-mmsegmentation refuses a mean of other than one or three values,
  which mmseg's takes for images of other bands.
"""

import functools
import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor

from vit_backbones.hosts import at_import

Metas = Sequence[dict[str, Any]]
Values = Sequence[float] | None


def install() -> None:
    """Mend mmseg's modules as they are imported, or now; calling it again changes nothing."""
    at_import.mend(_MENDS)


def _mend_mask2former(module: ModuleType) -> None:
    _size_as_batch(module.Mask2FormerHead)


def _mend_maskformer(module: ModuleType) -> None:
    _size_as_batch(module.MaskFormerHead)


def _size_as_batch(head: type) -> None:
    predict = head.predict

    def sized(self: Any, x: Any, batch_img_metas: Metas, test_cfg: Any) -> torch.Tensor:
        """Test without augmentation: masks (B, classes, H, W) at the size of the batch."""
        return predict(self, x, _of_batch(batch_img_metas), test_cfg)

    head.predict = sized


def _of_batch(metas: Metas) -> list[dict[str, Any]]:
    """Metas whose shapes are those of the batch, by which mmseg's other heads go.

    Windows have a `torch.Size`, in the first of the metas only.
    """
    size = metas[0]['img_shape']
    if not isinstance(size, torch.Size):
        size = metas[0].get('pad_shape', size)
    return [{**meta, 'img_shape': tuple(size[:2]), 'pad_shape': tuple(size[:2])} for meta in metas]


def _mend_tta(module: ModuleType) -> None:
    merge, pixels = module.SegTTAModel.merge_preds, module.PixelData

    def merge_preds(self: Any, data_samples_list: Sequence[Sequence[Any]]) -> list[Any]:
        """Average the predictions of each image; with one output, its probabilities."""
        if self.module.out_channels > 1:
            return merge(self, data_samples_list)
        threshold, merged = self.module.decode_head.threshold, []
        for samples in data_samples_list:
            first, sample = samples[0], samples[-1]
            shares = torch.stack([each.seg_logits.data for each in samples]).mean(0)  # sigmoids
            labels = (shares > threshold).to(shares)
            sample.set_data(dict(pred_sem_seg=pixels(data=labels)))
            if hasattr(first, 'gt_sem_seg'):
                sample.set_data(dict(gt_sem_seg=first.gt_sem_seg))
            sample.set_metainfo(dict(img_path=first.img_path))
            merged.append(sample)
        return merged

    module.SegTTAModel.merge_preds = merge_preds


def _mend_cross_entropy(module: ModuleType) -> None:
    entropy, signature = module.cross_entropy, inspect.signature(module.cross_entropy)

    @functools.wraps(entropy)
    def averaged(
        pred: torch.Tensor, label: torch.Tensor, *args: Any, **options: Any
    ) -> torch.Tensor:
        """Cross entropy of classes (B, C, ...) and labels (B, ...)."""
        known = signature.bind(pred, label, *args, **options)
        known.apply_defaults()
        given = known.arguments
        is_mean = given['reduction'] == 'mean' and given['avg_factor'] is None
        if is_mean and given['class_weight'] is not None:
            given['avg_factor'] = _sum_of_weights(label, given)
        return entropy(**given)

    module.cross_entropy = averaged


def _sum_of_weights(label: torch.Tensor, given: dict[str, Any]) -> torch.Tensor:
    weights = given['class_weight']
    counted = (label >= 0) & (label < len(weights))
    if given['avg_non_ignore']:
        counted &= label != given['ignore_index']
    return (weights[label.where(counted, 0)] * counted).sum()


def _mend_preprocessor(module: ModuleType) -> None:
    if issubclass(module.SegDataPreProcessor, ImgDataPreprocessor):
        _take_any_bands(module.SegDataPreProcessor)


def _take_any_bands(preprocessor: type) -> None:
    start = preprocessor.__init__

    @functools.wraps(start)  # checks read its arguments
    def started(
        self: Any, mean: Values = None, std: Values = None, *args: Any, **options: Any
    ) -> None:
        if mean is None or std is None or {len(mean), len(std)} <= {1, 3}:
            start(self, mean, std, *args, **options)
            return
        start(self, [0.0], [1.0], *args, **options)
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), False)

    preprocessor.__init__ = started


_MENDS: at_import.Mends = {
    'mmseg.models.data_preprocessor': _mend_preprocessor,
    'mmseg.models.decode_heads.mask2former_head': _mend_mask2former,
    'mmseg.models.decode_heads.maskformer_head': _mend_maskformer,
    'mmseg.models.losses.cross_entropy_loss': _mend_cross_entropy,
    'mmseg.models.segmentors.seg_tta': _mend_tta,
}
