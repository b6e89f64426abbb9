"""Whether the parts of a built model fit: the backbone's maps, and those that others take."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.checks.findings import Finding, error, warning
from vit_backbones.necks import SimpleFeaturePyramid, ViTAdapter

_TAKERS = ('neck', 'decode_head', 'panoptic_head', 'rpn_head', 'roi_head', 'bbox_head', 'mask_head')
_ADVICE = {
    ('strides', 'backbone'): ', for patch 14 by out_stride=16',
    ('strides', 'neck'): ', by out_strides= and num_outs= of a SimpleFeaturePyramid',
}
# Where mmdet's heads keep the strides that they were configured for
_STRIDED = dict(
    panoptic_head='pixel_decoder', rpn_head='prior_generator', bbox_head='prior_generator'
)


def wiring_findings(model: nn.Module) -> Iterator[Finding]:
    """Whether neck and heads take the maps of the `ViTFeatBackbone`: number, channels, strides."""
    takers = [name for name in _TAKERS if getattr(model, name, None) is not None]
    vit = vit_of(model)
    if vit is None or not takers:
        return
    if vit.pool is not None or vit.out_type != 'featmap':
        form = 'out_type' if vit.pool is None else 'pool'
        yield error(
            f'backbone.{form}={getattr(vit, form)!r} under a {takers[0]}, which takes feature '
            f"maps: use out_type='featmap' and no pool"
        )
        return
    if vit.masks_padding and not hasattr(model.data_preprocessor, 'announces_image_sizes'):
        yield error(
            'backbone.mask_padding=True, but the data_preprocessor does not report image sizes: '
            "use type='SizedDetDataPreprocessor' (vit_backbones.mmdet in custom_imports), or "
            "'SizedSegDataPreProcessor' (vit_backbones.mmseg)"
        )
    yield from _map_findings(model)


def _map_findings(model: nn.Module) -> Iterator[Finding]:
    """Compare the backbone's maps with those that neck and heads take."""
    giver, channels, strides = 'backbone', model.backbone.out_channels, model.backbone.strides
    neck = getattr(model, 'neck', None)
    if neck is not None:
        for what, given in (('channels', channels), ('strides', strides)):
            taken = _listed(neck, f'in_{what}')
            yield from _compare(what, giver, given, f'neck.in_{what}', taken)
        strides = _neck_strides(neck, strides)
        if strides is None:
            return
        giver, channels = 'neck', (neck.out_channels,) * len(strides)
    for name in ('decode_head', 'auxiliary_head'):
        for head in parts_of(model, name):
            yield from _decode_head_findings(name, head, giver, channels)
    yield from _stride_findings(model, giver, strides)


def parts_of(owner: Any, name: str) -> list[nn.Module]:
    """The modules that a model or a part of it has under a name: none, one or several."""
    part = getattr(owner, name, None)
    return list(part) if isinstance(part, nn.ModuleList) else [] if part is None else [part]


def bare(model: nn.Module) -> nn.Module:
    """A model without the wrapper of several processes."""
    return model.module if is_model_wrapper(model) else model


def vit_of(model: nn.Module) -> ViTFeatBackbone | None:
    """The ViT below a detector or segmenter, `None` with other backbones."""
    backbone = getattr(model, 'backbone', None)
    inner = backbone.backbone if isinstance(backbone, ViTAdapter) else backbone
    return inner if isinstance(inner, ViTFeatBackbone) else None


def _neck_strides(neck: nn.Module, strides: Sequence) -> Sequence | None:
    """Strides of a neck's outputs, `None` where the neck is not known."""
    if isinstance(neck, SimpleFeaturePyramid):
        return neck.strides
    if type(neck).__name__ != 'FPN':  # of mmdet or mmseg: adds levels, rescales none
        return None
    kept = [*_square(strides)][neck.start_level : neck.backbone_end_level]
    while len(kept) < neck.num_outs and isinstance(kept[-1], int):
        kept.append(2 * kept[-1])
    return kept


