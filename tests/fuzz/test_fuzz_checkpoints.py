"""Any file of weights: true ones in many layouts, with changes that do no harm and that do."""

import math
from functools import cache, partial

import layouts
import numpy as np
import pytest
import torch
from fuzzing import Fuzz, is_finite, one
from hypothesis import strategies as st
from redraw import timm_vit
from safetensors.torch import save_file

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.timm_build import build_timm

SIZES = dict(depth=2, embed_dim=24, num_heads=3)
# Model by layout, and how its keys are written
LAYOUTS = {
    'timm': ('vit_tiny_patch16_224', dict),
    'Meta DINOv2': ('vit_small_patch14_dinov2', layouts.meta_dinov2),
    'Meta DINOv2 registers': ('vit_small_patch14_reg4_dinov2', layouts.meta_dinov2),
    'Meta DINOv3': ('vit_small_patch16_dinov3', layouts.meta_dinov3),
    'EVA': ('eva02_tiny_patch14_224', layouts.eva),
    'MAE': ('vit_tiny_patch16_224', layouts.mae),
    'mmpretrain': ('vit_tiny_patch16_224', layouts.mmpretrain),
    'OpenCLIP': ('vit_base_patch16_clip_224', layouts.openclip),
    'big_vision': ('vit_tiny_patch16_224', layouts.augreg),
}
PREFIXES = one(
    '', 'module.', 'backbone.', 'model.', 'backbone.vit.', 'teacher.backbone.', 'foo.bar.'
)
SECTIONS = one((), ('state_dict',), ('model',), ('teacher',), ('model', 'state_dict'), ('ema',))
EXTRAS = one({}, {'epoch': 3}, {'optimizer': {'lr': 0.1}, 'args': None}, {'best': math.nan})
HARM = (
    *('drop', 'rename', 'reshape', 'flat', 'scalar', 'empty', 'dtype', 'meta', 'nan', 'object'),
    *('double', 'widen', 'prefix', 'key', 'expand', 'sparse', 'transpose', 'more', 'block', 'cut'),
)
DTYPES = one(
    *(torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool),
    *(torch.complex64, torch.float8_e4m3fn),
)
OBJECTS = one(None, 3, 'x', [], {}, [1.0], math.nan, True, b'x', (), {'a': {}})
WHOLE = one(
    *({}, [], None, 3, 'x', torch.ones(2), {'state_dict': {}}, {'model': []}, {3: torch.ones(1)}),
)
_ATTN = 'blocks.0.attn.'
NAMES = one(
    *(
        '',
        '.',
        'blocks',
        'blocks.0',
        'blocks.99.norm1.weight',
        'cls_token',
        'pos_embed',
        'ü',
        'a\nb',
    ),
    *(
        'position_grid',
        'weights_layout',
        'lora_alpha',
        'blocks.x.norm1.weight',
        'a' * 999,
        'q_bias',
    ),
    *('query.weight', 'class_predictor.weight', 'register_tokens', 'storage_tokens', 'mask_token'),
    *('embedding.kernel', 'rel_pos_bias.relative_position_index', 'blocks.0.0.norm1.weight'),
    *(f'{_ATTN}qkv.lora_A.default.weight', f'{_ATTN}qkv.lora_B.default.weight', 'head.weight'),
    *(f'{_ATTN}q_bias', f'{_ATTN}qkv.bias_mask', f'{_ATTN}rel_pos_h', 'vit.pos_embed'),
)


@cache
def weights(layout):
    """The tensors of a file, and those of the model that they are."""
    name, spell = LAYOUTS[layout]
    vit = timm_vit(name, depth=2, width=24)
    tensors = {key: torch.as_tensor(each) for key, each in spell(dict(vit.state_dict())).items()}
    return tensors, vit.state_dict()


@st.composite
def files(draw):
    """A layout, its harmless wrapping, harm to some of its tensors, and the kind of file."""
    harm = []
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 2))):
            what = draw(one(*HARM))
            value = {'dtype': DTYPES, 'object': OBJECTS, 'rename': NAMES, 'more': NAMES}.get(what)
            harm.append((what, draw(st.integers(0, 60)), value and draw(value)))
    if draw(st.integers(0, 29)) == 0:
        harm = [('whole', 0, draw(WHOLE))]
    wrapping = draw(PREFIXES), draw(SECTIONS), draw(EXTRAS)
    suffix = draw(one('.pth', '.pth', '.safetensors', '.npz', '.ckpt'))
    options = draw(one({}, {}, {}, dict(allow_partial=True), dict(with_cls_token=False)))
    return draw(one(*LAYOUTS)), wrapping, harm, suffix, options


