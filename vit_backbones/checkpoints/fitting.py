"""Fit the tensors of a checkpoint to a model, and report those that matched."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor

from vit_backbones.position import Grid, resample_positions

# The prefix with most names of the model is taken off
PREFIXES = (
    *('', 'vit.', 'backbone.vit.', 'backbone.', 'model.', 'encoder.'),
    *('module.', 'module.backbone.vit.', 'module.backbone.'),
    # the first of equals wins: an averaged copy comes before a student
    *('teacher.', 'teacher.backbone.', 'student.', 'student.backbone.'),
)
# Parts of files beyond the backbone: classifiers, pooling heads, parts of pre-training
KNOWN_HEADS = re.compile(r'(head|fc|fc_norm|head_dist|attn_pool|pre_logits|mask_token)(\.|$)')
# Tensors without which features are noise even if 95 % match, in the names of all libraries
_VITAL = {
    'CLS token': r'(^|\.)(cls_token|class_token|class_embedding)$',
    'patch embedding': r'(patch_embed\.proj|conv_proj|patch_embeddings?(\.projection)?)\.weight$',
    'position table': r'(^|\.)(pos_embed|pos_embedding|position_embeddings?(\.weight)?)$',
}
MIN_MATCHED = 0.95
# Keys under which a saved backbone keeps the (h, w) of its position table, and the layout of the
# file that its weights came from
GRID_KEY, LAYOUT_KEY = 'position_grid', 'weights_layout'
ALPHA_KEY = 'lora_alpha'  # by which, over their rank, LoRA's updates are scaled
RECORDS = (GRID_KEY, LAYOUT_KEY, ALPHA_KEY)  # older files lack them


@dataclass
class Report:
    """The fate of each tensor of a checkpoint.

    Attributes:
        matched: Tensors of the model found in the file, fitted to the model's shapes.
        resized: Names among them that were resampled to more or fewer values.
        missing: Names of the model that the file lacks or holds in another shape.
        absent: Names among them that the file lacks.
        leftover: Names of the file that fit nowhere, known heads and pruned parts left out.
        dialect: Layout of the file's keys, if it is not timm's or the library's own.
    """

    matched: dict[str, Tensor] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)
    dialect: str | None = None

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing)
        source = f', from {self.dialect}' if self.dialect else ''
        return f'loaded {len(self.matched)} of {total} tensors, resized {len(self.resized)}{source}'

    def check(self, path: str, remark: str = '') -> None:
        """Refuse the file `path` if it fits badly; `remark` ends the message for too few matches.

        95 % of the model's tensors must match and no unknown ones be left; the CLS token, the patch
        embedding and the position table must be there.
        """
        total = len(self.matched) + len(self.missing)
        hint = 'another architecture or img_size? allow_partial=True loads what fits'
        if len(self.matched) < MIN_MATCHED * total:
            raise ValueError(
                f'checkpoint {path!r} matches {len(self.matched)} of {total} tensors, 95 % are '
                f'needed ({hint}); missing: {_first_ten(self.missing)}; of no use in the file: '
                f'{_first_ten(self.leftover)}{remark}'
            )
        for part, pattern in _VITAL.items():
            for name in filter(re.compile(pattern).search, self.absent):
                advice = 'with_cls_token=False runs it without, ' if part == 'CLS token' else ''
                raise ValueError(
                    f'checkpoint {path!r} has no {part}, which the model has as {name}: {advice}'
                    f'allow_partial=True loads the rest and leaves a random one'
                )
        if self.leftover:
            raise ValueError(
                f'checkpoint {path!r} holds {len(self.leftover)} tensors that fit nowhere in the '
                f'model ({hint}): {_first_ten(self.leftover)}'
            )


@dataclass(frozen=True)
class PositionTable:
    """The learned positions of a model; fits another table to them.

    Attributes:
        name: Key in the state dict.
        shape: That of the model's table.
        grid: (h, w) of it, behind `num_prefix` rows.
        lacks_cls: The model runs without a CLS token, whose row a file may have.
        native_size: (H, W) in pixels for which the architecture's published weights are made.
        interpolation: Keyword arguments of `resample_positions`.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    num_prefix: int
    lacks_cls: bool
    native_size: Grid
    interpolation: Mapping[str, object]

    def fit(self, table: Tensor, recorded: Tensor | None, patch_size: Grid) -> Tensor:
        """Drop a CLS row that the model lacks, and resample to the model's grid.

        The grid of `table` is the recorded one, else the native one, else a square, as in every
        published table. A table that fits none of them comes back unchanged.
        """
        fitted = self._resampled(table.reshape(1, -1, table.shape[-1]), recorded, patch_size)
        same = fitted.numel() == math.prod(self.shape) and fitted.shape[-1] == self.shape[-1]
        # (1, n, C), but (n, C) in an nn.Embedding and (1, h, w, C) in SAM
        return fitted.reshape(self.shape) if same else table

    def _resampled(self, table: Tensor, recorded: Tensor | None, patch_size: Grid) -> Tensor:
        (rows, columns), (ph, pw) = self.native_size, patch_size
        grids = [(rows // ph, columns // pw)]
        if recorded is not None:
            grids = [tuple(recorded.tolist())]
        for num_prefix in (self.num_prefix, self.num_prefix + self.lacks_cls):
            side = math.isqrt(max(0, table.shape[1] - num_prefix))
            for grid in [*grids, (side, side)]:
                if table.shape[1] == num_prefix + math.prod(grid):
                    table = table[:, num_prefix - self.num_prefix :]
                    return resample_positions(
                        table, grid, self.grid, num_prefix=self.num_prefix, **self.interpolation
                    )
        return table


def match(
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    *,
    patch_embed: str | None,
    positions: PositionTable | None = None,
    built: Iterable[str] = (),
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    dialect: str | None = None,
) -> Report:
    """Fit a checkpoint's tensors to a model's state dict; nothing is loaded yet.

    Args:
        tensors: The checkpoint by key, bare or under one of `PREFIXES`; keys outside the prefix
            belong to other parts of a whole model and are ignored.
        model: The model's state dict.
        patch_embed: Name of the weight that is resampled to another patch and number of channels.
        positions: Fits the position table, if the model has one.
        built: Names that the model had before unused parts were removed.
        convert: Converts tensors, and the recorded grid under `GRID_KEY`, to the model's layout.
        dialect: Layout from which the tensors were translated, for the report.
    """
    prefix = max(PREFIXES, key=lambda p: sum(p + name in tensors for name in model))
    # the record of the grid stands beside `vit.`
    recorded = tensors.get(prefix.removesuffix('vit.') + GRID_KEY)
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    own |= {} if recorded is None else {GRID_KEY: recorded}
    pruned = set(built) - set(model)
    sizes = {name: tensor.numel() for name, tensor in own.items()}
    own = convert({name: tensor for name, tensor in own.items() if name not in pruned})
    own.pop(GRID_KEY, None)
    embed = own.get(patch_embed)
    file_patch = (1, 1) if embed is None or embed.ndim != 4 else tuple(embed.shape[-2:])
    report, misfits = Report(dialect=dialect), []
    for name, target in model.items():
        tensor = own.pop(name, None)
        if tensor is None:
            report.missing.append(name)
            report.absent.append(name)
            continue
        fitted = tensor
        if name == patch_embed:
            fitted = _fit_patch_embed(tensor, target)
        elif positions is not None and name == positions.name:
            fitted = positions.fit(tensor, recorded, file_patch)
        if fitted.shape != target.shape:
            report.missing.append(name)
            misfits.append(f'{name} {tuple(tensor.shape)} for {tuple(target.shape)}')
            continue
        report.matched[name] = fitted
        if fitted.numel() != sizes.get(name, tensor.numel()):
            report.resized.append(name)
    unknown = [n for n in own if n not in pruned and not KNOWN_HEADS.match(n)]
    report.leftover = misfits + unknown
    return report


def refit(
    saved: Mapping[str, Tensor], model: Mapping[str, Tensor], report: Report
) -> dict[str, Tensor]:
    """Tensors of a saved model that had to be resized, in the shapes of the model.

    A `ValueError` if some cannot be; `report` is that of `match` for them.
    """
    misfits = [n for n in saved if n in model and saved[n].shape != model[n].shape]
    if lost := [name for name in misfits if name not in report.matched]:
        raise ValueError(
            f'{len(lost)} tensors of the file cannot be resized (first {lost[0]} '
            f'{tuple(saved[lost[0]].shape)} for {tuple(model[lost[0]].shape)})'
        )
    return {n: t for n, t in report.matched.items() if n in saved and t is not saved[n]}


def _fit_patch_embed(weight: Tensor, target: Tensor) -> Tensor:
    """Resample (C, in_channels, ph, pw) weights to another patch and adapt RGB to n channels."""
    if weight.ndim != 4:
        return weight
    if weight.shape[1] == 3 != target.shape[1]:
        weight = adapt_input_conv(target.shape[1], weight)
    if weight.shape[-2:] != target.shape[-2:]:
        weight = resample_patch_embed(weight, list(target.shape[-2:]))
    return weight


def _first_ten(names: list[str]) -> str:
    more = f' and {len(names) - 10} more' if len(names) > 10 else ''
    return (', '.join(names[:10]) or 'none') + more
