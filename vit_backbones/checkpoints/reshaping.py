"""Convert tensors to timm's layout, and between timm's two plain ViTs. Pure functions.

Other projects' tensors are joined, split and transposed. `spell` converts from `VisionTransformer`
to `Eva`, which names LayerScale and biases differently, and moves a parameter that the model lacks
into another one where that changes nothing.
"""

import itertools
import re
from collections.abc import Callable, Collection

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
# Layers behind which the two LayerScales of a block stand
_SCALED = {'1': 'attn.proj', '2': 'mlp.fc2'}


def join_qkv(tensors: Tensors) -> Tensors:
    """Join `attn.q`, `.k`, `.v` and BEiT's `attn.q_bias`, `.v_bias` to `attn.qkv`.

    A bias that one of the three has in no block is zero; one that only some blocks lack is missing.
    """
    joined = dict(tensors)
    biased = {part for part in 'qkv' if any(n.endswith(f'attn.{part}.bias') for n in tensors)}
    for attn in {n.removesuffix('q.weight') for n in tensors if n.endswith('attn.q.weight')}:
        if not all(f'{attn}{part}.weight' in tensors for part in 'kv'):
            continue
        weights = {part: joined.pop(f'{attn}{part}.weight') for part in 'qkv'}
        joined[f'{attn}qkv.weight'] = torch.cat(list(weights.values()))
        if biased and all(f'{attn}{part}.bias' in tensors for part in biased):
            zeros = {part: weight.new_zeros(len(weight)) for part, weight in weights.items()}
            biases = [joined.pop(f'{attn}{part}.bias', zeros[part]) for part in 'qkv']
            joined[f'{attn}qkv.bias'] = torch.cat(biases)
    for name in tensors:
        attn = name.removesuffix('q_bias')
        if name.endswith('attn.q_bias') and f'{attn}v_bias' in tensors:
            q, v = joined.pop(f'{attn}q_bias'), joined.pop(f'{attn}v_bias')
            joined[f'{attn}qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    return joined


def patch_bias(tensors: Tensors) -> Tensors:
    """Add the zeros that stand for no bias of the patches, which mmseg's ViT has if asked for."""
    weight = tensors['patch_embed.proj.weight']
    return {'patch_embed.proj.bias': weight.new_zeros(len(weight))} | tensors


def mask_biases(tensors: Tensors) -> Tensors:
    """Multiply biases by the `..._mask` beside them, as DINOv3 does."""
    masks = {name for name in tensors if name.endswith('.bias_mask')}
    masked = {name: tensor for name, tensor in tensors.items() if name not in masks}
    for name in masks:
        bias = name.removesuffix('_mask')
        if bias in masked:
            masked[bias] = masked[bias] * tensors[name]
    return masked


def pack_gates(tensors: Tensors) -> Tensors:
    """Join `mlp.fc1_g` and `mlp.fc1_x` of a SwiGLU to `mlp.fc1`, the gate first."""
    packed = dict(tensors)
    for gate in [name for name in tensors if '.mlp.fc1_g.' in name]:
        value = gate.replace('fc1_g', 'fc1_x')
        if value not in tensors:
            continue
        both = packed.pop(gate), packed.pop(value)
        packed[gate.replace('fc1_g', 'fc1')] = torch.cat(both)
    return packed


def ungated(tensors: Tensors) -> Tensors:
    """Rename `mlp.fc1_x` to `mlp.fc1` where it has no gate."""
    return {
        name if name.replace('fc1_x', 'fc1_g') in tensors else name.replace('fc1_x', 'fc1'): tensor
        for name, tensor in tensors.items()
    }


def from_flax(tensors: Tensors) -> Tensors:
    """Transpose kernels to PyTorch's layout, flatten heads, and split scanned blocks.

    Positions beside the encoder have no row for the CLS token, whose position is then zero; old
    files hold them in the encoder, with a row for it.
    """
    apart = {}
    for name, tensor in tensors.items():
        if 'encoderblock.' in name:  # (depth, ...)
            for index, part in enumerate(tensor):
                apart[name.replace('encoderblock.', f'encoderblock_{index}.')] = part
        else:
            apart[name] = tensor
    if {'cls', 'pos_embedding'} <= apart.keys():
        zero = torch.zeros_like(apart['cls'])
        apart['pos_embedding'] = torch.cat([zero, apart['pos_embedding']], dim=1)
    return {name: _to_torch(name, tensor) for name, tensor in apart.items()}


def _to_torch(name: str, tensor: Tensor) -> Tensor:
    if name.endswith('.bias'):
        return tensor.flatten()  # those of q, k, v are (heads, d)
    if not name.endswith('.kernel'):
        return tensor
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
    if tensor.ndim == 3:  # (C, heads, d), and behind the attention (heads, d, C)
        tensor = tensor.flatten(0, 1) if name.endswith('.out.kernel') else tensor.flatten(1)
    return tensor.T


def spell(tensors: Tensors, names: Collection[str], *, cls_row: bool) -> Tensors:
    """Convert tensors in `VisionTransformer`'s layout to the layout of one model of timm.

    They compute the same; those that cannot be moved are kept.

    Args:
        tensors: All tensors of a checkpoint as `to_timm` translates them, with a row for the CLS
            token in the position table.
        names: The model's keys.
        cls_row: Whether the model's position table has that row.
    """
    for step in _STEPS:
        tensors = step(tensors, names)
    return _cls_position(tensors, cls_row)


def _layer_scales(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Rename `ls1.gamma` to `gamma_1`, or multiply the layer in front by it."""
    spelled = dict(tensors)
    if 'blocks.0.ls1.gamma' in names:
        return spelled
    blocks = {name.split('.')[1] for name in tensors if name.startswith('blocks.')}
    scaled = {name[-7] for name in tensors if re.fullmatch(r'blocks\.\d+\.ls[12]\.gamma', name)}
    for block, index in itertools.product(blocks, scaled):
        gamma = spelled.pop(f'blocks.{block}.ls{index}.gamma', None)
        if 'blocks.0.gamma_1' in names:
            spelled |= {} if gamma is None else {f'blocks.{block}.gamma_{index}': gamma}
            continue
        for key in (f'blocks.{block}.{_SCALED[index]}.{end}' for end in ('weight', 'bias')):
            layer = spelled.pop(key, None)
            # a block without its scale lacks the layer
            if layer is not None and gamma is not None:  # gamma (C,) scales rows
                spelled[key] = gamma.reshape(-1, *[1] * (layer.ndim - 1)) * layer
    return spelled


def _biases_of_qkv(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Take the zero parts that the model lacks out of `attn.qkv.bias`."""
    spelled = dict(tensors)
    if 'blocks.0.attn.qkv.bias' in names:
        return spelled
    for name in [name for name in tensors if name.endswith('attn.qkv.bias')]:
        q, k, v = tensors[name].chunk(3)
        if k.any():
            continue  # the report will name it
        attn = name.removesuffix('qkv.bias')
        if 'blocks.0.attn.q_bias' in names:
            spelled |= {f'{attn}q_bias': q, f'{attn}v_bias': v}
        elif 'blocks.0.attn.q_proj.bias' in names:
            spelled |= {f'{attn}q_proj.bias': q, f'{attn}v_proj.bias': v}
        elif q.any() or v.any():
            continue
        del spelled[name]
    return spelled


def _bias_of_patches(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Leave out `patch_embed.proj.bias` where the model has none and it is zero."""
    name = 'patch_embed.proj.bias'
    if name in names or name not in tensors or tensors[name].any():
        return tensors
    return {each: tensor for each, tensor in tensors.items() if each != name}


def _missing_biases(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Add zeros for `attn.qkv.bias` where the model has them, and no block of the file."""
    weights = {name for name in tensors if name.endswith('attn.qkv.weight')}
    if any(name.endswith('attn.qkv.bias') for name in tensors):
        return tensors
    biases = {name.replace('weight', 'bias'): len(tensors[name]) for name in weights}
    some = next(iter(tensors.values()))
    return tensors | {n: some.new_zeros(rows) for n, rows in biases.items() if n in names}


def _parts_of_qkv(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Split `attn.qkv.weight` in three, where the model does."""
    spelled = dict(tensors)
    if 'blocks.0.attn.q_proj.weight' not in names:
        return spelled
    for name in [name for name in tensors if name.endswith('attn.qkv.weight')]:
        attn = name.removesuffix('qkv.weight')
        for part, weight in zip('qkv', spelled.pop(name).chunk(3), strict=True):
            spelled[f'{attn}{part}_proj.weight'] = weight
    return spelled


def _relative_positions(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Copy BEiT's shared table, as in its pre-training, to each block that has its own."""
    shared = tensors.get('rel_pos_bias.relative_position_bias_table')
    if shared is None or 'rel_pos_bias.relative_position_bias_table' in names:
        return tensors
    tables = {n: shared for n in names if n.endswith('.attn.relative_position_bias_table')}
    spelled = tables | tensors
    del spelled['rel_pos_bias.relative_position_bias_table']
    return spelled


def _final_norm(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Rename `norm` to `fc_norm` for models that only norm pooled tokens."""
    if 'norm.weight' in names:
        return tensors
    return {re.sub(r'^norm\.', 'fc_norm.', name): tensor for name, tensor in tensors.items()}


def _cls_position(tensors: Tensors, cls_row: bool) -> Tensors:
    """Add the CLS token's position to the token, where the model's table has no row for it."""
    token, table = tensors.get('cls_token'), tensors.get('pos_embed')
    if cls_row or token is None or table is None:
        return tensors
    return tensors | {'cls_token': token + table[:, :1], 'pos_embed': table[:, 1:]}


_STEPS: tuple[Callable[[Tensors, Collection[str]], Tensors], ...] = (
    _layer_scales,
    _biases_of_qkv,
    _missing_biases,
    _bias_of_patches,
    _parts_of_qkv,
    _relative_positions,
    _final_norm,
)
