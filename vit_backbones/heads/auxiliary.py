"""A dense auxiliary loss on the backbone's own map, for any model of backbone, neck and head."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

IGNORED = 255
HEAD_START = 'head_start'  # iteration, in the message hub and so in every checkpoint


class CellSupervision(nn.Module):
    """Mixin: every cell of the backbone's last map learns its class, beside the head's own losses.

    The first layers of a neck and a head are random, and a query gets one class signal an object,
    so a backbone behind them learns slowly at first. One 1x1 convolution on the backbone's own map,
    used only in training, teaches it sooner. Auxiliary dense losses of this kind are common in
    segmentation (Zhao et al., Pyramid Scene Parsing Network, CVPR 2017).

    A subclass names the model class as its second base, and defines the methods that raise
    NotImplementedError here.

    Args:
        auxiliary_weight: Weight of the loss `loss_dense`, at least 0.
        auxiliary_iters: This many iterations at the start use only this loss and do not run the
            head, which makes them several times cheaper. The head then has no gradients: train in
            one process, or with `find_unused_parameters=True`.
        **kwargs: As the model class; its backbone must have `out_channels` and `strides`.
    """

    labels_on_host = False  # whether the ground truth lies there, so rows and columns too

    def __init__(
        self, *, auxiliary_weight: float = 1.0, auxiliary_iters: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.auxiliary_weight, self.auxiliary_iters = auxiliary_weight, auxiliary_iters
        self.register_buffer('iterations', torch.tensor(0))  # saved, so that a resume goes on
        self._iteration: int | None = None  # the same for Python, once it is read
        in_channels = self.backbone.out_channels[-1]
        self.auxiliary_classifier = nn.Conv2d(in_channels, self.num_cell_classes, kernel_size=1)

    @property
    def num_cell_classes(self) -> int:
        """Number of classes a cell can have."""
        raise NotImplementedError

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """Losses of the head and of the cells, by name.

        Images are (B, C, H, W), and the samples have ground truth of the same H and W.
        """
        features = self.backbone(batch_inputs)
        logits = self.auxiliary_classifier(features[-1])
        stride = self.backbone.strides[-1]
        place = torch.device('cpu') if self.labels_on_host else batch_inputs.device
        rows, columns = (_centres(size, stride, place) for size in batch_inputs.shape[-2:])
        targets = self._cells(batch_data_samples, rows, columns)
        entropy = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction='sum')
        num_cells = (targets != IGNORED).sum().clamp(min=1)
        losses = {'loss_dense': self.auxiliary_weight * entropy / num_cells}
        iteration = self._count()
        if iteration <= self.auxiliary_iters:
            return losses
        if iteration == self.auxiliary_iters + 1 > 1:
            self._note_start(iteration)
        maps = self.neck(features) if self.with_neck else features
        return {**self._head_losses(maps, batch_data_samples), **losses}

    def _count(self) -> int:
        """The number of this iteration; a GPU waits only for that of the first."""
        if self._iteration is None:
            self._iteration = int(self.iterations)
        self.iterations += 1
        self._iteration += 1
        return self._iteration

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._iteration = None

    def _note_start(self, iteration: int) -> None:
        """Log that the head starts, and note the iteration for the curve."""
        MessageHub.get_current_instance().update_info(HEAD_START, iteration)
        print_log(
            f'iteration {iteration}: the head starts to learn, and its losses join loss_dense, so '
            f'that the sum jumps',
            logger='current',
        )

    def _cells(self, batch_data_samples: list[Any], rows: Tensor, columns: Tensor) -> Tensor:
        """Classes (B, h, w) of a batch, on the device of the images."""
        return torch.stack([self._cell_classes(each, rows, columns) for each in batch_data_samples])

    def _cell_classes(self, sample: Any, rows: Tensor, columns: Tensor) -> Tensor:
        """Class (h, w) of the pixels where these rows and columns cross; IGNORED where unknown."""
        raise NotImplementedError

    def _head_losses(
        self, maps: tuple[Tensor, ...], batch_data_samples: list[Any]
    ) -> dict[str, Tensor]:
        """Losses of the model's own head or heads on the neck's maps."""
        raise NotImplementedError


def _centres(pixels: int, stride: int, device: torch.device) -> Tensor:
    """Pixel at the centre of each cell of `stride` pixels; of the last one, if cut, its last."""
    starts = torch.arange(0, pixels, stride, device=device)
    return (starts + stride // 2).clamp(max=pixels - 1)
