"""No argument is without effect in silence: it acts, is refused, or is logged."""

import re
from functools import partial

import pytest
import timm
import torch
from _comparison import architectures
from redraw import error, images, redraw
from slow import few

from vit_backbones import ViTFeatBackbone, backbone, weights
from vit_backbones.sources.timm_build import build_timm

SMALL = dict(depth=2, embed_dim=24, num_heads=3)
SAM = 'samvit_base_patch16'
# Of timm's families those that are quick to build; each another kind of size, positions and stem
QUICK = [
    ('test_vit', {}),
    ('beit_base_patch16_224', SMALL),
    ('deepseek_vit_412m', dict(depth=2)),
    ('csatv2', dict(depths=(2,) * 4)),
    ('vit_tiny_patch16_dinov3_qkvb', SMALL),
    ('convit_tiny', SMALL),
    (SAM, SMALL | dict(img_size=256)),
    ('vit_tiny_r_s16_p8_224', SMALL),
    ('vit_relpos_small_patch16_224', SMALL),
]
SMALLER = [
    dict(depth=2),
    dict(depths=(1,) * 4),
    dict(layers=(1,) * 4),
    dict(stages=(1,) * 4),
    {},
]
OPTIONS = dict(
    img_size=(448, 448),
    patch_size=(32, 32),
    in_channels=4,
    drop_path_rate=0.3,
    frozen_stages=0,
    with_cp=True,
    pos_interp='original',
)


def built(name, more, **options):
    """A backbone without values."""
    with torch.device('meta'):
        return ViTFeatBackbone(name, source=partial(build_timm, more=more), **options)


def state(vit):
    """All by which a model of other options may differ: shapes, kinds, what learns, what runs."""
    tensors = {name: (tuple(t.shape), t.requires_grad) for name, t in vit.named_parameters()}
    kinds = [(type(m).__name__, getattr(m, 'drop_prob', 0)) for m in vit.modules()]
    ways = vit.source.interpolation(vit.vit, vit.pos_interp)
    return tensors, kinds, vit.fixed_size, vit.built_size, dict(ways), kept(vit)


def kept(vit):
    """Values that a forward pass keeps for the backward pass."""
    numbers = []

    def count(tensor):
        numbers.append(0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        vit.train()(torch.zeros(1, vit.in_channels, *(vit.fixed_size or (224, 224)), device='meta'))
    return sum(numbers)


def idle(name, more, log):
    """Arguments that change nothing and of which nothing is said."""
    before, found = state(built(name, more)), []
    for option, value in OPTIONS.items():
        del log[:]
        try:
            vit = built(name, more, **{option: value})
        except ValueError:
            continue
        told = [line for line in log if option in line and re.search('nothing', line)]
        if not told and state(vit) == before:
            found.append(option)
    return found


@pytest.fixture
def log(monkeypatch):
    lines = []
    for module in (backbone, weights):
        monkeypatch.setattr(module, 'print_log', lambda line, **options: lines.append(line))
    return lines


@pytest.mark.parametrize(
    ('name', 'more'),
    few(
        QUICK,
        'test_vit',
        'beit_base_patch16_224',
        'convit_tiny',
        'vit_tiny_r_s16_p8_224',
        'vit_relpos_small_patch16_224',
    ),
    ids=[name for name, _ in QUICK],
)
def test_every_argument_acts_or_is_answered(name, more, log):
    assert idle(name, more, log) == []


def smallest():
    """The first small architecture of each of timm's modules, the tests' own before others."""
    names = {}
    for module, name in architectures():
        names.setdefault(module, []).append(name)
    small = ('test_', 'xxs', 'nano', 'tiny', '_ti_', '_t', 'atto', 'pico', 'small', '_s', 's0')
    for module, each in names.items():
        yield module, next((n for part in small for n in each if part in n), each[0])


@pytest.mark.slow
@pytest.mark.parametrize(('module', 'name'), smallest())
def test_every_argument_acts_or_is_answered_in_every_family(module, name, log):
    if module == 'gemma4_vit':
        pytest.skip('it looks into its tensors, which have no values here')
    for more in SMALLER:
        try:
            with torch.device('meta'):
                timm.create_model(name, **more)
            break
        except (TypeError, ValueError, AssertionError, IndexError, StopIteration):
            continue
    assert idle(name, more, log) == []


@torch.no_grad()
@pytest.mark.parametrize('size', [(192, 256), (96, 96)])
def test_sams_tables_are_built_for_img_size(size):
    """They stayed at 64x64, and so did those of `set_input_size`."""
    more = SMALL | dict(img_size=256, global_attn_indexes=[1], window_size=6)
    build = partial(build_timm, more=more)
    native = redraw(ViTFeatBackbone(SAM, source=build, out_indices=(0, 1))).eval()
    vit = ViTFeatBackbone(SAM, source=build, out_indices=(0, 1), img_size=size).eval()
    rows, columns = size[0] // 16, size[1] // 16
    assert vit.built_size == size
    assert vit.vit.pos_embed.shape == (1, rows, columns, 24)
    tables = {n: len(p) for n, p in vit.vit.named_parameters() if 'rel_pos' in n}
    assert list(tables.values()) == [11, 11, 2 * rows - 1, 2 * columns - 1]
    vit.load_state_dict(native.state_dict())
    x = images(*size)
    expected = native(x)
    assert [error(a, b) <= 1 for a, b in zip(vit(x), expected, strict=True)] == [True, True]
    native.set_input_size(size)
    assert native.built_size == size
    assert [error(a, b) <= 1 for a, b in zip(native(x), expected, strict=True)] == [True, True]


def test_models_without_a_table_are_built_for_img_size():
    """It is the size for which they are exported."""
    vit = built('vit_tiny_patch16_dinov3_qkvb', SMALL, img_size=(250, 320))
    assert vit.built_size == (256, 320)
    vit.set_input_size((64, 90))
    assert vit.built_size == (64, 96)


def test_no_embeddings_to_freeze_are_refused():
    with pytest.raises(ValueError, match=r'^frozen_stages=0 freezes nothing: MaxxVit has no layer'):
        built('test_coatnet', {}, frozen_stages=0)


def test_defaults_are_not_commented_on(log):
    built('vit_tiny_patch16_dinov3_qkvb', SMALL)
    assert not [line for line in log if 'nothing' in line]


def test_relative_positions_are_for_img_size_without_other_tables(log):
    vit = built('vit_tiny_patch16_dinov3_qkvb', SMALL, img_size=256, use_rel_pos=True)
    assert vit.vit.blocks[0].attn.rel_pos_h.shape == (31, 8)
    assert not [line for line in log if 'nothing' in line]


def test_the_patch_embedding_below_an_encoder_is_no_block():
    vit = built('deepseek_vit_412m', dict(depth=1), frozen_stages=0)
    frozen = [name for name, p in vit.vit.named_parameters() if not p.requires_grad]
    assert frozen == ['encoder.patch_embed.proj.weight', 'encoder.patch_embed.proj.bias']


@pytest.mark.parametrize('out_type', ['cls', 'raw', 'avg_featmap'])
@pytest.mark.parametrize(('name', 'value'), [('cls_readout', 'add'), ('out_stride', 8)])
def test_options_of_maps_are_refused_for_other_outputs(name, value, out_type):
    message = (
        f"{name}={value!r} is for out_type='featmap' and changes nothing for "
        f'out_type={out_type!r}: leave it out'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        built('test_vit', {}, out_type=out_type, **{name: value})
