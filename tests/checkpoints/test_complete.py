"""Every tensor of the model comes from the file, or the file is refused by the names it lacks."""

import logging
from functools import partial

import layouts
import pytest
import timm
import torch
from layouts import transformers_model, write
from mmengine.logging import MMLogger
from redraw import backbone, redraw, timm_vit
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import match
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.readout import PoolingError
from vit_backbones.sources.lightly_vit import build_lightly
from vit_backbones.sources.timm_build import build_timm
from vit_backbones.sources.torchvision_vit import wrap_torchvision
from vit_backbones.terminal import quiet_log

REGISTERS, DINOV3 = 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3'
PARTIAL = 'allow_partial=True loads the rest and leaves'
SWIN = dict(embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), img_size=64)


def torchvisions(name, options):
    """A small ViT of torchvision, whose own take seconds to build."""
    return wrap_torchvision(VisionTransformer(64, 16, 2, 2, 32, 64))


def transformers_options(kind):
    transformers = pytest.importorskip('transformers')
    size = dict(hidden_size=24, intermediate_size=24, num_hidden_layers=2, num_attention_heads=3)
    return dict(model_name=getattr(transformers, f'{kind}Config')(**size), source='transformers')


def plain(name, build=build_timm, depth=2, **options):
    more = dict(depth=depth, embed_dim=24, num_heads=3)
    return dict(model_name=name, source=partial(build, more=more), **options)


def saved(folder, without=(), file='a.pth', **options):
    """The file of a model's weights, without those tensors."""
    state = redraw(ViTFeatBackbone(**options)).vit.state_dict()
    assert set(without) <= state.keys()
    torch.save({n: t for n, t in state.items() if n not in without}, folder / file)
    return folder / file


# Options of a model, and a tensor that its file lacks
LACKING = {
    'attention': (plain('vit_tiny_patch16_224'), 'blocks.1.attn.qkv.weight'),
    'bias': (plain('vit_tiny_patch16_224'), 'blocks.1.mlp.fc1.bias'),
    'LayerScale': (plain(REGISTERS), 'blocks.1.ls1.gamma'),
    'registers': (plain(REGISTERS), 'reg_token'),
    'Eva': (plain(DINOV3), 'blocks.0.attn.proj.weight'),
    'registers of Eva': (plain(DINOV3), 'reg_token'),
    'LayerScale of Eva': (plain(DINOV3), 'blocks.1.gamma_2'),
    'lightly': (plain('vit_tiny_patch16_224', build_lightly), 'blocks.1.norm1.bias'),
    'torchvision': (
        dict(model_name='vit', source=torchvisions),
        'encoder.layers.encoder_layer_1.self_attention.in_proj_bias',
    ),
    'Swin': (
        dict(model_name='swin_tiny_patch4_window7_224', source=partial(build_timm, more=SWIN)),
        'layers.1.downsample.reduction.weight',
    ),
    'relative positions': (
        plain('vit_tiny_patch16_224', use_rel_pos=True),
        'blocks.1.attn.rel_pos_w',
    ),
}


def message(path, options, *names):
    total = len(ViTFeatBackbone(**options).vit.state_dict())
    listed = ', '.join(names)
    return (
        f"checkpoint '{path}' matches {total - len(names)} of {total} tensors; missing: {listed} "
        f'({PARTIAL} these random)'
    )


@pytest.mark.parametrize('case', LACKING)
def test_one_missing_tensor_is_refused_by_its_name(case, tmp_path):
    options, name = LACKING[case]
    path = saved(tmp_path, [name], **options)
    with pytest.raises(ValueError, match='missing') as caught:
        ViTFeatBackbone(checkpoint=path, **options)
    text = str(caught.value).replace(' (ViTDet keys)', '')
    assert text == message(path, options, name)


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('ViT', 'layers.1.attention.q_proj.bias'),
        ('Dinov2', 'encoder.layer.1.layer_scale2.lambda1'),
        ('DINOv3ViT', 'model.layer.0.norm2.weight'),
        ('CLIPVision', 'pre_layrnorm.bias'),
    ],
)
def test_so_it_is_for_models_of_transformers(kind, name, tmp_path):
    options = transformers_options(kind)
    path = saved(tmp_path, [name], **options)
    with pytest.raises(ValueError, match='missing') as caught:
        ViTFeatBackbone(checkpoint=path, **options)
    assert str(caught.value) == message(path, options, name)


