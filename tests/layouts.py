"""Weights of timm's ViTs written out in the keys of other projects, from their documented layouts.

Where the other library is installed, tests use it instead.
"""

import functools
import re

import numpy as np
import torch
from redraw import backbone, pad, redraw

SMALL = dict(depth=2, width=24)

DRAWN = torch.Generator().manual_seed(7)


def draw(*shape):
    return torch.randn(*shape, generator=DRAWN)


def write(weights, folder):
    if isinstance(next(iter(weights.values())), np.ndarray):
        np.savez(folder / 'a.npz', **weights)
        return folder / 'a.npz'
    torch.save(weights, folder / 'a.pth')
    return folder / 'a.pth'


def load(weights, folder, name='vit_tiny_patch16_224', **options):
    """A small backbone with the weights of a file, giving all tokens of its last block."""
    options = SMALL | dict(out_type='raw') | options
    return backbone(name, checkpoint=write(weights, folder), **options)


def check_all_loaded(log, dialect):
    """The report shows that every tensor of the model was in the file."""
    report = [line for line in log if ': loaded ' in line][-1]
    found, total = report.split(': loaded ')[1].split(' tensors')[0].split(' of ')
    assert found == total
    assert f', from {dialect}' in report
    assert 'missing' not in report


def features(reference, x):
    return reference.forward_features(pad(x, *reference.patch_embed.patch_size))


def renamed(weights, *rules):
    named = {}
    for name, tensor in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    return named


def meta_dinov2(weights):
    """Blocks in chunks of one; with registers the positions have a row for the CLS token."""
    keys = renamed(weights, (r'^blocks\.(\d+)', r'blocks.\1.\1'), ('reg_token', 'register_tokens'))
    if 'register_tokens' in keys:
        row = draw(*keys['cls_token'].shape)
        keys['cls_token'] = keys['cls_token'] - row
        keys['pos_embed'] = torch.cat([row, keys['pos_embed']], dim=1)
    return keys | {'mask_token': draw(1, 24)}


def meta_dinov2_swiglu(weights):
    return renamed(meta_dinov2(weights), (r'mlp\.fc1', 'mlp.w12'), (r'mlp\.fc2', 'mlp.w3'))


def meta_dinov3(weights):
    """Biases of keys are masked away, those of the other two zero in models without them."""
    gates = (('fc1_g', 'w1'), ('fc1_x', 'w2'), ('fc2', 'w3'))
    gates = gates if 'blocks.0.mlp.fc1_g.weight' in weights else ()
    keys = renamed(weights, (r'gamma_([12])', r'ls\1.gamma'), ('reg_token', 'storage_tokens'))
    keys = renamed(keys, *gates)
    for name in list(keys):
        if name.endswith('qkv.weight'):
            attn = name.removesuffix('qkv.weight')
            zero = torch.zeros(24)
            q, v = (keys.pop(f'{attn}{part}_bias', zero) for part in 'qv')
            keys[f'{attn}qkv.bias'] = torch.cat([q, draw(24), v])
            keys[f'{attn}qkv.bias_mask'] = (
                torch.ones(3, 24).index_fill(0, torch.tensor(1), 0).flatten()
            )
    return keys | {'mask_token': draw(1, 24), 'rope_embed.periods': draw(2)}


def eva(weights):
    keys = renamed(
        weights,
        ('fc1_g', 'w1'),
        ('fc1_x', 'w2'),
        (r'fc1\.', 'w12.'),
        ('fc2', 'w3'),
        (r'mlp\.norm', 'mlp.ffn_ln'),
        (r'attn\.norm', 'attn.inner_attn_ln'),
        (r'([qv])_proj\.bias', r'\1_bias'),
    )
    return keys | {'rope.freqs_cos': draw(256, 8), 'blocks.0.attn.rope.freqs_sin': draw(256, 8)}


def mae(weights):
    decoder = {'decoder_embed.weight': draw(8, 24), 'decoder_blocks.0.norm1.bias': draw(8)}
    return weights | decoder | {'decoder_pos_embed': draw(1, 197, 8), 'mask_token': draw(1, 1, 8)}


def mmpretrain(weights):
    swiglu = (('mlp.fc1', 'ffn.w12'), ('mlp.fc2', 'ffn.w3'))
    plain = ((r'mlp\.fc1', 'ffn.layers.0.0'), (r'mlp\.fc2', 'ffn.layers.1'))
    gated = len(weights['blocks.0.mlp.fc1.bias']) != weights['blocks.0.mlp.fc2.weight'].shape[1]
    return renamed(
        weights,
        *(swiglu if gated else plain),
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'^norm_pre', 'pre_norm'),
        (r'^norm\.', 'ln1.'),
        (r'^blocks', 'layers'),
        (r'\.norm([12])', r'.ln\1'),
        (r'ls1\.gamma', 'attn.gamma1.weight'),
        (r'ls2\.gamma', 'ffn.gamma2.weight'),
    )


