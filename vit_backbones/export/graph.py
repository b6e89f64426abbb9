"""The model in an exported file."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.version import __version__


class Graph(nn.Module):
    """From images to the outputs of a backbone, or of the neck behind it.

    Args:
        loaded: The backbone; it is copied, and `lora` merged in the copy.
        neck: Takes the tuple of the backbone's outputs; copied too.
        normalises: Take RGB images on 0-255 and normalise them.
    """

    def __init__(
        self, loaded: Loaded, neck: nn.Module | None = None, *, normalises: bool = False
    ) -> None:
        super().__init__()
        self.loaded, self.normalises = loaded, normalises
        self.backbone, self.neck = copy.deepcopy(loaded.backbone), copy.deepcopy(neck)
        self.backbone.merge_lora()
        for name in ('mean', 'std') if normalises else ():
            values = torch.tensor(getattr(loaded, name)).view(-1, 1, 1)
            self.register_buffer(name, values)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run (B, C, H, W) images; gives one tensor per index, or per level of the neck."""
        if self.normalises:
            images = images.flip(1) if self.loaded.is_bgr else images
            images = (images - self.mean) / self.std
        outputs = self.backbone(images)
        return outputs if self.neck is None else tuple(self.neck(outputs))

    def images(self, batch: int, size: Grid) -> Tensor:
        """Draw random images (batch, C, *size), the same at each call."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, self.backbone.in_channels, *size)
        if self.normalises:
            return 255 * torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)

    def notes(self) -> dict[str, object]:
        """Notes for users of the file."""
        backbone, order = self.backbone, 'BGR' if self.loaded.is_bgr else 'RGB'
        formed = {'pool': backbone.pool} if backbone.pool else {'out_type': backbone.out_type}
        return {
            'model': self.loaded.name,
            'weights': Path(self.loaded.weights).name,
            'images': 'RGB, 0-255' if self.normalises else f'{order}, 0-255, (image - mean) / std',
            'mean': self.loaded.mean,
            'std': self.loaded.std,
            **formed,
            'layers': backbone.out_indices,
            'strides': backbone.strides if self.neck is None else getattr(self.neck, 'strides', ()),
            'vit_backbones': __version__,
        }
