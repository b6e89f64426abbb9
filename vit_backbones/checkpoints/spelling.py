"""The ways in which timm's own plain ViTs differ from each other in what they hold. Pure.

`VisionTransformer` and `Eva` name LayerScale and biases differently, and a model of either kind may
lack a parameter that a file has. It is then moved into another one where that changes nothing.
"""

import re
from collections.abc import Callable, Collection

from torch import Tensor

Tensors = dict[str, Tensor]
# Layers behind which the two LayerScales of a block stand
_SCALED = {'1': 'attn.proj', '2': 'mlp.fc2'}


def spell(tensors: Tensors, names: Collection[str], *, cls_row: bool) -> Tensors:
    """Give translated tensors the names and the division of one model.

    Args:
        tensors: As `to_timm` translates them from another project's keys: complete, under
            `VisionTransformer`'s names, the first position being that of a CLS token.
        names: The model's keys.
        cls_row: Whether the model's position table begins with a row for the CLS token.

    Returns:
        Tensors that compute the same. What cannot be moved stays as it was.
    """
    steps: tuple[Callable[[Tensors, Collection[str]], Tensors], ...]
    steps = (_layer_scales, _biases_of_qkv, _missing_biases, _parts_of_qkv)
    steps += (_relative_positions, _final_norm)
    for step in steps:
        tensors = step(tensors, names)
    return _cls_position(tensors, cls_row)


def _layer_scales(tensors: Tensors, names: Collection[str]) -> Tensors:
    """`ls1.gamma`, as `gamma_1`, or within the layer in front of it."""
    spelled = dict(tensors)
    if 'blocks.0.ls1.gamma' in names:
        return spelled
    for name in tensors:
        if not (found := re.fullmatch(r'(blocks\.\d+\.)ls([12])\.gamma', name)):
            continue
        block, index = found.groups()
        gamma = spelled.pop(name)
        if 'blocks.0.gamma_1' in names:
            spelled[f'{block}gamma_{index}'] = gamma
            continue
        layer = block + _SCALED[index]
        for key in (f'{layer}.weight', f'{layer}.bias'):
            if key in spelled:  # gamma (C,) scales rows
                ones = [1] * (spelled[key].ndim - 1)
                spelled[key] = gamma.reshape(-1, *ones) * spelled[key]
    return spelled


def _biases_of_qkv(tensors: Tensors, names: Collection[str]) -> Tensors:
    """`attn.qkv.bias` less the parts that are zero and that the model lacks."""
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


def _missing_biases(tensors: Tensors, names: Collection[str]) -> Tensors:
    """Zeros for biases that the model has and the file's layers were made without."""
    zeros = {}
    for weight, tensor in tensors.items():
        bias = re.sub('weight$', 'bias', weight)
        if weight.endswith(('patch_embed.proj.weight', 'attn.qkv.weight')) and bias in names:
            zeros[bias] = tensor.new_zeros(len(tensor))
    return zeros | tensors


def _parts_of_qkv(tensors: Tensors, names: Collection[str]) -> Tensors:
    """`attn.qkv.weight` as three, where the model has it so."""
    spelled = dict(tensors)
    if 'blocks.0.attn.q_proj.weight' not in names:
        return spelled
    for name in [name for name in tensors if name.endswith('attn.qkv.weight')]:
        attn = name.removesuffix('qkv.weight')
        for part, weight in zip('qkv', spelled.pop(name).chunk(3), strict=True):
            spelled[f'{attn}{part}_proj.weight'] = weight
    return spelled


def _relative_positions(tensors: Tensors, names: Collection[str]) -> Tensors:
    """BEiT's table of all blocks, as in its pre-training, for each that has one of its own."""
    shared = tensors.get('rel_pos_bias.relative_position_bias_table')
    if shared is None or 'rel_pos_bias.relative_position_bias_table' in names:
        return tensors
    tables = {n: shared for n in names if n.endswith('.attn.relative_position_bias_table')}
    spelled = tables | tensors
    del spelled['rel_pos_bias.relative_position_bias_table']
    return spelled


def _final_norm(tensors: Tensors, names: Collection[str]) -> Tensors:
    """`norm` as `fc_norm`, which pooling needs only, for models that give tokens without a norm."""
    if 'norm.weight' in names:
        return tensors
    return {re.sub(r'^norm\.', 'fc_norm.', name): tensor for name, tensor in tensors.items()}


def _cls_position(tensors: Tensors, cls_row: bool) -> Tensors:
    """The CLS token's position inside of it, where the model's table has no row for it."""
    token, table = tensors.get('cls_token'), tensors.get('pos_embed')
    if cls_row or token is None or table is None:
        return tensors
    return tensors | {'cls_token': token + table[:, :1], 'pos_embed': table[:, 1:]}
