"""Tensors that other projects keep together, apart or lying, brought to timm's form. Pure."""

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def join_qkv(tensors: Tensors) -> Tensors:
    """`attn.q`, `.k`, `.v` and BEiT's `attn.q_bias`, `.v_bias` as one `attn.qkv`.

    A bias that one of the three lacks is zero.
    """
    joined = dict(tensors)
    for attn in {
        name.removesuffix('q.weight') for name in tensors if name.endswith('attn.q.weight')
    }:
        if not all(f'{attn}{part}.weight' in tensors for part in 'kv'):
            continue
        weights = [joined.pop(f'{attn}{part}.weight') for part in 'qkv']
        biases = [joined.pop(f'{attn}{part}.bias', None) for part in 'qkv']
        joined[f'{attn}qkv.weight'] = torch.cat(weights)
        if any(bias is not None for bias in biases):
            both = zip(weights, biases, strict=True)
            filled = [w.new_zeros(len(w)) if b is None else b for w, b in both]
            joined[f'{attn}qkv.bias'] = torch.cat(filled)
    for name in tensors:
        attn = name.removesuffix('q_bias')
        if name.endswith('attn.q_bias') and f'{attn}v_bias' in tensors:
            q, v = joined.pop(f'{attn}q_bias'), joined.pop(f'{attn}v_bias')
            joined[f'{attn}qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    return joined


def mask_biases(tensors: Tensors) -> Tensors:
    """Biases times the `..._mask` beside them, as DINOv3 applies its own."""
    masks = {name for name in tensors if name.endswith('.bias_mask')}
    masked = {name: tensor for name, tensor in tensors.items() if name not in masks}
    for name in masks:
        bias = name.removesuffix('_mask')
        if bias in masked:
            masked[bias] = masked[bias] * tensors[name]
    return masked


def pack_gates(tensors: Tensors) -> Tensors:
    """`mlp.fc1_g` and `mlp.fc1_x` of a SwiGLU as one `mlp.fc1`, the gate first."""
    packed = dict(tensors)
    for gate in [name for name in tensors if '.mlp.fc1_g.' in name]:
        value = gate.replace('fc1_g', 'fc1_x')
        if value not in tensors:
            continue
        both = packed.pop(gate), packed.pop(value)
        packed[gate.replace('fc1_g', 'fc1')] = torch.cat(both)
    return packed


def ungated(tensors: Tensors) -> Tensors:
    """`mlp.fc1_x` as `mlp.fc1` where there is no gate beside it."""
    return {
        name if name.replace('fc1_x', 'fc1_g') in tensors else name.replace('fc1_x', 'fc1'): tensor
        for name, tensor in tensors.items()
    }


def from_flax(tensors: Tensors) -> Tensors:
    """Kernels transposed to PyTorch's layout, heads flattened, scanned blocks taken apart.

    Positions that lie beside the encoder are added before the CLS token is set in front, which so
    has position zero; in old files they lie in the encoder and have a row for it.
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