def test_blocks_that_the_model_does_not_use_are_no_reason(tmp_path):
    """A file of a pruned model has fewer than the architecture."""
    options, name = plain('vit_tiny_patch16_224', out_indices=0), 'blocks.0.attn.qkv.weight'
    path = saved(tmp_path, [name], **options)
    with pytest.raises(ValueError, match='missing') as caught:
        ViTFeatBackbone(checkpoint=path, **options)
    assert str(caught.value) == message(path, options, name)


def test_init_cfg_refuses_it_too(tmp_path):
    options, name = LACKING['attention']
    path = saved(tmp_path, [name], **options)
    start = dict(type='Pretrained', checkpoint=str(path))
    vit = ViTFeatBackbone(init_cfg=start, **options)
    with pytest.raises(ValueError, match='missing') as caught:
        vit.init_weights()
    assert str(caught.value) == message(path, options, name)


def test_so_do_tools_that_run_a_backbone(tmp_path):
    """Two runs would give two models."""
    options = dict(model_name='test_vit')
    path = saved(tmp_path, ['blocks.3.attn.qkv.weight'], **options)
    with pytest.raises(ValueError, match='missing') as caught:
        load_backbone(Choice(model='test_vit', checkpoint=str(path)))
    assert str(caught.value) == message(path, options, 'blocks.3.attn.qkv.weight')


def test_one_block_of_many_is_refused(tmp_path):
    options = plain('vit_tiny_patch16_224', depth=24)
    state = ViTFeatBackbone(**options).vit.state_dict()
    names = [name for name in state if name.startswith('blocks.11.')]
    path = saved(tmp_path, names, **options)
    expected = r'matches 282 of 294 tensors; missing: blocks\.11\.norm1\.weight, .* and 2 more \('
    with pytest.raises(ValueError, match=expected):
        ViTFeatBackbone(checkpoint=path, **options)
    ViTFeatBackbone(checkpoint=path, out_indices=10, **options)


NORMS = {
    'timm': (plain('vit_tiny_patch16_224'), 'norm.weight, norm.bias'),
    'torchvision': (LACKING['torchvision'][0], 'encoder.ln.weight, encoder.ln.bias'),
}


@pytest.mark.parametrize('case', NORMS)
def test_a_missing_final_norm_is_refused_where_it_is_used(case, tmp_path):
    options, names = NORMS[case]
    path = saved(tmp_path, names.split(', '), **options)
    with pytest.raises(ValueError, match='no final norm') as caught:
        ViTFeatBackbone(checkpoint=path, **options)
    assert str(caught.value) == (
        f"checkpoint '{path}' has no final norm, which the model has as {names}: norm='none' "
        f'leaves it out, {PARTIAL} a random one'
    )
    for unused in (dict(norm='none'), dict(out_indices=0)):
        assert 'missing' not in ViTFeatBackbone(checkpoint=path, **unused, **options).load_report


def test_all_parts_that_it_can_run_without_are_named_together(tmp_path):
    """As files of ViTDet lack them."""
    options = plain('vit_tiny_patch16_224')
    path = saved(tmp_path, ['cls_token', 'norm.weight', 'norm.bias'], **options)
    expected = (
        r'has no CLS token and no final norm, which .* as cls_token, norm\.weight, norm\.bias: '
        r"with_cls_token=False and norm='none' leaves it out, allow"
    )
    with pytest.raises(ValueError, match=expected):
        ViTFeatBackbone(checkpoint=path, **options)
    ViTFeatBackbone(checkpoint=path, with_cls_token=False, norm='none', **options)


