"""ViTDet's backbone as its formulas are written: windows, and a softmax over logits with a bias."""

from collections.abc import Collection

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from vit_backbones.attention import REL_POS
from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.position import resample_relative, widened


class WrittenOut(nn.Module):
    """A plain ViT of timm without prefix tokens, by the weights of a backbone, unfused.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ECCV
    2022): the patches of a window are a batch of their own, zeros fill the last windows, logits
    plus decomposed relative positions go through one softmax. Every N x N tensor is stored.

    Args:
        backbone: Whose modules it shares; images must be whole patches.
        window: Side in patches, 0 for none.
        blocks: Those that attend in windows.
    """

    def __init__(
        self, backbone: ViTFeatBackbone, window: int = 0, blocks: Collection[int] = ()
    ) -> None:
        super().__init__()
        if backbone.num_prefix_tokens or not hasattr(backbone.vit, 'blocks'):
            raise ValueError('windows written out are of blocks of timm without prefix tokens')
        self.vit, self.in_channels = backbone.vit, backbone.in_channels
        self._windows = {index: window for index in blocks}
        self._out_indices, self._norm = backbone.out_indices, backbone.norm

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) to maps of the wanted blocks, (B, D, h, w) each."""
        embed = self.vit.patch_embed
        x = embed.norm(embed.proj(images).permute(0, 2, 3, 1))  # (B, h, w, D)
        grid = x.shape[1:3]
        x = x + resample_abs_pos_embed(
            self.vit.pos_embed, grid, embed.grid_size, num_prefix_tokens=0
        ).unflatten(1, grid)
        maps = {}
        for index, block in enumerate(self.vit.blocks):
            attended = self._attended(block.attn, block.norm1(x), index)
            x = x + block.drop_path1(block.ls1(attended))
            x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
            maps[index] = x
        last = self._out_indices[-1]
        normed = {'none': (), 'last': (last,), 'all': self._out_indices}[self._norm]
        wanted = ((i, self.vit.norm(maps[i]) if i in normed else maps[i]) for i in maps)
        return tuple(x.permute(0, 3, 1, 2) for i, x in wanted if i in self._out_indices)

    def _attended(self, attn: nn.Module, x: Tensor, index: int) -> Tensor:
        side = self._windows.get(index, 0)
        if not side:
            return attend(attn, x)
        (rows, columns), (height, width) = (
            x.shape[1:3],
            (-(-n // side) * side for n in x.shape[1:3]),
        )
        tokens = widened(x.flatten(1, 2), (rows, columns), (height, width))
        parts = tokens.unflatten(1, (height // side, side, width // side, side))
        # (B, down, side, across, side, D) -> (B * down * across, side, side, D)
        windows = parts.transpose(2, 3).flatten(0, 2)
        out = attend(attn, windows).unflatten(0, (len(x), height // side, width // side))
        return out.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :rows, :columns]


def attend(attn: nn.Module, x: Tensor) -> Tensor:
    """Maps (B, h, w, D) through a layer of timm's plain ViT, with an explicit softmax."""
    grid = x.shape[1:3]
    qkv = attn.qkv(x.flatten(1, 2)).unflatten(-1, (3, attn.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, h*w, d) each
    logits = (attn.q_norm(q) * attn.scale) @ attn.k_norm(k).transpose(-2, -1)
    if hasattr(attn, REL_POS[0]):
        maps = q.unflatten(2, grid)
        of_rows, of_columns = (
            _by_distance(getattr(attn, name), side).to(q)
            for name, side in zip(REL_POS, grid, strict=True)
        )
        rows = torch.einsum('bnhwd,hkd->bnhwk', maps, of_rows)[..., :, None]
        columns = torch.einsum('bnhwd,wkd->bnhwk', maps, of_columns)[..., None, :]
        logits = (logits.unflatten(2, grid).unflatten(4, grid) + rows + columns).flatten(4)
        logits = logits.flatten(2, 3)
    out = logits.softmax(dim=-1).to(v) @ v
    return attn.proj(out.transpose(1, 2).flatten(2)).unflatten(1, grid)


def _by_distance(table: Tensor, side: int) -> Tensor:
    """(side, side, d), by query and key."""
    at = torch.arange(side, device=table.device)
    return resample_relative(table, 2 * side - 1)[at[:, None] - at + side - 1]
