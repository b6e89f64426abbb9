"""Published EoMT files as a start: every tensor lands, and the numbers are their models'."""

import re
from functools import partial

import pytest
import torch
from eomt_models import detector, images, no_training, segmenter
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints.eomt_keys import published
from vit_backbones.checks import preflight
from vit_backbones.heads import eomt_weights
from vit_backbones.models.random_weights import redraw
from vit_backbones.models.trained import load_trained
from vit_backbones.position import resample_positions
from vit_backbones.sources import SOURCES

DEPTH, SIDE, QUERIES, CLASSES = 3, 96, 5, 5
SIZES = dict(
    hidden_size=384,
    num_attention_heads=6,
    num_hidden_layers=DEPTH,
    num_blocks=2,
    num_queries=QUERIES,
    image_size=SIDE,
    num_labels=CLASSES,
)
NAMES = dict(v2='vit_small_patch14_reg4_dinov2', v3='vit_small_patch16_dinov3_qkvb')
MEAN = [0.485, 0.456, 0.406]


def reference(kind, seed=3):
    """transformers' model, redrawn, without masks in its attention."""
    if kind == 'v2':
        model = EomtForUniversalSegmentation(EomtConfig(**SIZES, patch_size=16))
    else:
        config = EomtDinov3Config(
            **SIZES, patch_size=16, intermediate_size=1536, layer_norm_eps=1e-5
        )
        model = EomtDinov3ForUniversalSegmentation(config)
    model = redraw(model, seed).eval()
    model.attn_mask_probs.zero_()
    return model


def vit_options(kind, source='timm', **options):
    if source == 'timm':
        build = partial(SOURCES['timm'], more=dict(depth=DEPTH))
        return dict(model_name=NAMES[kind], source=build, patch_size=16, img_size=SIDE) | options
    common = dict(hidden_size=384, num_hidden_layers=DEPTH, num_attention_heads=6)
    common |= dict(image_size=SIDE, patch_size=16, num_register_tokens=4)
    own = dict(
        v2=dict(model_type='dinov2_with_registers'),
        v3=dict(model_type='dinov3_vit', intermediate_size=1536),
    )
    return dict(model_name=common | own[kind], source='transformers') | options


def ours(kind, source='timm', build=detector, head=(), redrawn=True, **options):
    return build(head, backbone=vit_options(kind, source, **options), redrawn=redrawn).eval()


def tue(kind, model=None):
    """The same weights under the keys of tue-mps: DINOv2 of timm, DINOv3 of transformers."""
    theirs = (model or reference(kind)).state_dict()
    heads = [
        (r'^query\.', 'network.q.'),
        (r'^class_predictor\.', 'network.class_head.'),
        (r'^mask_head\.fc(\d)\.', lambda m: f'network.mask_head.{2 * int(m[1]) - 2}.'),
        (r'^upscale_block\.block\.(\d)\.layernorm2d\.', r'network.upscale.\1.norm.'),
        (r'^upscale_block\.block\.', 'network.upscale.'),
        (r'^attn_mask_probs', 'network.attn_mask_probs'),
    ]
    below, vit = 'network.encoder.backbone.', []
    if kind == 'v3':
        vit = [
            (r'^embeddings\.', f'{below}patch_embed.'),
            (r'^layers\.', f'{below}blocks.'),
            (r'^layernorm\.', f'{below}norm.'),
        ]
    found = {}
    for name, tensor in theirs.items():
        new = name
        for pattern, replacement in heads + vit:
            new = re.sub(pattern, replacement, new)
        if new.startswith(('network.', 'criterion.')):
            found[new] = tensor
    if kind == 'v2':
        own = ours('v2', checkpoint=None)
        own.load_state_dict(theirs, strict=False)
        found |= {f'{below}{name}': t for name, t in own.backbone.vit.state_dict().items()}
    found['network.encoder.pixel_mean'] = torch.tensor(MEAN).view(1, 3, 1, 1)
    found['network.encoder.pixel_std'] = torch.ones(1, 3, 1, 1)
    return found


FILES = dict(tue=tue, transformers=lambda kind: reference(kind).state_dict())


@torch.no_grad()
def logits(model, x):
    no_training()
    head = model.panoptic_head if hasattr(model, 'panoptic_head') else model.decode_head
    return tuple(each[-1] for each in head(model.extract_feat(x)))


@torch.no_grad()
def agree(model, kind):
    x = images(SIDE, SIDE)
    found, expected = logits(model, x), reference(kind)(x)
    expected = expected.class_queries_logits, expected.masks_queries_logits
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(found, expected, strict=True)
    )


@pytest.fixture
def lines(monkeypatch):
    """What a whole load logs."""
    found = []
    monkeypatch.setattr(eomt_weights, 'print_log', lambda text, **_: found.append(text))
    return found


