"""The model in an exported file."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.models.chosen import Loaded
from vit_backbones.position import Grid
from vit_backbones.version import __version__


class ImageGraph(nn.Module):
    """A model that takes images, in eval mode and without gradients.

    Args:
        loaded: The backbone that it runs, with name and normalisation.
        backbone: The copy of it in this graph; `lora` is merged in it.
        normalises: Take RGB images on 0-255 and normalise them.

    Attributes:
        any_size: Whether files of it may take images of any size.
    """

    any_size = True

    def __init__(self, loaded: Loaded, backbone: ViTFeatBackbone, *, normalises: bool) -> None:
        super().__init__()
        self.loaded, self.normalises = loaded, normalises
        backbone.merge_lora()
        for name in ('mean', 'std') if normalises else ():
            values = torch.tensor(getattr(loaded, name)).view(-1, 1, 1)
            self.register_buffer(name, values)

    @property
    def title(self) -> str:
        """Name of the model in messages."""
        return self.backbone.model_name

    def output_names(self, count: int) -> list[str]:
        """Names of the outputs, of which there are `count`."""
        raise NotImplementedError

    def prepared(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) images, if the graph does."""
        if not self.normalises:
            return images
        images = images.flip(1) if self.loaded.is_bgr else images
        return (images - self.mean) / self.std

    def images(self, batch: int, size: Grid) -> Tensor:
        """Draw random images (batch, C, *size), the same at each call."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, self.backbone.in_channels, *size)
        if self.normalises:
            return 255 * torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)

    def notes(self) -> dict[str, object]:
        """Notes for users of the file."""
        order = 'BGR' if self.loaded.is_bgr else 'RGB'
        return {
            'model': self.loaded.name,
            'weights': Path(self.loaded.weights).name,
            'images': 'RGB, 0-255' if self.normalises else f'{order}, 0-255, (image - mean) / std',
            'mean': self.loaded.mean,
            'std': self.loaded.std,
            'vit_backbones': __version__,
        }


class Graph(ImageGraph):
    """From images to the outputs of a backbone, or of the neck behind it.

    Args:
        loaded: The backbone; it is copied, and `lora` merged in the copy.
        neck: Takes the tuple of the backbone's outputs; copied too.
        normalises: Take RGB images on 0-255 and normalise them.
    """

    def __init__(
        self, loaded: Loaded, neck: nn.Module | None = None, *, normalises: bool = False
    ) -> None:
        backbone = copy.deepcopy(loaded.backbone)
        super().__init__(loaded, backbone, normalises=normalises)
        self.backbone, self.neck = backbone, copy.deepcopy(neck)
        self.eval().requires_grad_(False)

    def output_names(self, count: int) -> list[str]:
        """Names of the outputs: layers, or levels of the neck."""
        if self.neck is None:
            return [f'layer_{index}' for index in self.backbone.out_indices]
        return [f'level_{n}' for n in range(count)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run (B, C, H, W) images; gives one tensor per index, or per level of the neck."""
        outputs = self.backbone(self.prepared(images))
        return outputs if self.neck is None else tuple(self.neck(outputs))

    def notes(self) -> dict[str, object]:
        """Notes for users of the file."""
        backbone = self.backbone
        formed = {'pool': backbone.pool} if backbone.pool else {'out_type': backbone.out_type}
        strides = backbone.strides if self.neck is None else getattr(self.neck, 'strides', ())
        return super().notes() | formed | {'layers': backbone.out_indices, 'strides': strides}
