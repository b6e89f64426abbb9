"""ViTDet's block (three heads of eight channels) and pyramid as detectron2 computes them."""

import torch
import torch.nn.functional as F
from redraw import pad
from torch import Tensor

from vit_backbones.necks import SimpleFeaturePyramid


def distances(table, n):
    """(n, n, d) rows of a table (rows, d) by the distance of query and key."""
    if len(table) != 2 * n - 1:
        table = F.interpolate(table.T[None], 2 * n - 1, mode='linear')[0].T
    at = torch.arange(n)
    return table[at[:, None] - at + n - 1]


def attention(w, x):
    """Of (B, h, w, C), with the relative positions of rows and columns added to the logits."""
    h, wide = x.shape[1:3]
    q, k, v = F.linear(x, w['qkv.weight'], w['qkv.bias']).unflatten(-1, (3, 3, 8)).unbind(3)
    logits = torch.einsum('byxhd,bYXhd->bhyxYX', q, k) / 8**0.5
    rows = torch.einsum('byxhd,yYd->bhyxY', q, distances(w['rel_pos_h'], h))
    columns = torch.einsum('byxhd,xXd->bhyxX', q, distances(w['rel_pos_w'], wide))
    logits = logits + rows[..., None] + columns[..., None, :]
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    out = torch.einsum('bhyxYX,bYXhd->byxhd', weights, v).flatten(-2)
    return F.linear(out, w['proj.weight'], w['proj.bias'])


def windowed(w, x, side):
    """Attention within windows of the zero-padded map."""
    h, wide = x.shape[1:3]
    padded = pad(x.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
    for top in range(0, h, side):
        for left in range(0, wide, side):
            window = padded[:, top : top + side, left : left + side]
            padded[:, top : top + side, left : left + side] = attention(w, window)
    return padded[:, :h, :wide]


def reference_block(w, x, window):
    """One block over maps (B, h, w, C), in windows or, for 0, over everything."""
    attn = {n.removeprefix('attn.'): t for n, t in w.items() if n.startswith('attn.')}
    channels = x.shape[-1:]
    y = F.layer_norm(x, channels, w['norm1.weight'], w['norm1.bias'], 1e-6)
    x = x + (windowed(attn, y, window) if window else attention(attn, y))
    y = F.layer_norm(x, channels, w['norm2.weight'], w['norm2.bias'], 1e-6)
    y = F.gelu(F.linear(y, w['mlp.fc1.weight'], w['mlp.fc1.bias']))
    return x + F.linear(y, w['mlp.fc2.weight'], w['mlp.fc2.bias'])


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
