"""Fit the tensors of a checkpoint to a model, and report those that matched."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor

from vit_backbones.checkpoints.averaging import ALIKE, by_choice, noted
from vit_backbones.checkpoints.fit_report import Report, sizes
from vit_backbones.position import Grid, resample_positions

# Prefixes of models, which need no naming in a report
PREFIXES = (
    *('', 'vit.', 'backbone.vit.', 'backbone.', 'model.', 'encoder.'),
    *('module.', 'module.backbone.vit.', 'module.backbone.'),
    *('teacher.', 'teacher.backbone.', 'student.', 'student.backbone.'),
)
# Parts of files beyond the backbone: classifiers, pooling heads, parts of pre-training
KNOWN_HEADS = re.compile(
    r'(head|fc|fc_norm|head_dist|attn_pool|pre_logits|mask_token|masked_embed)(\.|$)'
)
# Keys under which a saved backbone keeps the (h, w) of its position table, and the layout of the
# file that its weights came from
GRID_KEY, LAYOUT_KEY = 'position_grid', 'weights_layout'
ALPHA_KEY = 'lora_alpha'  # by which, over their rank, LoRA's updates are scaled
RECORDS = (GRID_KEY, LAYOUT_KEY, ALPHA_KEY)  # older files lack them
# Parts of detectors and segmenters beside the backbone
_TRAINED = (
    'neck decode_head auxiliary_head rpn_head roi_head bbox_head mask_head panoptic_head'.split()
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
        tensors: The checkpoint by key, bare or under a prefix, of several copies of the model the
            one that `averaging` chooses; keys outside the prefix belong to other parts of a whole
            model and are ignored.
        model: The model's state dict.
        patch_embed: Name of the weight that is resampled to another patch and number of channels.
        positions: Fits the position table, if the model has one.
        built: Names that the model had before unused parts were removed.
        convert: Converts tensors, and the recorded grid under `GRID_KEY`, to the model's layout.
        dialect: Layout from which the tensors were translated, for the report.
    """
    prefix, *copies = _prefixes(tensors, model, patch_embed)
    # the record of the grid stands beside `vit.`
    recorded = tensors.get(prefix.removesuffix('vit.') + GRID_KEY)
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    own |= {} if recorded is None else {GRID_KEY: recorded}
    pruned = set(built) - set(model)
    shapes = sizes(own, model, built, patch_embed)
    report, misfits = Report(dialect=dialect, copy=noted([prefix, *copies]), sizes=shapes), []
    if prefix.startswith('backbone.'):
        report.unread = [
            part for part in _TRAINED if any(n.startswith(f'{part}.') for n in tensors)
        ]
    if shapes.width:  # no library converts these
        report.missing = list(model)
        return report
    counts = {name: tensor.numel() for name, tensor in own.items()}
    own = convert({name: tensor for name, tensor in own.items() if name not in pruned})
    own.pop(GRID_KEY, None)
    report.sizes = sizes(own, model, built, patch_embed)
    embed = own.get(patch_embed)
    file_patch = (1, 1) if embed is None or embed.ndim != 4 else tuple(embed.shape[-2:])
    for name, target in model.items():
        tensor = own.pop(name, None)
        if tensor is None:
            report.lack(name)
            continue
        fitted = tensor
        if name == patch_embed:
            fitted = _fit_patch_embed(tensor, target)
        elif positions is not None and name == positions.name:
            fitted = positions.fit(tensor, recorded, file_patch)
        packed = target.is_floating_point() and not tensor.is_floating_point()  # by a quantisation
        if packed or fitted.shape != target.shape:
            report.missing.append(name)
            kind = f' of {tensor.dtype}'.replace('torch.', '') if packed else ''
            misfits.append(f'{name} {tuple(tensor.shape)}{kind} for {tuple(target.shape)}')
            continue
        report.matched[name] = fitted
        if fitted.numel() != counts.get(name, tensor.numel()):
            report.resized.append(name)
    unknown = [n for n in own if n not in pruned and not KNOWN_HEADS.match(n)]
    report.leftover = misfits + unknown
    return report


def _prefixes(
    tensors: Mapping[str, Tensor], model: Mapping[str, Tensor], patch_embed: str | None
) -> list[str]:
    """The prefix under which a file holds the model, and behind it those of other copies."""
    names: Counter[str] = Counter()
    same: Counter[str] = Counter()
    for name, tensor in tensors.items():
        for start in (0, *(dot.end() for dot in re.finditer(r'\.', name))):
            if (own := model.get(name[start:])) is not None:
                names[name[:start]] += 1
                same[name[:start]] += tensor.shape == own.shape
    half = len(model) / 2
    found = same if max(same.values(), default=0) > half else names
    known = max(PREFIXES, key=found.__getitem__)
    best = max((p for p in found if found[p] > half), key=found.__getitem__, default=known)
    best = known if found[known] == found[best] else best
    enough = [p for p in sorted(found, key=len) if found[p] >= ALIKE * found[best] > 0]
    # a text encoder may have the same names
    copies = [p for p in enough if patch_embed is None or p + patch_embed in tensors]
    return by_choice([best, *copies])


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
