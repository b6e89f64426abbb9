"""`joint` in use: what it refuses, frozen and recomputed blocks, compiled and exported models."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from redraw import backbone, images, redraw
from torch import nn
from torch.utils import checkpoint

from vit_backbones import ViTFeatBackbone
from vit_backbones.benchmark.counting import counted
from vit_backbones.sources import SOURCES

QUERIES, JOINT = 6, 2
SMALL = dict(depth=4, width=48)
INSTEAD = 'PlainMaskHead (SegPlainMaskHead in mmseg) takes the maps of any backbone'
HF = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)


def ready(*args, num_blocks=JOINT, **options):
    vit = backbone(*args, **{**SMALL, **options})
    vit.prepare_joint(num_blocks)
    return vit


def queries(vit):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(QUERIES, vit.embed_dims, generator=generator)


def half(index, joint):
    """Every second patch."""
    batch, patches = joint.tokens.patches.shape[:2]
    mask = torch.arange(patches, device=joint.extra.device) % 2 == index % 2
    return mask.expand(batch, joint.extra.shape[1], -1)


def refusal(vit, num_blocks=JOINT):
    with pytest.raises(ValueError, match=r'queries|num_blocks') as caught:
        vit.prepare_joint(num_blocks)
    return str(caught.value)


def of_transformers(model_type, **options):
    pytest.importorskip('transformers')
    config = {**HF, 'model_type': model_type, 'patch_size': 16, **options}
    return ViTFeatBackbone(config, source='transformers')


# Refusals


def block_by_block(kind):
    return f'{kind} does not run here block by block, as plain ViTs do, {NO_QUERIES}'


NO_QUERIES = f'so that no queries run in its blocks: {INSTEAD}'
RELATIVE = f'has relative positions, which queries lack, {NO_QUERIES}'
SWIN = dict(embed_dim=16, depths=[1, 1], num_heads=[2, 4], patch_size=4, window_size=7)
TIMM_SWIN = dict(embed_dim=24, depths=(1, 1), num_heads=(1, 1))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: ViTFeatBackbone(
                'swin_tiny_patch4_window7_224', source=partial(SOURCES['timm'], more=TIMM_SWIN)
            ),
            block_by_block('SwinTransformer'),
        ),
        (lambda: ViTFeatBackbone('hiera_tiny_224'), block_by_block('Hiera')),
        (
            lambda: backbone('beit_base_patch16_224', depth=2, width=48),
            block_by_block('Beit'),
        ),
        (
            lambda: backbone('samvit_base_patch16', depth=2, width=48),
            block_by_block('VisionTransformerSAM'),
        ),
        (
            lambda: backbone('vit_small_patch16_18x2_224', depth=2, width=48),
            f'ParallelThingsBlock has no attention layer that can run queries: {INSTEAD}',
        ),
        (
            lambda: ViTFeatBackbone(dict(SWIN, model_type='swin'), source='transformers'),
            f'SwinModel has stages with windows, {NO_QUERIES}',
        ),
        (
            lambda: of_transformers('beit', intermediate_size=64, image_size=64),
            f'BeitModel {RELATIVE}',
        ),
        (
            lambda: of_transformers('vitdet', pretrain_image_size=64, window_size=2),
            f'VitDetModel {RELATIVE}',
        ),
        (
            lambda: of_transformers('clip_vision_model', intermediate_size=64, image_size=64),
            "queries and masks are read after the final norm, and 'CLIPVisionModel' has no final "
            f'norm of its own; {INSTEAD}',
        ),
        (
            lambda: backbone('eva02_tiny_patch14_224', depth=2),
            "queries and masks are read after the final norm, and 'eva02_tiny_patch14_224' has no "
            f'final norm of its own; {INSTEAD}',
        ),
    ],
)
def test_models_that_run_no_queries_are_refused_by_name(make, message):
    assert refusal(make(), 1) == message


WINDOWS = dict(window_size=2, window_block_indexes=(0, 2))
LAST = 'but queries run through blocks 2 to 3, which then attend to everything: leave it out there'
READ = 'queries run through the last block and are read there: leave'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (WINDOWS, f'window_block_indexes holds 2, {LAST}; {INSTEAD}'),
        (dict(use_rel_pos=True, img_size=64), f'use_rel_pos=True, {LAST}; {INSTEAD}'),
        (dict(mask_padding=True), f'mask_padding=True, {LAST}; {INSTEAD}'),
        (
            dict(out_indices=(1, 3)),
            f'out_indices=(1, 3): {READ} out_indices at -1, block 3; {INSTEAD}',
        ),
        (dict(out_indices=2), f'out_indices=(2,): {READ} out_indices at -1, block 3; {INSTEAD}'),
        (dict(out_type='raw'), f"out_type='raw': {READ} out_type at 'featmap'; {INSTEAD}"),
        (dict(pool='avg'), f"pool='avg': {READ} pool at None; {INSTEAD}"),
        (
            dict(cls_readout='add'),
            f"cls_readout='add': {READ} cls_readout at 'ignore'; {INSTEAD}",
        ),
        (dict(out_stride=8), f'out_stride=8: {READ} out_stride at None; {INSTEAD}'),
        (
            dict(norm='none'),
            "queries and masks are read after the final norm, and 'vit_tiny_patch16_224' has none "
            f"with norm='none': leave norm at 'last'; {INSTEAD}",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_go_with_queries_are_refused(options, message):
    assert refusal(backbone(**SMALL, **options)) == message


@pytest.mark.parametrize('num_blocks', [0, 5])
def test_there_are_as_many_blocks_with_queries_as_the_model_has(num_blocks):
    assert refusal(backbone(**SMALL), num_blocks) == (
        f"num_blocks must be in [1, 4], blocks of 'vit_tiny_patch16_224', got {num_blocks}"
    )


@pytest.mark.parametrize(('prepared', 'shown'), [(0, 0), (1, 1)])
def test_blocks_are_prepared_first(prepared, shown):
    vit = backbone(**SMALL)
    if prepared:
        vit.prepare_joint(prepared)
    with pytest.raises(ValueError, match='ready') as caught:
        vit.joint(images(32, 32), queries(vit), JOINT)
    assert str(caught.value) == (
        f'num_blocks=2, and {shown} blocks are ready for queries: call prepare_joint(2) first, '
        f'which stops drop path'
    )


def test_images_of_other_channels_are_refused():
    vit = ready()
    with pytest.raises(ValueError, match=r'images must be \(B, 3, H, W\), got \(1, 4, 32, 32\)'):
        vit.joint(images(32, 32, channels=4), queries(vit), JOINT)


@torch.no_grad()
def test_windows_in_earlier_blocks_change_their_outputs_only():
    options = dict(window_size=2, window_block_indexes=(0, 1))
    whole, windowed = ready(), ready(**options)
    windowed.load_state_dict(whole.state_dict())
    x, extra = images(96, 96), queries(whole)
    found, other = windowed.joint(x, extra, JOINT, half), whole.joint(x, extra, JOINT, half)
    assert (found.extra - other.extra).abs().max() > 0.1
    covering = ready(window_size=6, window_block_indexes=(0, 1))
    covering.load_state_dict(whole.state_dict())
    torch.testing.assert_close(covering.joint(x, extra, JOINT, half), other)


# Attention that no mask reaches


def test_fused_attention_that_is_turned_off_is_turned_on():
    vit = backbone(**SMALL)
    for block in vit.vit.blocks:
        block.attn.fused_attn = False
    vit.prepare_joint(JOINT)
    assert [block.attn.fused_attn for block in vit.vit.blocks] == [False, False, True, True]


def test_fused_attention_that_is_turned_off_later_is_refused():
    vit = ready()
    vit.vit.blocks[3].attn.fused_attn = False
    with pytest.raises(ValueError, match='attention of Block: it computes its attention by itself'):
        vit.joint(images(32, 32), queries(vit), JOINT, half)


@torch.no_grad()
def test_eager_attention_of_transformers_follows_the_mask():
    fused = redraw(of_transformers('dinov2')).eval()
    eager = copy.deepcopy(fused)
    eager.vit.set_attn_implementation('eager')
    outputs = []
    for vit in (fused, eager):
        vit.prepare_joint(JOINT)
        outputs.append(vit.joint(images(64, 96), queries(vit), JOINT, half).extra)
    assert torch.equal(*outputs)
    unmasked = fused.joint(images(64, 96), queries(fused), JOINT).extra
    assert (outputs[0] - unmasked).abs().max() > 0.1


def test_a_layer_of_transformers_with_a_mask_of_its_own_is_refused():
    vit = redraw(of_transformers('dinov2')).eval()
    vit.prepare_joint(JOINT)
    for layer in vit.vit.encoder.layer:
        layer.attention.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, 'attention_mask': torch.ones(1).bool()}),
            with_kwargs=True,
        )
    with pytest.raises(ValueError, match='attention of Dinov2Layer: it has a mask of its own'):
        vit.joint(images(64, 96), queries(vit), JOINT, half)


# Training


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'vit_small_patch14_reg4_dinov2'])
def test_blocks_with_queries_drop_no_path(name):
    vit = ready(name, drop_path_rate=0.9).train()
    rates = [
        [m.drop_prob for m in block.modules() if hasattr(m, 'drop_prob')]
        for block in vit.vit.blocks
    ]
    assert rates[1:] == [[pytest.approx(0.3)] * 2, [0, 0], [0, 0]]


@torch.no_grad()
def test_transformers_blocks_with_queries_drop_no_path():
    pytest.importorskip('transformers')
    config = dict(HF, model_type='dinov2', patch_size=16)
    vit = redraw(ViTFeatBackbone(config, source='transformers', drop_path_rate=0.9))
    vit.prepare_joint(JOINT)
    x, extra = images(64, 64), queries(vit)
    found, again = (vit.train().joint(x, extra, JOINT).extra for _ in range(2))
    assert torch.equal(found, again)
    assert torch.equal(found, vit.eval().joint(x, extra, JOINT).extra)


def test_queries_learn_through_a_frozen_model():
    vit = ready(frozen_stages=4).train()
    extra = queries(vit).requires_grad_()
    out = vit.joint(images(64, 96), extra, JOINT, half)
    out.extra.sum().backward()
    assert extra.grad.abs().max() > 1e-3
    assert all(p.grad is None for p in vit.parameters())


@pytest.mark.parametrize(('frozen_stages', 'first'), [(0, 0), (1, 1), (3, 3), (4, 5)])
def test_blocks_that_are_not_frozen_learn(frozen_stages, first):
    vit = ready(frozen_stages=frozen_stages).train()
    extra = queries(vit).requires_grad_()
    vit.joint(images(64, 96), extra, JOINT, half).extra.square().sum().backward()
    learn = {vit.source.layer_of(n, 4) for n, p in vit.vit.named_parameters() if p.grad is not None}
    assert learn == set(range(first + 1, 6))
    assert extra.grad.abs().max() > 1e-3


def test_the_first_blocks_keep_nothing_where_all_is_frozen():
    vit = ready(num_blocks=1).train()
    vit.learns = False  # as where FSDP joins frozen parameters with those of a head
    graphs = []
    for block in vit.vit.blocks:
        block.register_forward_hook(lambda block, args, out: graphs.append(out.requires_grad))
    vit.joint(images(64, 96), queries(vit).requires_grad_(), 1, half)
    assert graphs == [False, False, False, True]


def test_an_existing_model_stays_as_it_is():
    pytest.importorskip('transformers')
    from transformers import Dinov2Config, Dinov2Model

    options = dict(HF, drop_path_rate=0.4, attn_implementation='eager')
    model = Dinov2Model(Dinov2Config(**options))
    ViTFeatBackbone.from_module(model).prepare_joint(JOINT)
    assert model.config._attn_implementation == 'eager'
    assert [layer.drop_path.drop_prob for layer in model.encoder.layer] == [0.4, 0.4]


@pytest.mark.parametrize('frozen_stages', [3, 4])
def test_frozen_blocks_with_queries_are_reported(frozen_stages, log):
    ready(frozen_stages=frozen_stages)
    assert log == [
        f'frozen_stages={frozen_stages} of 4 blocks: the last 2 run queries, and those that are '
        f'frozen do not learn to'
    ]


def test_other_frozen_blocks_are_not_reported(log):
    ready(frozen_stages=2)
    assert log == []


@pytest.mark.parametrize('masked', [None, half])
def test_with_cp_recomputes_all_blocks_and_gives_equal_gradients(masked, monkeypatch):
    calls, inner = [], checkpoint.checkpoint
    monkeypatch.setattr(
        checkpoint, 'checkpoint', lambda *args, **kw: calls.append(1) or inner(*args, **kw)
    )
    gradients = []
    for with_cp in (False, True):
        vit = ready(with_cp=with_cp).train()
        extra = queries(vit).requires_grad_()
        vit.joint(images(64, 96), extra, JOINT, masked).extra.square().sum().backward()
        gradients.append([extra.grad, *(p.grad for p in vit.parameters())])
    assert len(calls) == 4
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('targets', [('qkv',), ('in_proj', 'out_proj')])
def test_lora_learns_in_blocks_with_queries(targets, log):
    pytest.importorskip('peft')
    options = dict(lora=dict(r=2, targets=targets), frozen_stages=2)
    if targets == ('qkv',):
        vit = backbone(**SMALL, **options)
    else:
        inner = torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64)
        vit = redraw(ViTFeatBackbone.from_module(inner, **options))
    vit.train().prepare_joint(JOINT)
    vit.joint(images(64, 96), queries(vit), JOINT, half).extra.square().sum().backward()
    learning = [name for name, p in vit.named_parameters() if p.grad is not None]
    assert learning == [name for name, p in vit.named_parameters() if p.requires_grad]
    assert len(learning) == 4 * len(targets) * (2 if len(targets) == 1 else 1)
    assert log == []


@torch.no_grad()
def test_merged_lora_gives_the_same():
    pytest.importorskip('peft')
    vit = ready(lora=dict(r=2))
    before = vit.joint(images(64, 96), queries(vit), JOINT, half).extra
    vit.merge_lora()
    after = vit.joint(images(64, 96), queries(vit), JOINT, half).extra
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_blocks_are_called_by_their_forward():
    """As FSDP needs, which gathers a block's parameters before it."""
    vit, called = ready(), []
    for index, block in enumerate(vit.vit.blocks):
        block.register_forward_pre_hook(lambda block, args, index=index: called.append(index))
    vit.joint(images(64, 96), queries(vit), JOINT, half)
    assert called == [0, 1, 2, 3]


