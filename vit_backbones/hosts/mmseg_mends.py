"""Mend predictions of mmseg 1.2 that are wrong or fail, wherever mmseg is imported.

- The heads of Mask2Former and MaskFormer resize masks to one shape of the whole image. In windows
  this fails beside test padding (`pad_shape`), and MaskFormer leaves test padding out altogether.
  Here the shape is that of the batch, as in mmseg's other heads.
- `SegTTAModel` takes the sigmoid twice for heads with one output, so all pixels are foreground.
"""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

Metas = Sequence[dict[str, Any]]


def install() -> None:
    """Mend mmseg's modules as they are imported, or now; calling it again changes nothing."""
    if any(isinstance(finder, _Mender) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Mender())
    for name, mend in _MENDS.items():
        if name in sys.modules:
            mend(sys.modules[name])


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


_MENDS: dict[str, Callable[[ModuleType], None]] = {
    'mmseg.models.decode_heads.mask2former_head': _mend_mask2former,
    'mmseg.models.decode_heads.maskformer_head': _mend_maskformer,
    'mmseg.models.segmentors.seg_tta': _mend_tta,
}


class _Mender(importlib.abc.MetaPathFinder):
    """Runs the mend of a module after the module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mend = _MENDS.get(name)
        spec = PathFinder.find_spec(name, path, target) if mend else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_mend(module: ModuleType) -> None:
            run(module)
            mend(module)

        spec.loader.exec_module = run_and_mend
        return spec