# timm's keys, which tue-mps have with DINOv2, are not for models of transformers
CASES = [(kind, 'timm', file) for kind in NAMES for file in FILES]
CASES += [('v2', 'transformers', 'transformers'), ('v3', 'transformers', 'tue')]
CASES += [('v3', 'transformers', 'transformers')]


@pytest.mark.parametrize(('kind', 'source', 'file'), CASES)
def test_a_published_model_gives_its_numbers(kind, source, file, lines):
    model = ours(kind, source)
    assert not agree(model, kind)
    result = model.load_state_dict(FILES[file](kind), strict=False)
    assert result.unexpected_keys == []
    assert [name for name in result.missing_keys if not name.startswith('panoptic_head.loss')] == []
    assert agree(model, kind)
    line = lines[-1]
    number = re.match(r'EoMT: (tue-mps|transformers) EoMT keys, (\d+) of \2 tensors; not', line)
    assert number is not None, line


def test_a_segmentor_loads_it_too(lines):
    model = ours('v2', build=segmenter, head=dict(num_classes=CLASSES))
    model.load_state_dict(reference('v2').state_dict(), strict=False)
    assert agree(model, 'v2')
    assert lines[0].startswith('SegEoMT: transformers EoMT keys, ')


@pytest.mark.parametrize('suffix', ['.bin', '.ckpt', '.safetensors'])
def test_load_from_reads_their_files(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    if suffix == '.safetensors':
        save_file(reference('v2').state_dict(), path)
    else:
        tensors = tue('v2')
        torch.save(dict(state_dict=tensors) if suffix == '.ckpt' else tensors, path)
    model = ours('v2')
    load_checkpoint(model, str(path), map_location='cpu')
    assert agree(model, 'v2')


@pytest.mark.parametrize(('kind', 'source', 'file'), CASES)
def test_the_vit_of_it_is_a_checkpoint_of_the_backbone(kind, source, file, tmp_path):
    path = tmp_path / 'model.bin'
    torch.save(FILES[file](kind), path)
    vit = ViTFeatBackbone(**vit_options(kind, source, checkpoint=path)).eval()
    whole = ours(kind, source)
    whole.load_state_dict(reference(kind).state_dict(), strict=False)
    x = images(SIDE, SIDE)
    with torch.no_grad():
        assert torch.allclose(vit(x)[0], whole.backbone(x)[0], rtol=1e-5, atol=1e-5)
    total = len(vit.vit.state_dict())
    assert vit.load_report.startswith(f'loaded {total} of {total} tensors')


def test_positions_have_no_row_for_cls_and_fit_a_rectangle():
    theirs = reference('v2').state_dict()
    model = ours('v2', img_size=(64, 128))
    model.load_state_dict(theirs, strict=False)
    table = theirs['embeddings.position_embeddings.weight'][None]
    vit = model.backbone.vit
    expected = resample_positions(table, (6, 6), (4, 8))
    assert torch.equal(vit.pos_embed, expected)
    assert torch.equal(vit.cls_token, theirs['embeddings.cls_token'])


def test_patches_of_16_fit_a_model_of_14():
    model = ours('v2', patch_size=14, img_size=84)
    model.load_state_dict(reference('v2').state_dict(), strict=False)
    assert model.backbone.vit.patch_embed.proj.weight.shape[-2:] == (14, 14)
    theirs = reference('v2').state_dict()
    assert torch.equal(model.backbone.vit.norm.weight, theirs['layernorm.weight'])


def test_other_classes_and_queries_are_a_line_each(lines):
    model = ours('v2', head=dict(num_things_classes=9, num_queries=8))
    before = model.state_dict()
    own = {n: before[n].clone() for n in before if 'cls_embed' in n or 'query_embed' in n}
    model.load_state_dict(reference('v2').state_dict(), strict=False)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in own.items())
    assert lines[:2] == [
        'transformers EoMT: the file has 5 classes and the model 11: cls_embed stays as it is',
        'transformers EoMT: the file has 5 queries and the model 8: query_embed stays as it is',
    ]
    theirs = reference('v2').state_dict()
    assert torch.equal(after['panoptic_head.mask_embed.4.weight'], theirs['mask_head.fc3.weight'])


def test_a_model_without_the_biases_is_told_which_has_them(monkeypatch):
    monkeypatch.setitem(NAMES, 'v3', 'vit_small_patch16_dinov3')
    with pytest.raises(
        ValueError, match=r'attn.qkv.bias; model_name=.vit_small_patch16_dinov3_qkvb'
    ):
        ours('v3').load_state_dict(reference('v3').state_dict(), strict=False)


def test_names_of_compiled_models_count_as_the_others():
    compiled = {n.replace('network.', 'network._orig_mod.'): t for n, t in tue('v3').items()}
    assert published(compiled).vit.keys() == published(tue('v3')).vit.keys()


