"""The encoder-decoder of MMSegmentation (UPerNet and others) with cell supervision."""

from mmengine.registry import MODELS
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList
from torch import Tensor

from vit_backbones.heads.auxiliary import CellSupervision


@MODELS.register_module()
class AuxiliaryEncoderDecoder(CellSupervision, EncoderDecoder):
    """EncoderDecoder whose backbone also learns to classify every cell of its last map.

    Pixels of label 255 are left out, as in mmseg's losses. Arguments: those of `CellSupervision`
    and of `mmseg.EncoderDecoder`.
    """

    @property
    def num_cell_classes(self) -> int:
        """Classes of the head."""
        return self.decode_head.num_classes

    def _cell_classes(self, sample: SegDataSample, rows: Tensor, columns: Tensor) -> Tensor:
        labels = sample.gt_sem_seg.data[0]  # (H, W)
        return labels[rows][:, columns].long()

    def _head_losses(
        self, maps: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        losses = self._decode_head_forward_train(maps, batch_data_samples)
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(maps, batch_data_samples))
        return losses
