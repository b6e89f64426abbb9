"""What an exported file holds."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.position import Grid


class Graph(nn.Module):
    """What a file holds: from images to the outputs of a backbone, or of the neck behind it.

    Args:
        backbone: Copied, and its `lora` merged; the given one stays as it is.
        neck: Takes the tuple of the backbone's outputs; copied too.
        mean: For each channel, to be subtracted here: images are RGB on 0-255 then.
        std: For each channel, to be divided by.
    """

    def __init__(
        self,
        backbone: ViTFeatBackbone,
        neck: nn.Module | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.neck = copy.deepcopy(backbone), copy.deepcopy(neck)
        self.backbone.merge_lora()
        self.normalises = mean is not None
        self.register_buffer('mean', torch.tensor(mean or ()).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) to a tensor for each of `names`."""
        if self.normalises:
            images = (images - self.mean) / self.std
        outputs = self.backbone(images)
        return outputs if self.neck is None else tuple(self.neck(outputs))

    def images(self, batch: int, size: Grid) -> Tensor:
        """Random ones, the same at each call, (batch, C, *size)."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, self.backbone.in_channels, *size)
        if self.normalises:
            return 255 * torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)

    def built_for(self) -> Grid:
        """(H, W) of the images that suit the model as it is."""
        source, vit = self.backbone.source, self.backbone.vit
        if source.keeps_grid(vit):
            steps = source.strides(vit)[0]
            return tuple(n * step for n, step in zip(source.grid(vit), steps, strict=True))
        return source.fixed_size(vit) or source.native_size(vit)