@pytest.mark.parametrize(
    'name', ['bn.num_batches_tracked', 'attn.attention_bias_idxs', 'attn.relative_position_index']
)
def test_what_the_library_computes_may_be_missing(name):
    model = {'bn.running_mean': torch.ones(2), 'w': torch.ones(3), name: torch.ones(2)}
    report = match({'w': torch.ones(3)}, model, patch_embed=None)
    assert (report.missing, report.total) == (['bn.running_mean'], 2)


# Damaged files of other projects: how they are written, and what is missing after their translation
DAMAGED = {
    'a bias of three': (
        lambda: transformers_model('ViT', intermediate_size=96, image_size=224).state_dict(),
        'layers.1.attention.q_proj.bias',
        'blocks.1.attn.qkv.bias',
    ),
    'a bias of one': (
        lambda: layouts.mmpretrain(timm_vit(depth=2, width=24).state_dict()),
        'layers.1.attn.qkv.bias',
        'blocks.1.attn.qkv.bias',
    ),
    'the bias of the patches': (
        lambda: layouts.mae(timm_vit(depth=2, width=24).state_dict()),
        'patch_embed.proj.bias',
        'patch_embed.proj.bias',
    ),
    'a LayerScale to be multiplied in': (
        lambda: layouts.mmpretrain(
            timm_vit('deit3_small_patch16_224', **layouts.SMALL).state_dict()
        ),
        'layers.1.attn.gamma1.weight',
        'blocks.1.attn.proj.weight, blocks.1.attn.proj.bias',
    ),
}


@pytest.mark.parametrize('case', DAMAGED)
def test_translation_fills_no_holes_of_damaged_files(case, tmp_path):
    build, name, missing = DAMAGED[case]
    weights = dict(build())
    if 'LayerScale' in case:  # its CLS token has no position
        weights['pos_embed'] = torch.ones(1, 197, 24)
    del weights[name]
    with pytest.raises(ValueError, match=f'missing: {missing}[ ;]'):
        layouts.load(weights, tmp_path)


def test_biases_that_a_layout_never_has_are_zero(tmp_path):
    weights = layouts.mmpretrain(timm_vit(depth=2, width=24).state_dict())
    kept = {name: t for name, t in weights.items() if not name.endswith('qkv.bias')}
    vit = layouts.load(kept, tmp_path)
    assert [int(block.attn.qkv.bias.abs().sum()) for block in vit.vit.blocks] == [0, 0]


def test_published_weights_that_lack_tensors_are_refused(monkeypatch):
    """timm is not strict about them without a classifier."""
    state = redraw(timm.create_model('test_vit')).state_dict()
    held = {name: t for name, t in state.items() if name != 'blocks.2.mlp.fc1.bias'}
    load = 'load_state_dict_from_hf'
    monkeypatch.setattr(timm.models._builder, load, lambda *args, **options: dict(held))
    with pytest.raises(RuntimeError) as caught:
        ViTFeatBackbone('test_vit', pretrained=True)
    assert str(caught.value).startswith(
        "no pretrained weights for 'test_vit': they lack 1 tensor: blocks.2.mlp.fc1.bias. Give "
    )
    held |= state
    vit = ViTFeatBackbone('test_vit', pretrained=True)
    assert torch.equal(vit.vit.blocks[2].mlp.fc1.bias, state['blocks.2.mlp.fc1.bias'])


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.levelname, record.getMessage()))


def test_partial_loading_warns_where_logs_are_quiet(tmp_path):
    options, name = LACKING['attention']
    path = saved(tmp_path, [name], **options)
    total = len(ViTFeatBackbone(**options).vit.state_dict())
    logger, kept = MMLogger.get_current_instance(), Lines()
    logger.addHandler(kept)
    with quiet_log():
        ViTFeatBackbone(checkpoint=path, allow_partial=True, **options)
    logger.removeHandler(kept)
    lacks = 'which the file lacks or holds otherwise'
    text = f'allow_partial=True leaves 1 tensor of {total} random, {lacks}: {name}'
    assert kept.lines == [('WARNING', f'{path}: {text}')]


