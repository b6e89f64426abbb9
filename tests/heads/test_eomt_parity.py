"""EoMT as a whole beside transformers' two models, with masks and without, each prediction."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from eomt_models import CLASSES, images, segmenter, training_at
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from vit_backbones.models.random_weights import redraw
from vit_backbones.sources import SOURCES

DEPTH, BLOCKS, SIDE, QUERIES = 4, 2, 96, 7
SIZES = dict(
    hidden_size=384,
    num_attention_heads=6,
    num_hidden_layers=DEPTH,
    num_blocks=BLOCKS,
    num_queries=QUERIES,
    num_register_tokens=4,
    num_upscale_blocks=2,
    image_size=SIDE,
    patch_size=16,
    num_labels=CLASSES,
)
CLOSE = dict(rtol=1e-5, atol=1e-5)
# Of transformers' keys, timm's
RENAMED = [
    (r'^query\.', 'decode_head.query_embed.'),
    (r'^class_predictor\.', 'decode_head.cls_embed.'),
    (r'^mask_head\.fc(\d)\.', lambda m: f'decode_head.mask_embed.{2 * int(m[1]) - 2}.'),
    (r'^upscale_block\.block\.(\d)\.', r'decode_head.upscale.\1.'),
    (r'\.layernorm2d\.', '.norm.'),
    (r'^layernorm\.', 'backbone.vit.norm.'),
    (r'^layers\.', 'backbone.vit.blocks.'),
    (r'^embeddings\.cls_token', 'backbone.vit.cls_token'),
    (r'^embeddings\.register_tokens', 'backbone.vit.reg_token'),
    (r'^embeddings\.patch_embeddings(\.projection)?\.', 'backbone.vit.patch_embed.proj.'),
    (r'\.attention\.(out|o)_proj\.', '.attn.proj.'),
    (r'\.mlp\.up_proj\.', '.mlp.fc1.'),
    (r'\.mlp\.down_proj\.', '.mlp.fc2.'),
]
SCALES = {
    'v2': (r'\.layer_scale(\d)\.lambda1$', r'.ls\1.gamma'),
    'v3': (r'\.layer_scale(\d)\.lambda1$', r'.gamma_\1'),
}


def renamed(weights, kind):
    """The state dict of our `SegEoMT` from that of transformers' model."""
    found = {}
    for name, value in weights.items():
        if name.startswith(('criterion.', 'attn_mask_probs')) or '.attention.k_proj' in name:
            continue
        new = name
        for pattern, replacement in [*RENAMED, SCALES[kind]]:
            new = re.sub(pattern, replacement, new)
        if name.startswith('embeddings.position_embeddings'):
            new, value = 'backbone.vit.pos_embed', value[None]
        if '.attention.q_proj.weight' in name or (kind == 'v2' and '.attention.q_proj' in name):
            parts = [
                weights[name.replace('q_proj', each)] for each in ('q_proj', 'k_proj', 'v_proj')
            ]
            new, value = new.replace('attention.q_proj', 'attn.qkv'), torch.cat(parts)
        elif kind == 'v3' and re.search(r'attention\.[qv]_proj\.bias$', name):
            new = re.sub(r'attention\.([qv])_proj\.bias', r'attn.\1_bias', new)
        elif '.attention.v_proj' in name:
            continue
        found[new] = value
    return found


def pair(kind, seed):
    """Both models with the same redrawn weights."""
    if kind == 'v2':
        config = EomtConfig(**SIZES)
        theirs, name = EomtForUniversalSegmentation(config), 'vit_small_patch14_reg4_dinov2'
    else:
        config = EomtDinov3Config(
            **SIZES, intermediate_size=1536, layer_norm_eps=1e-5, pos_embed_rescale=None
        )
        theirs, name = EomtDinov3ForUniversalSegmentation(config), 'vit_small_patch16_dinov3_qkvb'
    redraw(theirs, seed, gain=0.7)
    for block in theirs.upscale_block.block:  # else a mask has all patches or none
        torch.nn.init.zeros_(block.conv1.bias)
        torch.nn.init.zeros_(block.layernorm2d.bias)
    torch.nn.init.normal_(theirs.query.weight, generator=torch.Generator().manual_seed(seed))
    ours = segmenter(
        dict(num_queries=QUERIES, num_blocks=BLOCKS),
        backbone=dict(
            model_name=name,
            source=partial(SOURCES['timm'], more=dict(depth=DEPTH)),
            img_size=SIDE,
            patch_size=16,
        ),
        redrawn=False,
    )
    missing, unexpected = ours.load_state_dict(renamed(theirs.state_dict(), kind), strict=False)
    assert [each for each in missing if 'position_grid' not in each] == unexpected == []
    theirs.set_attn_implementation('eager')  # PyTorch's misreads their fp32 masks for fp64
    return ours.double(), theirs.double()  # in fp32 sums of 384 channels differ by 1e-5


def coloured():
    """Images whose patches differ."""
    return (4 * F.interpolate(images(6, 6), scale_factor=16) + images(SIDE, SIDE)).double()


def theirs_of(model, x, keep):
    """Class and mask logits of all of its predictions; those of masks are not near zero."""
    outputs, predict = [], model.predict
    model.attn_mask_probs.fill_(keep)
    model.predict = lambda tokens: outputs.append(predict(tokens)) or outputs[-1]
    with torch.no_grad():
        model(x)
    shrunk = [F.interpolate(mask, 2 * [SIDE // 16], mode='bilinear') for mask, _ in outputs]
    assert all(each.abs().min() > 1e-5 for each in shrunk)
    assert all(0.1 < (each > 0).double().mean() < 0.9 for each in shrunk)
    return outputs


@pytest.mark.parametrize('kind', ['v2', 'v3'])
@pytest.mark.parametrize('keep', [1.0, 0.0])
def test_every_prediction_is_that_of_transformers(kind, keep):
    ours, theirs = pair(kind, seed=0)
    x = coloured()
    training_at(0 if keep else 99, 100)
    # theirs makes predictions between blocks without masks only in training
    outputs = theirs_of(theirs.train(keep == 0), x, keep)
    with torch.no_grad():
        classes, masks = ours.train()(x)
    assert len(classes) == len(masks) == len(outputs) == BLOCKS + 1
    for found, (mask, cls) in zip(zip(masks, classes, strict=True), outputs, strict=True):
        torch.testing.assert_close(found, (mask, cls), **CLOSE)
    assert outputs[-1][0].std() > 0.5  # they differ from query to query


@pytest.mark.parametrize('kind', ['v2', 'v3'])
@pytest.mark.parametrize('keep', [1.0, 0.0])
def test_in_evaluation_there_is_the_last_prediction_only(kind, keep):
    ours, theirs = pair(kind, seed=0)
    x = coloured()
    training_at(0 if keep else 99, 100, stage='val')
    mask, cls = theirs_of(theirs.eval(), x, keep)[-1]
    with torch.no_grad():
        classes, masks = ours.eval()(x)
    torch.testing.assert_close((masks, classes), ([mask], [cls]), **CLOSE)


@pytest.mark.parametrize('kind', ['v2', 'v3'])
def test_masks_matter(kind):
    ours, _ = pair(kind, seed=0)
    found = []
    for number in (0, 99):
        training_at(number, 100, stage='val')
        with torch.no_grad():
            found.append(ours.eval()(coloured())[1][0])
    assert (found[0] - found[1]).abs().max() > 0.1
