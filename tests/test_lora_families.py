"""LoRA in every family of models: also in those that read a layer's weight without calling it."""

import copy
from functools import partial

import pytest
import timm
import torch
import torchvision
from redraw import images, redraw
from torch import nn

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources import SOURCES

pytest.importorskip('peft')
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
# Arguments, targets, updates
FAMILIES = {
    'vit': (dict(model_name='test_vit'), ['qkv', 'fc1'], 12),
    'eva02': (dict(model_name='eva02_tiny_patch14_224', more=dict(depth=2)), ['qkv', 'proj'], 4),
    'beit': (
        dict(model_name='beit_base_patch16_224', more=dict(depth=2, embed_dim=96, num_heads=3)),
        ['qkv'],
        2,
    ),
    'swinv2': (
        dict(model_name='swinv2_tiny_window8_256', more=dict(embed_dim=24, depths=(1, 1))),
        ['qkv', 'reduction'],
        3,
    ),
    'dinov3': (
        dict(model_name='vit_tiny_patch16_dinov3_qkvb', more=dict(depth=2)),
        ['qkv'],
        2,
    ),
    'torchvision': (
        partial(torchvision.models.VisionTransformer, 64, 16, 2, 2, 32, 64),
        ['in_proj', 'out_proj', 'mlp.0'],
        6,
    ),
    'transformers': (
        dict(model_name=dict(SMALL, model_type='dinov3_vit'), source='transformers'),
        ['q_proj', 'v_proj'],
        4,
    ),
    'lightly': (dict(model_name='test_vit', source='lightly'), ['qkv'], 6),
    'sam': (
        dict(
            model_name='samvit_base_patch16',
            more=dict(depth=2, embed_dim=96, num_heads=3, global_attn_indexes=(1,)),
        ),
        ['qkv'],
        2,
    ),
}
SMALL_WORDS = ('test', 'atto', 'nano', 'xxs', 'tiny', '_ti', 'xs', 'small', '_s', 'base')
READ = ['eva02', 'beit', 'swinv2', 'dinov3']  # their `qkv` is not called


def build(family, targets=None, **lora):
    options, own, _ = FAMILIES[family]
    return built(options, dict(lora, r=2, targets=own if targets is None else targets))


def built(options, lora=None):
    """A redrawn backbone."""
    if not isinstance(options, dict):
        return redraw(ViTFeatBackbone.from_module(options(), lora=lora)).eval()
    options = dict(options, source=options.get('source', 'timm'), img_size=64, lora=lora)
    if more := options.pop('more', None):
        options['source'] = partial(SOURCES[options['source']], more=more)
    return redraw(ViTFeatBackbone(**options)).eval()


def updates(vit):
    return {name: p for name, p in vit.named_parameters() if '.lora_B' in name}


def train(vit, size):
    """Two steps of a training whose updates start at zero."""
    for each in updates(vit).values():
        each.data.zero_()
    learning = [p for p in vit.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0)
    for _ in range(2):
        optimizer.zero_grad()
        sum(out.square().mean() for out in vit(images(*size))).backward()
        optimizer.step()


@pytest.mark.parametrize('family', FAMILIES)
def test_every_update_learns_and_acts(family):
    vit = build(family)
    train(vit, (64, 64))
    assert len(updates(vit)) == FAMILIES[family][2]
    assert [name for name, each in updates(vit).items() if not each.any()] == []


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
def test_merged_outputs_are_those_of_the_updates_in_a_plain_model(family):
    vit, x = build(family).double(), images(64, 64).double()
    before, copied = vit(x)[0], copy.deepcopy(vit)(x)[0]
    vit.merge_lora()
    plain = built(FAMILIES[family][0]).double()
    assert torch.equal(copied, before)
    assert (vit(x)[0] - before).abs().max() <= 1e-6 * before.abs().max()
    assert {n: t.shape for n, t in vit.state_dict().items()} == {
        n: t.shape for n, t in plain.state_dict().items()
    }
    plain.load_state_dict(vit.state_dict())
    assert torch.equal(plain(x)[0], vit(x)[0])


