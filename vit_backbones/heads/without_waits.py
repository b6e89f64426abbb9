"""A Mask2Former head of mmdet, or mmseg's, whose forward pass does not wait and computes less."""

from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.layers import MSDeformAttnPixelDecoder, SinePositionalEncoding
from torch import nn

from vit_backbones.heads.grid_encoding import GridEncoding
from vit_backbones.heads.masked_attention import MaskedAttention
from vit_backbones.heads.pixel_decoder import GridPixelDecoder
from vit_backbones.hosts.deformable_layers import PreciseDeformableAttention, precise


def without_waits(head: Mask2FormerHead) -> None:
    """Give the parts of a built head forward passes of ours: same parameters, same numbers.

    The masks of attention are made once for all heads of it, which is why `head.num_heads` is 1
    afterwards. Parts that are not mmdet's own remain as they are.
    """
    precise(head.pixel_decoder)
    looks = (
        m for m in head.pixel_decoder.modules() if isinstance(m, MultiScaleDeformableAttention)
    )
    plain = all(type(each) is PreciseDeformableAttention for each in looks)
    if plain and type(head.pixel_decoder) is MSDeformAttnPixelDecoder:
        head.pixel_decoder.__class__ = GridPixelDecoder
    for part in (head, head.pixel_decoder):
        for encoding in part.children():
            if type(encoding) is SinePositionalEncoding and _encodes_whole_maps(part):
                encoding.__class__ = GridEncoding
    for layer in head.transformer_decoder.modules():
        if type(layer) is MultiheadAttention and _is_plain(layer.attn):
            layer.__class__ = MaskedAttention
    if all(type(each.cross_attn) is MaskedAttention for each in head.transformer_decoder.layers):
        head.num_heads = 1


def _encodes_whole_maps(part: nn.Module) -> bool:
    """Whether its forward pass is mmdet's or ours; that of others may mark padding."""
    return type(part).forward.__module__.startswith(('mmdet.', 'vit_backbones.'))


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    extra = attention.bias_k is not None or attention.add_zero_attn
    return attention._qkv_same_embed_dim and not attention.batch_first and not extra
