"""A class and a mask for each query, of a ViT's tokens."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.position import Grid


def upscale_count(patch_size: Grid) -> int:
    """Doublings of EoMT's masks: a stride of 4 for patches of 16, 7 for 14, 4 for 8 and 32."""
    return max(1, int(math.log2(min(patch_size))) - 2)


def mask_mlp(channels: int) -> nn.Sequential:
    """Three linear layers, with GELU between them."""
    layers = [nn.Linear(channels, channels) for _ in range(3)]
    return nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])


class Upscale(nn.Module):
    """Maps (B, C, h, w) at twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(
            channels, channels, kernel_size=3, padding=1, groups=channels, bias=False
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)  # of the channels of a cell

    def forward(self, maps: Tensor) -> Tensor:
        """Run the layers."""
        maps = self.conv2(F.gelu(self._doubled(maps)))
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _doubled(self, maps: Tensor) -> Tensor:
        """`conv1`; on a CPU as a product of matrices, whose gradients cost less than half."""
        if not maps.is_cpu:
            return self.conv1(maps)
        weight, bias = self.conv1.weight.permute(2, 3, 1, 0).flatten(0, 2), self.conv1.bias
        quads = F.linear(maps.permute(0, 2, 3, 1), weight, bias.repeat(4))  # (B, h, w, 4C)
        quads = quads.unflatten(3, (2, 2, -1)).transpose(2, 3)  # (B, h, 2, w, 2, C)
        return quads.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


@torch.no_grad()
def attended(mask_logits: Tensor, grid: Grid) -> Tensor:
    """Patches (B, Q, h*w) in which a query's mask lies, of logits (B, Q, H, W)."""
    shrunk = F.interpolate(mask_logits.detach(), grid, mode='bilinear', align_corners=False)
    return (shrunk > 0).flatten(2)


def semantic_scores(cls_scores: Tensor, mask_logits: Tensor) -> Tensor:
    """Scores (B, K, H, W) of pixels, each query's mask counted for the classes that it may be.

    Args:
        cls_scores: Logits (B, Q, K + 1), "no object" last.
        mask_logits: (B, Q, H, W).
    """
    classes = cls_scores.softmax(-1)[..., :-1]
    return torch.einsum('bqk,bqhw->bkhw', classes, mask_logits.sigmoid())