def harmed(tensors, what, number, value):
    """Change one of the tensors in place; many of these no longer fit."""
    name = sorted(tensors, key=str)[number % len(tensors)]
    tensor = tensors[name]
    if not isinstance(tensor, torch.Tensor):
        return
    changes = {
        'reshape': lambda: tensor[None],
        'flat': tensor.flatten,
        'scalar': lambda: tensor.sum(),
        'empty': lambda: tensor.new_zeros(0, 24),
        'dtype': lambda: tensor.to(value),
        'meta': lambda: tensor.to('meta'),
        'nan': lambda: tensor * math.nan,
        'object': lambda: value,
        'widen': lambda: torch.cat([tensor, tensor]) if tensor.ndim else tensor,
        'expand': lambda: tensor.flatten()[:1].expand(10**12),
        'sparse': tensor.to_sparse,
        'transpose': lambda: tensor.T if tensor.ndim < 3 else tensor.transpose(0, -1),
        'cut': lambda: tensor[..., :-1] if tensor.ndim else tensor,
    }
    if what in changes:
        tensors[name] = changes[what]()
    if what == 'more':
        tensors[value] = torch.ones(number % 3 + 1, 24)
    if what in ('drop', 'rename', 'prefix', 'key'):
        del tensors[name]
    if what == 'block':
        for each in [each for each in tensors if '1' in str(each)]:
            del tensors[each]
    new = {'rename': value, 'prefix': f'other.{name}', 'key': number, 'double': f'student.{name}'}
    if what in new:
        tensors[new[what]] = tensor


def content_of(layout, wrapping, harm):
    """What a file holds."""
    prefix, sections, extras = wrapping
    tensors = {prefix + name: each for name, each in weights(layout)[0].items()}
    for what, number, value in harm:
        if what == 'whole':
            return value
        if tensors:
            harmed(tensors, what, number, value)
    content = tensors
    for section in reversed(sections):
        content = {section: content, **extras}
    return content


def write(path, content):
    """Write it as far as its kind of file can hold it."""
    if path.suffix in ('.pth', '.ckpt'):
        torch.save(content, path)
        return
    while isinstance(content, dict) and any(isinstance(each, dict) for each in content.values()):
        content = next(each for each in content.values() if isinstance(each, dict))
    content = content if isinstance(content, dict) else {}
    dense = {
        str(name): each.contiguous().clone()
        for name, each in content.items()
        if isinstance(each, torch.Tensor) and not (each.is_sparse or each.is_meta)
        if each.numel() < 10**9
    }
    if path.suffix == '.safetensors':
        save_file(dense, path)
        return
    kinds = torch.bfloat16, torch.float8_e4m3fn
    arrays = {n.replace('/', '.'): t.numpy() for n, t in dense.items() if t.dtype not in kinds}
    np.savez(
        path, **{name.replace('.', '/'): each for name, each in arrays.items() if '\n' not in name}
    )


class Attempt:
    """A file, read, recognised, translated and loaded into its model."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, drawn):
        layout, wrapping, harm, suffix, options = drawn
        for each in self.folder.iterdir():
            each.unlink()
        path = self.folder / f'a{suffix}'
        try:
            write(path, content_of(layout, wrapping, harm))
        except Exception:  # the library that writes refuses it
            return 'unwritable'
        name = LAYOUTS[layout][0]
        source = partial(build_timm, more=SIZES)
        try:
            vit = ViTFeatBackbone(name, source=source, checkpoint=path, **options).eval()
        except ValueError as error:
            if harm or options:
                raise
            raise NotImplementedError from error  # nothing was wrong with it
        assert [each.name for each in self.folder.iterdir()] == [path.name]
        self.check_loaded(vit, layout, harm, options)
        return None

    def check_loaded(self, vit, layout, harm, options):
        """The law of shapes; and without harm the very weights."""
        own = vit.vit.state_dict()
        assert all(not each.is_meta for each in own.values())
        with torch.no_grad():
            (maps,) = vit(torch.ones(1, 3, 33, 20))
        patch = vit.layer_strides[0][0]
        assert tuple(maps.shape) == (1, 24, math.ceil(33 / patch), math.ceil(20 / patch))
        if not any(what in ('nan', 'dtype', 'empty') for what, *_ in harm):
            assert is_finite(maps)
        if harm:
            return
        theirs = weights(layout)[1]
        for name, each in own.items():
            if name != 'pos_embed' or not options:
                assert torch.allclose(each, theirs[name], atol=1e-6), name


def test_any_file_of_weights(tmp_path):
    assert Fuzz(Attempt(tmp_path)).run(files()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_files_of_weights(tmp_path):
    assert Fuzz(Attempt(tmp_path)).run(files(), slow=True) == []