def _stride_findings(model: nn.Module, giver: str, strides: Sequence) -> Iterator[Finding]:
    for place, taken in _configured_strides(model):
        taken = _square(taken)
        if place.startswith('panoptic_head') and giver == 'backbone' and [*strides] != [*taken]:
            yield warning(
                f'the backbone gives maps of strides {list(strides)} to a panoptic_head for '
                f'{list(taken)}: it runs, since its points are relative to each map, but a '
                f'SimpleFeaturePyramid between them gives it fine maps'
            )
        elif place.startswith('roi_head'):  # these take the first maps, not all
            yield from _compare('strides', giver, [*strides][: len(taken)], place, taken)
        else:
            yield from _compare('strides', giver, strides, place, taken)


def _configured_strides(model: nn.Module) -> Iterator[tuple[str, Sequence]]:
    """Places of mmdet's heads that know strides, with these."""
    for name, part in _STRIDED.items():
        taken = getattr(getattr(getattr(model, name, None), part, None), 'strides', None)
        if taken is not None:
            yield f'{name}.{part}', taken
    for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
        for each in parts_of(getattr(model, 'roi_head', None), part):
            if hasattr(each, 'featmap_strides'):
                yield f'roi_head.{part}', each.featmap_strides


def padding_findings(model: nn.Module) -> Iterator[Finding]:
    """Whether the sizes to which batches are padded suit the patches of a `ViTFeatBackbone`."""
    vit, padded = vit_of(model), _padded(getattr(model, 'data_preprocessor', None))
    if vit is None or padded is None:
        return
    place, size, whole = padded
    fixed = vit.fixed_size
    if fixed is not None:
        if not whole or vit.padded_size(size) != fixed:
            level = error if whole else warning
            yield level(
                f'{vit.model_name} takes only images of {fixed[0]}x{fixed[1]}, and '
                f'data_preprocessor.{place} is {size if whole else size[0]}: build it with the '
                f'img_size of the batches, and give all of them that size'
            )
        return
    steps = vit.padded_size((1, 1))
    if vit.out_stride is None and any(s > 1 and s % p for s, p in zip(size, steps, strict=True)):
        yield warning(
            f'data_preprocessor.{place} is {size if whole else size[0]}, no multiple of the '
            f"backbone's {steps[0]}x{steps[1]}: it pads again, and its maps reach beyond the image "
            f'that heads take them for; pad to a multiple, or give the backbone out_stride=16'
        )


def _padded(preprocessor: Any) -> tuple[str, tuple[int, int], bool] | None:
    """The option, its value for (H, W), and whether this is the size or a divisor of it."""
    size = getattr(preprocessor, 'size', None)  # mmseg
    if size is not None:
        return 'size', tuple(size), True
    for name in ('size_divisor', 'pad_size_divisor'):  # mmseg, mmdet
        divisor = getattr(preprocessor, name, None)
        if divisor is not None:
            return name, (divisor, divisor), False
    return None


def _square(strides: Sequence) -> tuple:
    """mmdet's generators hold strides as pairs (horizontal, vertical)."""
    pairs = (each if isinstance(each, (list, tuple)) else (each, each) for each in strides)
    return tuple(x if x == y else (y, x) for x, y in pairs)


def _decode_head_findings(
    name: str, head: nn.Module, giver: str, channels: Sequence[int]
) -> Iterator[Finding]:
    """Compare with the maps that an mmseg head picks by `in_index`."""
    picked = _listed(head, 'in_index') or tuple(range(len(channels)))
    if not all(-len(channels) <= index < len(channels) for index in picked):
        yield error(f'{name}.in_index={list(picked)}, but the {giver} gives {len(channels)} maps')
        return
    given = [channels[index] for index in picked]
    if getattr(head, 'input_transform', None) == 'resize_concat':
        given = [sum(given)]
    taken = _listed(head, 'in_channels')
    yield from _compare('channels', giver, given, f'{name}.in_channels', taken)


def _listed(module: nn.Module, name: str) -> tuple | None:
    value = getattr(module, name, None)
    if value is None:
        return None
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _compare(
    what: str, giver: str, given: Sequence[int], taker: str, taken: Sequence[int] | None
) -> Iterator[Finding]:
    if taken is not None and list(given) != list(taken):
        yield error(
            f'the {giver} gives maps of {what} {list(given)}, but {taker} is {list(taken)}: make '
            f'them equal' + _ADVICE.get((what, giver), '')
        )