def test_own_files_load_as_before(lines):
    one, two = ours('v2'), ours('v2')
    redraw(one, 5)
    assert two.load_state_dict(one.state_dict()).missing_keys == []
    assert torch.equal(two.backbone.vit.norm.weight, one.backbone.vit.norm.weight)
    assert lines == []


def base_and_delta():
    """A backbone's weights, and a file that makes transformers' model of them."""
    whole, generator = tue('v3'), torch.Generator().manual_seed(0)
    base = {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in whole.items()
        if '.backbone.' in name
    }
    delta = {name: tensor - base.get(name, 0) for name, tensor in whole.items()}
    delta['network.encoder.pixel_mean'] = torch.zeros(1, 3, 1, 1)
    return whole | base, delta


@pytest.mark.parametrize('source', ['timm', 'transformers'])
def test_a_delta_is_added_to_the_weights_of_the_backbone(source, tmp_path, lines):
    base, delta = base_and_delta()
    torch.save(base, tmp_path / 'base.bin')
    model = ours('v3', source, checkpoint=tmp_path / 'base.bin', redrawn=False)
    assert not agree(model, 'v3')
    model.load_state_dict(delta, strict=False)
    assert agree(model, 'v3')
    assert ', added to those of the backbone; not needed: ' in lines[0]


CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['vit_backbones.mmdet'])
model = dict(
    type='EoMT',
    backbone=dict(type='ViTFeatBackbone', checkpoint='{base}', **{vit}),
    panoptic_head=dict(
        type='EoMTHead', num_things_classes=3, num_stuff_classes=2, num_queries=5, num_blocks=2,
    ),
)
"""


def test_a_delta_is_ready_to_predict_with(tmp_path):
    """Other files need no weights that the training started from."""
    base, delta = base_and_delta()
    for name, tensors in (('base', base), ('delta', delta), ('whole', tue('v3'))):
        torch.save(tensors, tmp_path / f'{name}.bin')
    config, vit = tmp_path / 'eomt.py', vit_options('v3', 'transformers')
    config.write_text(CONFIG.format(base=tmp_path / 'base.bin', vit=vit))
    model = load_trained(str(config), str(tmp_path / 'delta.bin'), device='cpu').model
    assert agree(model, 'v3')
    (tmp_path / 'base.bin').unlink()
    model = load_trained(str(config), str(tmp_path / 'whole.bin'), device='cpu').model
    assert agree(model, 'v3')


def test_a_delta_without_its_base_is_one_line(tmp_path):
    _, delta = base_and_delta()
    model = ours('v3', redrawn=False)
    with pytest.raises(ValueError, match='differences') as caught:
        model.load_state_dict(delta, strict=False)
    assert str(caught.value) == (
        'the file holds differences to the weights of DINOv3, and the backbone '
        "'vit_small_patch16_dinov3_qkvb' has none to add them to: build it with checkpoint=FILE "
        "of Meta's weights, or pretrained=True"
    )


def test_a_delta_is_no_checkpoint_of_a_backbone(tmp_path):
    _, delta = base_and_delta()
    torch.save(delta, tmp_path / 'delta.bin')
    with pytest.raises(ValueError, match='as differences to the weights of DINOv3, not weights: '):
        ViTFeatBackbone(**vit_options('v3', checkpoint=tmp_path / 'delta.bin'))


def test_a_file_that_does_not_show_what_it_holds_is_refused():
    _, delta = base_and_delta()
    del delta['network.encoder.pixel_mean']
    with pytest.raises(ValueError, match='pixel_mean') as caught:
        published(delta)
    assert str(caught.value) == (
        'holds an EoMT of tue-mps on DINOv3 without network.encoder.pixel_mean, which is 0 in '
        "files of differences to DINOv3's weights and ImageNet's mean in files of weights: add it"
    )


def test_the_checks_find_nothing_in_a_published_file(tmp_path):
    for name, tensors in (('a', tue('v2')), ('b', dict(state_dict=tue('v2')))):
        torch.save(tensors, tmp_path / f'{name}.bin')
        found = list(preflight.fit_findings(ours('v2'), str(tmp_path / f'{name}.bin')))
        assert found == []


def test_the_checks_find_a_delta_without_its_base(tmp_path):
    base, delta = base_and_delta()
    for name, tensors in (('base', base), ('delta', delta)):
        torch.save(tensors, tmp_path / f'{name}.bin')
    path = str(tmp_path / 'delta.bin')
    model = ours('v3', checkpoint=tmp_path / 'base.bin', redrawn=False)
    assert list(preflight.fit_findings(model, path)) == []
    (finding,) = preflight.fit_findings(ours('v3', redrawn=False), path)
    assert finding.level == 'error'
    assert 'the file holds differences to the weights of DINOv3, and the backbone' in finding.text