def sapiens(weights):
    keys = mmpretrain(weights)
    keys['pos_embed'] = keys['pos_embed'][:, 1:]
    del keys['cls_token']
    return keys


def openclip(weights):
    """Beside the text tower, whose keys are alike."""
    keys = renamed(
        weights,
        (r'^cls_token', 'class_embedding'),
        (r'^pos_embed', 'positional_embedding'),
        (r'^patch_embed\.proj', 'conv1'),
        (r'^norm_pre', 'ln_pre'),
        (r'^norm\.', 'ln_post.'),
        (r'\.norm([12])', r'.ln_\1'),
        (r'attn\.qkv\.', 'attn.in_proj_'),
        (r'attn\.proj', 'attn.out_proj'),
        (r'mlp\.fc1', 'mlp.c_fc'),
        (r'mlp\.fc2', 'mlp.c_proj'),
        (r'^blocks', 'transformer.resblocks'),
    )
    keys['class_embedding'] = keys['class_embedding'][0, 0]
    keys['positional_embedding'] = keys['positional_embedding'][0]
    text = {name: draw(8) for name in keys if name.startswith('transformer')}
    text |= {'positional_embedding': draw(77, 8), 'ln_final.bias': draw(8), 'logit_scale': draw(1)}
    visual = {f'visual.{name}': tensor for name, tensor in keys.items()}
    return visual | text | {'visual.proj': draw(24, 8)}


def augreg(weights):
    """As `flax`, by its older names: there positions have a row for the CLS token."""
    names = (
        ('LayerNorm_1', 'LayerNorm_2'),
        ('Attention_0', 'Attention_1'),
        ('MlpBlock_0', 'MlpBlock_3'),
        ('^pos_embedding', 'Transformer/posembed_input/pos_embedding'),
    )
    return renamed(flax(weights), *names)


def flax(weights, heads=3):
    """Kernels lie (in, out), those of the attention hold the heads apart."""
    keys = renamed(
        weights,
        (r'^cls_token', 'cls'),
        (r'^pos_embed', 'pos_embedding'),
        (r'^patch_embed\.proj', 'embedding'),
        (r'^norm\.weight', 'Transformer/encoder_norm/scale'),
        (r'^norm\.', 'Transformer/encoder_norm/'),
        (r'\.norm1\.weight', '/LayerNorm_0/scale'),
        (r'\.norm1\.', '/LayerNorm_0/'),
        (r'\.norm2\.weight', '/LayerNorm_1/scale'),
        (r'\.norm2\.', '/LayerNorm_1/'),
        (r'\.attn\.', '/MultiHeadDotProductAttention_0/'),
        (r'\.mlp\.fc1', '/MlpBlock_0/Dense_0'),
        (r'\.mlp\.fc2', '/MlpBlock_0/Dense_1'),
        (r'^blocks\.(\d+)', r'Transformer/encoderblock_\1'),
        (r'/proj\.', '/out/'),
        (r'\.', '/'),
        (r'(embedding|qkv|out|Dense_.)/weight', r'\1/kernel'),
    )
    keys = {name: tensor for name, tensor in keys.items() if not name.startswith('attn_pool')}
    arrays = {'MAPHead_0/probe': draw(1, 1, 24)} if 'cls' not in keys else {}
    for name, tensor in keys.items():
        if '/qkv/' in name:
            for part, value in zip(('query', 'key', 'value'), tensor.chunk(3), strict=True):
                apart = value.unflatten(0, (heads, -1))  # (heads, d) and for weights (heads, d, C)
                apart = apart.permute(2, 0, 1) if apart.ndim == 3 else apart
                arrays[name.replace('qkv', part)] = apart
        elif name.endswith('out/kernel'):
            arrays[name] = tensor.T.unflatten(0, (heads, -1))
        elif name.endswith('kernel'):
            arrays[name] = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        else:
            arrays[name] = tensor
    return {name: array.numpy() for name, array in arrays.items()}


@functools.cache
def transformers_model(kind, **more):
    """A small redrawn model of transformers."""
    import transformers

    size = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, layer_norm_eps=1e-6)
    config = getattr(transformers, f'{kind}Config')(**size | more)
    model = getattr(transformers, f'{kind}Model')(config)
    return redraw(model).eval()


def mmseg_model(kind, img_size=224, final_norm=True, **options):
    """A small redrawn ViT of mmseg, without relative positions."""
    import mmseg.models.backbones

    size = dict(img_size=img_size, embed_dims=24, num_layers=2, num_heads=3) | options
    build = getattr(mmseg.models.backbones, kind)
    model = redraw(build(**size, norm_cfg=dict(type='LN', eps=1e-6), final_norm=final_norm))
    model.eval()  # gives None
    for name, parameter in model.named_parameters():
        if 'gamma' in name:
            parameter.data += draw(24)
        if 'relative' in name:
            parameter.data.zero_()
    return model
