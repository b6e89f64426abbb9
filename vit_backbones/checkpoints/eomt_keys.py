"""Keys of published EoMT models: their ViT under its library's keys, their head under ours.

Sources of the keys (no code was taken): https://github.com/tue-mps/eomt (MIT), also below the
`state_dict` of Lightning, and `EomtForUniversalSegmentation` and its `EomtDinov3...` sister
of https://github.com/huggingface/transformers (Apache-2.0).

A file of tue-mps with DINOv3 may hold differences to Meta's weights, for the ViT only. Their code
adds every tensor of the file to that of the built model, the mean of the images among them; so that
is 0 in a file of differences, and ImageNet's in any other.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vit_backbones.checkpoints.reading import contents
from vit_backbones.checkpoints.renames import Renames

Tensors = dict[str, Tensor]

TUE, HF = 'tue-mps EoMT', 'transformers EoMT'
_VIT = 'network.encoder.backbone.'
_MEAN = 'network.encoder.pixel_mean'
_HEADS: Mapping[str, Renames] = {
    TUE: (
        (r'^network\.q\.', 'query_embed.'),
        (r'^network\.class_head\.', 'cls_embed.'),
        (r'^network\.mask_head\.', 'mask_embed.'),
        (r'^network\.upscale\.', 'upscale.'),
    ),
    HF: (
        (r'^query\.', 'query_embed.'),
        (r'^class_predictor\.', 'cls_embed.'),
        (r'^mask_head\.fc1\.', 'mask_embed.0.'),
        (r'^mask_head\.fc2\.', 'mask_embed.2.'),
        (r'^mask_head\.fc3\.', 'mask_embed.4.'),
        (r'^upscale_block\.block\.(\d+)\.layernorm2d\.', r'upscale.\1.norm.'),
        (r'^upscale_block\.block\.', 'upscale.'),
    ),
}
# Of the loss, the annealing and the images, which a config has
_DROPPED = re.compile(
    r'criterion\.empty_weight$|(network\.)?attn_mask_probs$|network\.encoder\.pixel_(mean|std)$'
)
# tue-mps runs DINOv3 of transformers under timm's names
_TUE_DINOV3: Renames = ((r'^patch_embed\.', 'embeddings.'), (r'^blocks\.', 'model.layer.'))
_HF_DINOV3: Renames = ((r'^layers\.', 'model.layer.'), (r'^layernorm\.', 'norm.'))
_HF_DINOV2: Renames = (
    (r'^layers\.', 'encoder.layer.'),
    (r'\.attention\.out_proj\.', '.attention.o_proj.'),
    (r'^(embeddings\.position_embeddings)\.weight$', r'\1'),
)


class Published(NamedTuple):
    """The tensors of a published EoMT.

    Attributes:
        kind: Whose keys they had.
        vit: Under the keys of timm or transformers.
        head: Under those of our head.
        dropped: Names of tensors that no model of ours needs.
        is_delta: Whether the ViT's are differences to the weights of DINOv3.
    """

    kind: str
    vit: Tensors
    head: Tensors
    dropped: list[str]
    is_delta: bool


def published(tensors: Mapping[str, Tensor]) -> Published | None:
    """Take the tensors of a published EoMT apart; `None` for other files.

    Raises:
        ValueError: If a file of DINOv3 does not show whether it holds differences.
    """
    named = {name.replace('_orig_mod.', ''): tensor for name, tensor in tensors.items()}
    kind = _kind(named)
    if kind is None:
        return None
    dropped = [name for name in named if _DROPPED.fullmatch(name)]
    renamed = {name: _renamed(name, _HEADS[kind]) for name in named if name not in dropped}
    head = {new: named[old] for old, new in renamed.items() if new != old}
    vit = {old: named[old] for old, new in renamed.items() if new == old}
    return Published(kind, _vit(kind, vit), head, dropped, kind == TUE and _is_delta(named))


def holds_differences(path: str) -> bool:
    """Whether a local file is a published EoMT as differences to the weights of DINOv3."""
    if '://' in path:
        return False
    content = contents(path)
    content = content.get('state_dict', content)
    if not isinstance(content, dict) or _kind(content) != TUE:
        return False
    return _is_delta(content)


def vit_of_published(tensors: Tensors) -> Tensors:
    """The ViT's tensors of a published EoMT; those of other files as they are.

    A `ValueError` for differences, which are no weights.
    """
    found = published(tensors)
    if found is not None and found.is_delta:
        raise ValueError(
            'holds an EoMT as differences to the weights of DINOv3, not weights: give those here '
            '(checkpoint=FILE, or pretrained=True), and this file to the whole model by load_from='
        )
    return dict(tensors) if found is None else found.vit


def _kind(names: Iterable[str]) -> str | None:
    held = set(names)
    if {'network.q.weight', 'network.class_head.weight'} <= held:
        return TUE
    return HF if {'query.weight', 'class_predictor.weight'} <= held else None


def _renamed(name: str, table: Renames) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _vit(kind: str, tensors: Tensors) -> Tensors:
    if kind == TUE:
        tensors = {name.removeprefix(_VIT): tensor for name, tensor in tensors.items()}
        table = _TUE_DINOV3 if 'patch_embed.register_tokens' in tensors else ()
    else:
        table = _HF_DINOV2 if 'embeddings.position_embeddings.weight' in tensors else _HF_DINOV3
    vit = {_renamed(name, table): tensor for name, tensor in tensors.items()}
    if table is _HF_DINOV2:  # (h*w, C), of patches only: CLS has no position
        rows = vit['embeddings.position_embeddings']
        with_cls = torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
        vit['embeddings.position_embeddings'] = with_cls[None]
    return vit


def _is_delta(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file of tue-mps holds differences, as only those with DINOv3 do."""
    if f'{_VIT}patch_embed.register_tokens' not in tensors:
        return False
    if _MEAN not in tensors:
        raise ValueError(
            f'holds an EoMT of tue-mps on DINOv3 without {_MEAN}, which is 0 in files of '
            f"differences to DINOv3's weights and ImageNet's mean in files of weights: add it"
        )
    mean = tensors[_MEAN]
    return not mean.is_meta and not mean.any()