@torch.no_grad()
def test_a_copy_runs_as_the_original():
    vit = ready()
    args = images(64, 96), queries(vit), JOINT, half
    assert torch.equal(copy.deepcopy(vit).joint(*args).extra, vit.joint(*args).extra)


@torch.no_grad()
def test_sizes_leave_nothing_behind():
    vit = ready('vit_tiny_patch16_dinov3_qkvb', width=None)
    args = images(64, 96), queries(vit), JOINT, half
    before, maps = vit.joint(*args).extra, vit(images(64, 96))[0]
    vit.joint(images(50, 40, batch=3), queries(vit)[:4], JOINT, half)
    assert torch.equal(vit.joint(*args).extra, before)
    assert torch.equal(vit(images(64, 96))[0], maps)


# Compiled and exported

NAMES = ['vit_small_patch14_reg4_dinov2', 'vit_tiny_patch16_dinov3_qkvb', 'torchvision', 'lightly']


def prepared(name):
    if name == 'torchvision':
        vit = torchvision.models.VisionTransformer(64, 16, 3, 2, 32, 64)
        vit = redraw(ViTFeatBackbone.from_module(vit))
    elif name == 'lightly':
        vit = redraw(ViTFeatBackbone('test_vit', source='lightly'))
    else:
        vit = backbone(name, depth=3, **({} if 'dinov3' in name else dict(width=48)))
    vit.eval().prepare_joint(JOINT)
    return vit