@torch.no_grad()
@pytest.mark.parametrize('family', [*READ, 'torchvision'])
def test_without_gradients_and_checkpointed_they_are_the_same(family):
    """PyTorch's attention has a fast path of its own in eval mode."""
    vit, x = build(family).double(), images(64, 64).double()
    before = vit(x)[0]
    with torch.enable_grad():
        assert (vit(x)[0] - before).abs().max() <= 1e-6 * before.abs().max()
        vit.source.set_checkpointing(vit.vit)
        again = vit.train()(x)[0]
        again.sum().backward()
    assert (again - before).abs().max() <= 1e-6 * before.abs().max()
    assert all(each.grad.any() for each in updates(vit).values())


@pytest.mark.parametrize('family', READ)
def test_dropout_is_refused_where_no_layer_has_inputs(family):
    message = (
        r'lora.dropout drops inputs of layers, and this model reads the weights of \d layers? .*qkv'
    )
    with pytest.raises(ValueError, match=message):
        build(family, targets=['qkv'], dropout=0.1)


def test_dropout_is_refused_in_pytorchs_attention():
    with pytest.raises(ValueError, match=r'4 layers .*out_proj, .*in_proj, .*: give dropout=0'):
        build('torchvision', targets=['out_proj', 'in_proj'], dropout=0.1)
    assert build('torchvision', targets=['mlp.0', 'mlp.3'], dropout=0.1)


def test_updates_on_which_no_output_depends_are_refused():
    vit = timm.create_model('test_vit', num_classes=0, dynamic_img_size=True)
    vit.blocks[1].attn.spare = nn.Linear(64, 64)
    vit.blocks[2].attn.spare = nn.Linear(64, 64)
    message = r'2 layers on which no output .*blocks.1.attn.spare, blocks.2.attn.spare\)'
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone.from_module(vit, lora=dict(targets=['spare']))
    with pytest.raises(ValueError, match=message):
        ViTFeatBackbone.from_module(vit, lora=dict(targets=['qkv', 'spare']))


@pytest.mark.parametrize(
    ('family', 'ends'),
    [
        ('torchvision', '0, 3, in_proj, out_proj'),
        ('transformers', 'down_proj, k_proj, o_proj, q_proj, up_proj, v_proj'),
    ],
)
def test_default_targets_of_other_libraries_are_answered_by_theirs(family, ends):
    with pytest.raises(ValueError, match=rf"holds 'qkv', and no .* here {ends}$"):
        built(FAMILIES[family][0], {})


@pytest.mark.slow
@pytest.mark.parametrize('module', timm.list_modules())
def test_every_update_learns_in_each_module_of_timm_or_is_refused(module):
    """All linear layers of a model that is small by its name."""
    names = timm.list_models(module=module) or pytest.skip('it has no models')
    name = min(names, key=lambda each: [word not in each for word in SMALL_WORDS])
    # hundreds of millions of parameters
    more = dict(depth=2) if module in ('deepseek_vit', 'gemma4_vit') else {}
    make = partial(ViTFeatBackbone, name, source=partial(SOURCES['timm'], more=more))
    try:
        plain = make()
    except ValueError:
        pytest.skip(f'the adapter does not take {name}')
    linear = [each for each, m in plain.vit.named_modules() if isinstance(m, nn.Linear)]
    ends = {each.rpartition('.')[2] for each in linear} or pytest.skip('it has no linear layer')
    try:
        vit = redraw(make(lora=dict(r=1, targets=ends)))
    except ValueError as refused:
        assert 'on which no output of this model depends' in str(refused)  # noqa: PT017
        return
    train(vit, vit.built_size)
    assert len(updates(vit)) == len(linear)
    assert [name for name, each in updates(vit).items() if not each.any()] == []
