"""The fate of each tensor of a checkpoint, and the files that are refused for it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from vit_backbones.errors import shown

# What a file may lack, because the model has it without one: counters that nothing reads, and
# constants that the libraries compute. Everything else must be there. Where zeros stand for a
# tensor, somebody puts them into the file's own first: relative positions that a plain ViT was
# given (`TimmPlain.convert`), and biases of layouts that have none (`reshaping.spell`). Records of
# this package (`fitting.RECORDS`) stand beside the model and are not asked for.
_COMPUTED = re.compile(
    r'(^|\.)(num_batches_tracked|relative_position_index|attention_bias_idxs|attn_mask'
    r'|position_ids)$'
)
# Parts that a user may know by another name than their tensors', or can do without: pattern of the
# tensors in the names of all libraries, and how to run without
_PARTS = {
    'CLS token': (
        r'(^|\.)(cls_token|class_token|class_embedding)$',
        'with_cls_token=False',
    ),
    'patch embedding': (
        r'(patch_embed\.proj|conv_proj|patch_embeddings?(\.projection)?)\.weight$',
        '',
    ),
    'position table': (
        r'(^|\.)(pos_embed|pos_embedding|position_embeddings?(\.weight)?)$',
        '',
    ),
    'final norm': (
        r'^(norm|layernorm|post_layernorm|encoder\.ln)\.(weight|bias)$',
        "norm='none'",
    ),
}
_BLOCK = re.compile(r'(\D+)(\d+)\.')


class Sizes(NamedTuple):
    """Width and blocks of a file and of a model, where they differ."""

    width: tuple[int, int] | None = None
    depth: tuple[int, int] | None = None

    def __str__(self) -> str:
        wide = self.width and 'the file is {} wide, the model {}'.format(*self.width)
        deep = self.depth and 'the file has {} blocks, the model {}'.format(*self.depth)
        return ', and '.join(filter(None, (wide, deep)))


def sizes(
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    built: Iterable[str],
    patch_embed: str | None,
) -> Sizes:
    """Compare a file's tensors with those of a model, by keys that both have.

    The width is the patch embedding's, or that of most vectors where its name is not known;
    `built` are the names of the unpruned model, of whose blocks a file may lack the pruned ones.
    """
    names = [patch_embed] if patch_embed in model.keys() & tensors.keys() else model
    shapes = [(tensors[n].shape if n in tensors else (), model[n].shape) for n in names]
    if len(shapes) > 1:
        shapes = [pair for pair in shapes if len(pair[1]) == 1]
    others = [(ours[0], theirs[0]) for ours, theirs in shapes if ours and ours[0] != theirs[0]]
    width = others[0] if 2 * len(others) > len(shapes) else None
    stems = Counter(block[1] for block in map(_BLOCK.match, built) if block).most_common(1)
    for stem, _ in stems:
        ours, needed, theirs = (_depth(names, stem) for names in (tensors, model, built))
        if ours and not needed <= ours <= theirs:
            return Sizes(width, (ours, theirs))
    return Sizes(width)


def _depth(names: Iterable[str], stem: str) -> int:
    """Blocks among the names: one more than the largest number behind a stem."""
    blocks = [block for block in map(_BLOCK.match, names) if block and block[1] == stem]
    return 1 + max((int(block[2]) for block in blocks), default=-1)


@dataclass
class Report:
    """The fate of each tensor of a checkpoint.

    Attributes:
        matched: Tensors of the model found in the file, fitted to the model's shapes.
        resized: Names among them that were resampled to more or fewer values.
        missing: Names of the model that the file lacks or holds in another shape, those that the
            model computes left out.
        absent: Names among them that the file lacks.
        leftover: Names of the file that fit nowhere, known heads and pruned parts left out.
        dialect: Layout of the file's keys, if it is not timm's or the library's own.
        copy: The copy of the model that was taken, in a few words, if the file holds several.
        sizes: Width and depth, if they are not the model's.
        unread: Parts of a trained detector or segmenter beside the backbone.
    """

    matched: dict[str, Tensor] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)
    dialect: str | None = None
    copy: str | None = None
    sizes: Sizes = field(default_factory=Sizes)
    unread: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        source = f', from {self.dialect}' if self.dialect else ''
        copy = f'; took {self.copy}' if self.copy else ''
        counts = f'loaded {len(self.matched)} of {self.total} tensors, resized {len(self.resized)}'
        unread = (
            f'; of a trained model, without its {", ".join(self.unread)}' if self.unread else ''
        )
        return f'{counts}{source}{copy}{unread}'

    @property
    def total(self) -> int:
        """Tensors of the model that must be in the file."""
        return len(self.matched) + len(self.missing)

    def lack(self, name: str) -> None:
        """Note a tensor of the model that the file lacks."""
        if not _COMPUTED.search(name):
            self.missing.append(name)
            self.absent.append(name)

    def check(self, path: str, *, partial: bool = False, remark: str = '') -> None:
        """Refuse the file `path` if it lacks a tensor of the model, or holds unknown ones.

        With `partial`, only if nothing useful fits. `remark` ends messages about a file of
        another kind.
        """
        notes = [*filter(None, (self.dialect, self.copy and f'took {self.copy}'))]
        file = f'checkpoint {path!r}' + (f' ({"; ".join(notes)})' if notes else '')
        if self.sizes.width:
            raise ValueError(f'{file} is of another size: {self.sizes}{remark}')
        if not self.matched:
            raise ValueError(f'{file} matches 0 of {self.total} tensors; {self._lists()}{remark}')
        if not partial:
            self._check_all(file, f': {self.sizes}' if self.sizes.depth else '', remark)

    def _check_all(self, file: str, why: str, remark: str) -> None:
        partial = 'allow_partial=True loads the rest and leaves'
        if self.absent and (lacking := self._lacking_parts()):
            advice = ' and '.join(filter(None, (_PARTS[part][1] for part in lacking)))
            raise ValueError(
                f'{file} has no {" and no ".join(lacking)}, which the model has as '
                f'{", ".join(self.absent)}: {advice and f"{advice} leaves it out, "}{partial} a '
                f'random one'
            )
        if self.absent:
            raise ValueError(
                f'{file} matches {len(self.matched)} of {self.total} tensors{why}; {self._lists()}'
                f'{remark} ({partial} these random)'
            )
        if self.leftover:
            raise ValueError(
                f'{file} holds {len(self.leftover)} tensors that fit nowhere in the model{why} '
                f'(another architecture, img_size or in_channels? allow_partial=True loads what '
                f'fits): {first_ten(self.leftover)}{remark}'
            )

    def _lacking_parts(self) -> list[str]:
        """Parts of `_PARTS` that hold all names that the file lacks; empty if none do."""
        of = {
            name: next((part for part, (known, _) in _PARTS.items() if re.search(known, name)), '')
            for name in self.absent
        }
        return [] if '' in of.values() else list(dict.fromkeys(of.values()))

    def _lists(self) -> str:
        useless = f'; of no use in the file: {first_ten(self.leftover)}' if self.leftover else ''
        return f'missing: {first_ten(self.missing)}{useless}'


def first_ten(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f' and {len(names) - 10} more' if len(names) > 10 else ''
    return (', '.join(map(shown, names[:10])) or 'none') + more