def values_and_gradients(vit, masked):
    vit.zero_grad()
    extra = queries(vit).requires_grad_()
    out = vit.joint(images(64, 96), extra, JOINT, masked).extra
    out.square().mean().backward()
    return [out, extra.grad, *(p.grad.clone() for p in vit.parameters() if p.requires_grad)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'masked'),
    [*((name, None) for name in NAMES), (NAMES[1], half), ('torchvision', half)],
)
def test_compiled_in_one_graph_it_gives_the_same(name, masked):
    vit = prepared(name)
    expected = values_and_gradients(vit, masked)
    vit.compile(fullgraph=True, backend='aot_eager')  # as training does, of `__call__`
    torch.testing.assert_close(values_and_gradients(vit, masked), expected, rtol=1e-4, atol=1e-4)


class Joint(nn.Module):
    """A backbone with queries, as whole models hold it."""

    def __init__(self, vit, masked=None):
        super().__init__()
        self.vit, self.masked = vit, masked
        self.extra = nn.Parameter(queries(vit))

    def forward(self, x):
        joint = self.vit.joint(x, self.extra, JOINT, self.masked)
        return joint.extra, joint.tokens.patches


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_traced_it_gives_the_same(name):
    model = Joint(prepared(name))
    traced = torch.jit.trace(model, images(64, 96))
    x = images(64, 96, batch=2)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize('masked', [None, half])
@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_exported_it_gives_the_same(name, masked):
    model, x = Joint(prepared(name), masked), images(64, 96)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


@pytest.mark.parametrize('masked', [None, half])
@pytest.mark.parametrize('name', NAMES)
def test_a_gpu_waits_for_nothing(name, masked):
    model, x = Joint(prepared(name), masked), images(64, 96)
    model(x)  # tables that depend on the size

    def step():
        model(x)[0].square().mean().backward()

    assert counted(step).waits == {}