@pytest.mark.parametrize('pool', ['model', 'attn'])
def test_a_missing_block_is_no_missing_pooling(pool, tmp_path):
    options = plain('vit_base_patch16_siglip_224', pool=pool)
    path = saved(tmp_path, ['blocks.1.attn.qkv.weight'], **options)
    with pytest.raises(ValueError, match='missing: blocks') as caught:
        ViTFeatBackbone(checkpoint=path, **options)
    assert not isinstance(caught.value, PoolingError)


# Another size


def test_another_width_names_the_model_to_take(tmp_path):
    path = write(timm_vit(depth=2).state_dict(), tmp_path)
    build = partial(build_timm, more=dict(depth=2))
    for partly in (False, True):
        with pytest.raises(ValueError, match='wide') as caught:
            ViTFeatBackbone(
                'vit_small_patch16_224', source=build, checkpoint=path, allow_partial=partly
            )
        assert str(caught.value) == (
            f"checkpoint '{path}' is of another size: the file is 192 wide, the model 384; "
            f"model_name='vit_tiny_patch16_224' is as wide as the file"
        )


@pytest.mark.parametrize('layout', [layouts.mae, layouts.mmpretrain, layouts.augreg])
def test_another_width_shows_through_other_layouts(layout, tmp_path):
    path = write(layout(timm_vit(depth=2, width=24).state_dict()), tmp_path)
    with pytest.raises(ValueError, match=r'another size: the file is 24 wide, the model 48$'):
        backbone(depth=2, width=48, checkpoint=path)


def test_another_width_of_other_architectures(tmp_path):
    wide = partial(build_timm, more=SWIN | dict(embed_dim=24))
    path = saved(tmp_path, model_name='swin_tiny_patch4_window7_224', source=wide)
    with pytest.raises(ValueError, match=r'another size: the file is 24 wide, the model 12'):
        ViTFeatBackbone(checkpoint=path, **LACKING['Swin'][0])
    path = tmp_path / 'tv.pth'
    torch.save(VisionTransformer(64, 16, 2, 2, 48, 64).state_dict(), path)
    with pytest.raises(ValueError, match=r'another size: the file is 48 wide, the model 32$'):
        ViTFeatBackbone('vit', source=torchvisions, checkpoint=path)


@pytest.mark.parametrize('kind', ['ViT', 'Dinov2', 'DINOv3ViT'])
def test_another_width_of_transformers(kind, tmp_path):
    options = transformers_options(kind)
    more = dict(hidden_size=48, intermediate_size=48, num_hidden_layers=3)
    path = write(transformers_model(kind, **more).state_dict(), tmp_path)
    expected = 'the file is 48 wide, the model 24, and the file has 3 blocks, the model 2$'
    with pytest.raises(ValueError, match=expected):
        ViTFeatBackbone(checkpoint=path, **options)


def test_another_depth_is_named(tmp_path):
    path = write(timm_vit(depth=2, width=24).state_dict(), tmp_path)
    expected = r'matches 30 of 54 tensors: the file has 2 blocks, the model 4; missing: blocks\.2\.'
    with pytest.raises(ValueError, match=expected):
        backbone(depth=4, width=24, checkpoint=path)
    assert len(backbone(depth=4, width=24, out_indices=1, checkpoint=path).vit.blocks) == 2
    path = write(timm_vit(depth=4, width=24).state_dict(), tmp_path)
    expected = r'holds 24 tensors that fit nowhere in the model: the file has 4 blocks, the model 2'
    with pytest.raises(ValueError, match=expected):
        backbone(depth=2, width=24, checkpoint=path)


def test_a_file_of_which_nothing_fits_is_refused_with_allow_partial_too(tmp_path):
    torch.save({'stem.weight': torch.ones(3)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'matches 0 of 30 tensors; missing: cls_token, '):
        backbone(depth=2, width=24, checkpoint=tmp_path / 'a.pth', allow_partial=True)
