"""Key layouts of other projects' ViT checkpoints, and their translation to timm's.

A layout is recognised by keys that only it has, under any prefix. A table then renames them, and
tensors are cut or joined where that is not enough. A translation is exact or it is refused: a plain
ViT cannot have relative positions, so they raise for it.

Settings that the keys do not show are not guessed; they come with the model's name: the activation
(CLIP's own weights need timm's `..._quickgelu` models), the epsilon of the norms, the number of
heads, a patch embedding with padding (Sapiens shifts its patches by two pixels).

Sources of the layouts (only the keys were read, no code was taken), all on GitHub:
facebookresearch/dinov2 (Apache-2.0), dinov3 (DINOv3 License), mae (CC-BY-NC-4.0), segment-anything
and detectron2 (Apache-2.0), huggingface/transformers and pytorch-image-models (Apache-2.0),
microsoft/unilm (MIT),
open-mmlab/mmpretrain and mmsegmentation (Apache-2.0), pytorch/vision (BSD-3-Clause),
mlfoundations/open_clip, lightly-ai/lightly and baaivision/EVA (MIT), google-research/big_vision
(Apache-2.0).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vit_backbones.checkpoints import renames, reshaping
from vit_backbones.checkpoints.averaging import by_choice
from vit_backbones.checkpoints.fitting import GRID_KEY, PREFIXES
from vit_backbones.checkpoints.renames import Renames

Tensors = dict[str, Tensor]


class Dialect(NamedTuple):
    """One layout, with changes of its tensors before and after the renames.

    Attributes:
        name: Name in reports.
        signs: Sets of keys; a file that has all of one set is of this layout.
        table: Regular expressions and replacements, applied to every key in this order; a key
            that becomes empty is dropped.
    """

    name: str
    signs: tuple[tuple[str, ...], ...]
    table: Renames = ()
    before: Callable[[Tensors], Tensors] = dict
    after: Callable[[Tensors], Tensors] = dict


OWN = 'timm keys'
_TIMM = Dialect('timm', (('patch_embed.proj.weight', 'blocks.0.norm1.weight'),))
# Would pass for ViTDet's: timm's SAM with its neck, and without it in this package's own files
_TIMM_SAM = Dialect(
    'timm',
    (
        ('blocks.0.attn.rel_pos_h', 'blocks.0.mlp.fc1.weight', 'neck.0.weight'),
        ('vit.blocks.0.attn.rel_pos_h', 'vit.blocks.0.mlp.fc1.weight'),
    ),
)
# The first that fits is taken
DIALECTS = (
    _TIMM_SAM,
    Dialect(
        'SAM',
        (('patch_embed.proj.weight', 'blocks.0.mlp.lin1.weight'),),
        renames.SAM,
    ),
    Dialect(
        'transformers SAM',
        (('patch_embed.projection.weight', 'layers.0.mlp.lin1.weight'),),
        renames.TRANSFORMERS_SAM,
    ),
    Dialect(
        'mmpretrain SAM',
        (('patch_embed.projection.weight', 'layers.0.attn.rel_pos_h', 'layers.0.ln1.weight'),),
        renames.OPENMMLAB_SAM,
    ),
    Dialect(
        'ViTDet',
        (('patch_embed.proj.weight', 'blocks.0.attn.rel_pos_h'),),
    ),
    Dialect(
        'Microsoft BEiT',
        tuple(
            ('patch_embed.proj.weight', f'{part}.relative_position_index')
            for part in ('blocks.0.attn', 'rel_pos_bias')
        ),
        renames.BEIT,
    ),
    Dialect(
        'transformers BEiT',
        tuple(
            (
                'embeddings.patch_embeddings.projection.weight',
                f'{part}.relative_position_bias_table',
            )
            for part in (
                'encoder.layer.0.attention.attention.relative_position_bias',
                'layers.0.relative_position_bias',
                'encoder.relative_position_bias',
                'shared_position_bias',
            )
        ),
        renames.TRANSFORMERS_BEIT,
    ),
    Dialect(
        'Meta DINOv3',
        (('storage_tokens', 'blocks.0.norm1.weight'),),
        renames.META_DINOV3,
        before=reshaping.mask_biases,
    ),
    Dialect(
        'Meta DINOv2',
        (
            ('patch_embed.proj.weight', 'blocks.0.0.norm1.weight'),
            ('register_tokens', 'blocks.0.norm1.weight'),
            ('mask_token', 'blocks.0.ls1.gamma'),
        ),
        renames.META_DINOV2,
    ),
    Dialect(
        'EVA',
        tuple((f'blocks.0.mlp.{first}.weight', 'blocks.0.norm1.weight') for first in ('w1', 'w12')),
        renames.EVA,
    ),
    Dialect(
        'MAE',
        (('decoder_pos_embed', 'blocks.0.norm1.weight'),),
        ((r'^(decoder_.*|mask_token)', ''),),
    ),
    Dialect(
        'transformers DINOv3',
        (('embeddings.register_tokens', 'embeddings.patch_embeddings.weight'),),
        renames.TRANSFORMERS,
        after=reshaping.ungated,
    ),
    Dialect(
        'transformers DINOv2',
        (
            (
                'embeddings.patch_embeddings.projection.weight',
                'encoder.layer.0.layer_scale1.lambda1',
            ),
        ),
        renames.TRANSFORMERS,
        after=reshaping.pack_gates,
    ),
    Dialect(
        'transformers ViT',
        tuple(
            ('embeddings.patch_embeddings.projection.weight', f'{layer}.0.layernorm_before.weight')
            for layer in ('encoder.layer', 'layers')
        ),
        renames.TRANSFORMERS,
    ),
    Dialect(
        'transformers CLIP',
        (
            (
                'embeddings.class_embedding',
                'embeddings.patch_embedding.weight',
                'encoder.layers.0.layer_norm1.weight',
            ),
        ),
        renames.TRANSFORMERS_CLIP,
    ),
    Dialect(
        'transformers SigLIP',
        (('embeddings.patch_embedding.weight', 'encoder.layers.0.layer_norm1.weight'),),
        renames.TRANSFORMERS_CLIP,
    ),
    Dialect(
        'OpenMMLab BEiT or MAE',
        tuple(
            ('patch_embed.projection.weight', f'{part}.relative_position_bias_table')
            for part in ('layers.0.attn', 'rel_pos_bias')
        ),
        renames.OPENMMLAB,
    ),
    Dialect(
        'mmpretrain',
        (('patch_embed.projection.weight', 'layers.0.ln1.weight', 'layers.0.attn.qkv.weight'),),
        renames.OPENMMLAB,
    ),
    Dialect(
        'mmseg',
        (('patch_embed.projection.weight', 'layers.0.attn.attn.in_proj_weight'),),
        renames.OPENMMLAB,
        after=reshaping.patch_bias,
    ),
    Dialect('torchvision', (('conv_proj.weight', 'encoder.pos_embedding'),), renames.TORCHVISION),
    Dialect(
        'OpenCLIP',
        (('class_embedding', 'conv1.weight', 'transformer.resblocks.0.attn.in_proj_weight'),),
        renames.OPENCLIP,
    ),
    Dialect(
        'big_vision',
        (('embedding.kernel', 'Transformer.encoder_norm.scale'),),
        renames.FLAX,
        before=reshaping.from_flax,
    ),
    _TIMM,
)
_RELATIVE = re.compile(r'(^|\.)(rel_pos_[hw]|relative_position_bias_table)$')
_COMPUTED = re.compile(r'(^|\.)relative_position_index$')


def to_timm(tensors: Mapping[str, Tensor], *, relative: bool = False) -> tuple[Tensors, str | None]:
    """Translate a ViT's checkpoint to timm's keys and shapes.

    Args:
        tensors: The checkpoint by key, under any prefix; slashes count as dots. Keys beside the
            prefix belong to other parts of a whole model and are left out. Of several copies of
            a model the one that `averaging` chooses is taken.
        relative: Keep relative positions, for a model that has them.

    Returns:
        The translated tensors and the layout's name with its prefix: `OWN` for timm's own under
        a prefix that is not in `PREFIXES`. For a layout that is not known, and but for slashes for
        timm's own otherwise, the tensors as they are and `None`.

    Raises:
        ValueError: If the file holds relative positions and they are not to be kept.
    """
    dotted = {name.replace('/', '.'): tensor for name, tensor in tensors.items()}
    dialect, (prefix, *others) = _recognise(dotted)
    if dialect is None:
        return dict(tensors), None
    own = {n.removeprefix(prefix): t for n, t in dotted.items() if n.startswith(prefix)}
    own = own if relative else _without_relative_positions(own)
    if dialect in (_TIMM, _TIMM_SAM) and prefix in PREFIXES:
        return dotted, None
    own = {name: tensor for name, tensor in own.items() if not _COMPUTED.search(name)}
    own = dialect.before(own)
    own = {_renamed(name, dialect.table): tensor for name, tensor in own.items()}
    own.pop('', None)
    own = _with_timms_shapes(reshaping.join_qkv(dialect.after(own)))
    if (grid := dotted.get(prefix.removesuffix('vit.') + GRID_KEY)) is not None:
        own[GRID_KEY] = grid  # of this package's own files
    left = f', not {", ".join(map(repr, others))}' if others else ''
    return own, f'{dialect.name} keys' + (f' under {prefix!r}{left}' if prefix or left else '')


def recognised(names: Iterable[str]) -> str | None:
    """Name of the layout to which the keys of a file belong; `None` where it is not known."""
    dialect, _ = _recognise(name.replace('/', '.') for name in names)
    return None if dialect is None else dialect.name


def _recognise(names: Iterable[str]) -> tuple[Dialect | None, list[str]]:
    """The layout, and the prefixes below which a file has it, the one to take first."""
    names = set(names)
    for dialect in DIALECTS:
        prefixes = {
            name.removesuffix(first)
            for first, *rest in dialect.signs
            for name in names
            if name.endswith(first) and (name == first or name[-len(first) - 1] == '.')
            if all(name.removesuffix(first) + other in names for other in rest)
        }
        if prefixes:
            return dialect, by_choice(sorted(prefixes, key=lambda p: (len(p), p)))
    return None, ['']


def _renamed(name: str, table: Renames) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _without_relative_positions(tensors: Tensors) -> Tensors:
    """Drop relative positions that are all zero, as before a training."""
    relative = {name for name in tensors if _RELATIVE.search(name)}
    for name in sorted(relative):
        if tensors[name].any():
            raise ValueError(
                f'holds relative positions ({name}), which plain ViTs do not have; use '
                f'use_rel_pos=True for ViTDet, or a timm model that has them, e.g. '
                f'samvit_base_patch16 or beit_base_patch16_224'
            )
    return {name: tensor for name, tensor in tensors.items() if name not in relative}


def _with_timms_shapes(tensors: Tensors) -> Tensors:
    """Bring tokens and positions to (1, n, C); record the grid of a table (1, h, w, C)."""
    for name in ('cls_token', 'dist_token', 'reg_token'):
        if name in tensors:
            tensors[name] = tensors[name].reshape(1, -1, tensors[name].shape[-1])
    table = tensors.get('pos_embed')
    if table is not None and table.ndim == 4:
        tensors[GRID_KEY] = torch.tensor(table.shape[1:3])
    if table is not None:
        tensors['pos_embed'] = table.reshape(1, -1, table.shape[-1])
    return tensors
