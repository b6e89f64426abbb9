"""Compare every timm transformer with timm's own features, with large random weights."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from vit_backbones.backbone import ViTFeatBackbone
from vit_backbones.models.random_weights import redraw
from vit_backbones.position import Grid
from vit_backbones.sources.base import first_line
from vit_backbones.sources.build_options import BuildOptions
from vit_backbones.sources.timm_build import build_timm

SIZES: tuple[Grid, ...] = ((256, 320), (250, 333))
TOLERANCE = 1e-5  # times the largest magnitude of the reference, at least 1
# Smaller builds of an architecture, the first that it accepts
_REDUCTIONS = (
    {'depth': 2},
    {'depth': 2, 'num_kv_heads': 8},
    {'depth': 2, 'num_kv_heads': 4},
    {'depths': (2, 2, 2, 2)},
    {},
)
# Modules of timm without attention over patches: convolutions, MLPs, scans
_OTHERS = frozenset(
    'byoanet byobnet convmixer convnext cpubone cspnet cspnext densenet dla dpn efficientnet '
    'fasternet ghostnet hardcorenas hgnet hrnet inception_next inception_resnet_v2 inception_v3 '
    'inception_v4 lcnetv2 mambaout mlp_mixer mobilenetv3 mobilenetv5 nasnet nfnet pnasnet rdnet '
    'regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls senet sequencer sknet '
    'starnet tresnet vgg vovnet xception xception_aligned'.split()
)


class Check(NamedTuple):
    """The result for one architecture in one of timm's modules.

    Attributes:
        status: `'works'`, `'refuses'` (sizes other than its own, with a reason) or `'fails'`.
        how: `'any size'` or `'built at img_size'`; the reason, if it does not work.
        error: Largest difference from timm in units of the tolerance; `None` without a comparison.
    """

    module: str
    name: str
    status: str
    how: str
    error: float | None = None


def architectures() -> list[tuple[str, str]]:
    """(module, name) of timm's transformer-like architectures, by module and name."""
    modules = sorted(set(timm.list_modules()) - _OTHERS)
    return [(module, name) for module in modules for name in timm.list_models(module=module)]


def check(module: str, name: str) -> Check:
    """Compare an architecture's features with timm's on a rectangle and on an odd size."""
    how, worst = '', 0.0
    for size in SIZES:
        try:
            how, error = _compare(name, size)
        except Exception as error:  # anything a model raises is its result
            refuses = isinstance(error, ValueError) and 'cannot be used' in str(error)
            reason = str(error) if refuses else f'{type(error).__name__}: {first_line(error)}'
            return Check(module, name, 'refuses' if refuses else 'fails', reason)
        worst = max(worst, error)
    status = 'works' if worst <= 1 else 'fails'
    return Check(module, name, status, how if status == 'works' else 'differs', round(worst, 4))


def difference(out: Tensor, reference: Tensor) -> float:
    """Largest difference in units of the tolerance; at most 1 is equal."""
    if out.shape != reference.shape:
        raise ValueError(f'shape {tuple(out.shape)} for {tuple(reference.shape)}')
    if not out.isfinite().all():
        raise ValueError('values are not finite')
    limit = TOLERANCE * max(1, reference.abs().max().item())
    return (out - reference).abs().max().item() / limit


def table(checks: list[Check]) -> str:
    """Markdown: totals, one row per module, then the architectures that do not work and why."""
    works = sum(c.status == 'works' for c in checks)
    lines = [
        f'{works} of {len(checks)} architectures work ({100 * works / max(1, len(checks)):.1f} %), '
        f'{sum(c.status == "fails" for c in checks)} fail.',
        '',
        '| timm module | architectures | any size | built at `img_size` | refuses | fails |',
        '|---|---|---|---|---|---|',
    ]
    for module in sorted({c.module for c in checks}):
        of = [c for c in checks if c.module == module]
        counts = [sum(c.how == how for c in of) for how in ('any size', 'built at img_size')]
        counts += [sum(c.status == status for c in of) for status in ('refuses', 'fails')]
        lines.append(f'| `{module}` | {len(of)} | ' + ' | '.join(map(str, counts)) + ' |')
    rest = [c for c in checks if c.status != 'works']
    lines += ['', *(f'- `{c.name}` {c.status}: {c.how}' for c in rest)]
    return '\n'.join(lines)


def _reduction(name: str) -> Mapping[str, object]:
    """Options for a small build of an architecture."""
    for reduction in _REDUCTIONS[:-1]:
        try:
            with torch.device('meta'):
                timm.create_model(name, **reduction)
        except Exception as error:
            if 'meta' not in str(error):  # it counts its blocks in another way
                continue
        return reduction
    return {}


def _compare(name: str, size: Grid) -> tuple[str, float]:
    """How a model takes images, and its largest difference from timm on one.

    The first layer is compared as it is, the last one normed.
    """
    build = functools.partial(build_timm, more=_reduction(name))
    stock, vit = build(name, BuildOptions(img_size=size))
    indices = sorted({0, stock.depth(vit) - 1})
    ours = ViTFeatBackbone(name, source=build, img_size=size, out_indices=indices)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    outputs = _outputs(ours, vit, images)
    _check_shapes(ours, outputs, stock.padded(vit, size))
    rows, columns = stock.canvas(vit, size)
    padded = F.pad(images, (0, columns - size[1], 0, rows - size[0]))
    intermediates = functools.partial(vit.forward_intermediates, intermediates_only=True)
    with torch.no_grad():
        expected = intermediates(padded, indices=indices)
        if stock.norm(vit) is not None:
            expected[-1] = intermediates(padded, indices=indices[-1:], norm=True)[0]
    worst = max(
        difference(output, reference[:, :, : output.shape[2], : output.shape[3]])
        for output, reference in zip(outputs, expected, strict=True)
    )
    if worst <= 1:
        _check_gradients(ours, outputs)
    return 'any size' if stock.fixed_size(vit) is None else 'built at img_size', worst


def _outputs(ours: ViTFeatBackbone, vit: torch.nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Features under random weights, which both models share."""
    for gain in (1.0, 0.5, 0.2, 0.05):  # some grow beyond all bounds
        weights = redraw(vit.eval(), gain=gain).state_dict()
        ours.vit.load_state_dict({key: weights[key] for key in ours.vit.state_dict()})
        outputs = ours.train().eval()(images)  # training mode drops caches
        if all(output.abs().max() < 1e6 for output in outputs):
            break
    return outputs


def _check_shapes(backbone: ViTFeatBackbone, outputs: tuple[Tensor, ...], size: Grid) -> None:
    """Refuse other channels than announced, and strides off by more than two cells."""
    for output, channels, stride in zip(
        outputs, backbone.out_channels, backbone.strides, strict=True
    ):
        # Patches that overlap or do not pad give a few cells more or less
        off = max(abs(a - side / stride) for a, side in zip(output.shape[-2:], size, strict=True))
        if output.shape[1] != channels or off > 2:
            raise ValueError(f'{tuple(output.shape)} for {channels} channels and stride {stride}')


def _check_gradients(backbone: ViTFeatBackbone, outputs: tuple[Tensor, ...]) -> None:
    named = [(name, p) for name, p in backbone.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(
        sum(output.sum() for output in outputs), [p for _, p in named], allow_unused=True
    )
    if unused := [name for (name, _), g in zip(named, gradients, strict=True) if g is None]:
        raise ValueError(f'{len(unused)} parameters without gradient: {unused[0]} ...')
