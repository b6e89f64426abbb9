"""ViTDet's block and pyramid as detectron2 computes them, on the weights of ours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_backbones.necks import SimpleFeaturePyramid


def reference_block(block: nn.Module, x: Tensor, window: int) -> Tensor:
    """ViTDet's block over maps (B, h, w, C), written out: windows of the padded, normed maps."""
    (batch, height, width, channels), attn = x.shape, block.attn
    y = block.norm1(x)
    rows, columns = (window, window) if window else (height, width)
    y = F.pad(y, (0, 0, 0, -width % columns, 0, -height % rows))
    full = y.shape
    y = y.reshape(batch, full[1] // rows, rows, full[2] // columns, columns, channels)
    y = y.transpose(2, 3).reshape(-1, rows * columns, channels)
    q, k, v = attn.qkv(y).reshape(len(y), -1, 3, attn.num_heads, attn.head_dim).unbind(2)
    logits = torch.einsum('bqnd,bknd->bnqk', q * attn.head_dim**-0.5, k)
    down, across = (
        cells.flatten()[:, None] - cells.flatten() + side - 1
        for cells, side in zip(
            torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'),
            (rows, columns),
            strict=True,
        )
    )
    relative = attn.rel_pos_h[down] + attn.rel_pos_w[across]
    logits = logits + torch.einsum('bqnd,qkd->bnqk', q, relative)
    y = torch.einsum('bnqk,bknd->bqnd', logits.softmax(-1), v).reshape(len(y), -1, channels)
    y = attn.proj(y).reshape(batch, full[1] // rows, full[2] // columns, rows, columns, channels)
    y = y.transpose(2, 3).reshape(full)[:, :height, :width]
    x = x + y
    return x + block.mlp(block.norm2(x))


def reference_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def reference_level(neck: SimpleFeaturePyramid, stride: int, x: Tensor) -> Tensor:
    """One level as detectron2 computes it from a map of stride 16."""
    w = neck.levels[f'stride{stride}'].state_dict()
    if stride == 4:
        x = F.conv_transpose2d(x, w['rescale.0.weight'], w['rescale.0.bias'], stride=2)
        x = F.gelu(reference_norm(x, w['rescale.1.weight'], w['rescale.1.bias']))
        x = F.conv_transpose2d(x, w['rescale.3.weight'], w['rescale.3.bias'], stride=2)
    elif stride == 8:
        x = F.conv_transpose2d(x, w['rescale.0.weight'], w['rescale.0.bias'], stride=2)
    elif stride == 32:
        x = F.max_pool2d(x, 2)
    x = F.conv2d(x, w['lateral.conv.weight'])
    x = reference_norm(x, w['lateral.norm.weight'], w['lateral.norm.bias'])
    x = F.conv2d(x, w['output.conv.weight'], padding=1)
    return reference_norm(x, w['output.norm.weight'], w['output.norm.bias'])
