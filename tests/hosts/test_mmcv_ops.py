"""The stand-in operators against torchvision, mmcv's own PyTorch code, and written-out loops."""

import importlib
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from vit_backbones.hosts import mmcv_loader

DEVICES = [
    'cpu',
    pytest.param(
        'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
    ),
]
HALF_TOLERANCE = {torch.float16: 2**-10, torch.bfloat16: 2**-7}
LEVELS = [(16, 24), (8, 12), (5, 7)]


@pytest.fixture(scope='module')
def ops() -> ModuleType:
    mmcv_loader.install()
    return importlib.import_module('mmcv.ops')


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """The largest error is at most `tolerance` of the largest expected magnitude (at least 1)."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item())


def value_and_gradients(
    function: Callable[..., Tensor], *inputs: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    probe = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape)
    return out.detach(), torch.autograd.grad((out * probe).sum(), leaves)


def assert_same(
    actual: Callable[..., Tensor],
    expected: Callable[..., Tensor],
    *inputs: Tensor,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Value and gradients in `dtype` equal those in fp32 of the same, already rounded, inputs."""
    rounded = [x.to(dtype) for x in inputs]
    out, grads = value_and_gradients(actual, *rounded)
    reference, reference_grads = value_and_gradients(expected, *(x.float() for x in rounded))
    assert out.dtype == dtype
    for ours, theirs in zip((out, *grads), (reference, *reference_grads), strict=True):
        assert_near(ours, theirs, HALF_TOLERANCE.get(dtype, 1e-5))


# install


@pytest.fixture
def no_extension(ops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'mmcv._ext')


def test_install_twice_keeps_the_first_stand_in(ops: ModuleType) -> None:
    before = sys.modules['mmcv._ext']
    assert 'served through torchvision' in mmcv_loader.install()
    assert sys.modules['mmcv._ext'] is before


@pytest.mark.usefixtures('no_extension')
def test_compiled_extension_is_left_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    (tmp_path / 'mmcv/_ext.py').write_text("nms = 'compiled'")
    monkeypatch.delitem(sys.modules, 'mmcv')
    monkeypatch.syspath_prepend(tmp_path)
    assert 'left untouched' in mmcv_loader.install()
    assert importlib.import_module('mmcv._ext').nms == 'compiled'
    assert 'left untouched' in mmcv_loader.install()


@pytest.mark.usefixtures('no_extension')
def test_install_does_not_import_mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'mmcv')
    mmcv_loader.install()
    assert 'mmcv' not in sys.modules


@pytest.mark.usefixtures('no_extension')
def test_switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VIT_BACKBONES_MMCV_OPS', 'off')
    assert 'VIT_BACKBONES_MMCV_OPS=off' in mmcv_loader.install()
    assert 'mmcv._ext' not in sys.modules


@pytest.mark.usefixtures('no_extension')
def test_unknown_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VIT_BACKBONES_MMCV_OPS', 'no')
    with pytest.raises(ValueError, match="'on' or 'off', got 'no'"):
        mmcv_loader.install()


@pytest.mark.usefixtures('no_extension')
def test_without_mmcv_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    assert 'not installed' in mmcv_loader.install()
    assert 'mmcv._ext' not in sys.modules


@pytest.mark.filterwarnings('ignore:.*find_loader:DeprecationWarning')
def test_mmcv_finds_its_extension(ops: ModuleType) -> None:
    assert importlib.import_module('mmcv.utils.ext_loader').check_ops_exist()
    assert importlib.util.find_spec('mmcv._ext').origin == 'vit_backbones.hosts.mmcv_loader'


def test_missing_operator_names_itself_and_the_way_out(ops: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match=r"'nms_rotated'.*onedl-mmcv"):
        ops.nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)


def test_private_names_are_not_claimed(ops: ModuleType) -> None:
    assert not hasattr(sys.modules['mmcv._ext'], '__wrapped__')


# Non-maximum suppression


def draw_boxes(count: int) -> Tensor:
    corner, size = torch.randint(0, 30, (count, 2)), torch.randint(1, 15, (count, 2))
    return torch.cat((corner, corner + size), 1).float()


def overlap_of(a: list[float], b: list[float], offset: int) -> float:
    area_a, area_b = ((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b))
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    return width * height / (area_a + area_b - width * height)


def loop_soft_nms(
    boxes: Tensor, scores: Tensor, decay: Callable[[float], float], min_score: float, offset: int
) -> tuple[list[int], list[float]]:
    rows, left = boxes.tolist(), dict(enumerate(scores.tolist()))
    kept, new_scores = [], []
    while left:
        best = max(left, key=left.get)
        kept.append(best)
        new_scores.append(left.pop(best))
        for i in left:
            left[i] *= decay(overlap_of(rows[best], rows[i], offset))
        left = {i: score for i, score in left.items() if score >= min_score}
    return kept, new_scores


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('device', DEVICES)
def test_nms_equals_loops(ops: ModuleType, offset: int, dtype: torch.dtype, device: str) -> None:
    boxes, scores = draw_boxes(60), (1 + torch.randperm(60)) / 64  # all exact in every type
    expected, _ = loop_soft_nms(boxes, scores, lambda overlap: overlap <= 0.4, 1e-9, offset)
    dets, kept = ops.nms(boxes.to(device, dtype), scores.to(device, dtype), 0.4, offset=offset)
    assert kept.tolist() == expected
    assert dets.dtype == dtype


def test_nms_offset_decides(ops: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])  # overlap 4/14 or, counted in pixels, 1/3
    scores = torch.tensor([0.9, 0.8])
    assert [len(ops.nms(boxes, scores, 0.3, offset=k)[1]) for k in (0, 1)] == [2, 1]


def test_nms_of_no_boxes(ops: ModuleType) -> None:
    dets, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, offset=1)
    assert (dets.shape, kept.shape) == ((0, 5), (0,))


@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_equals_torchvision(ops: ModuleType, split_thr: int) -> None:
    boxes, scores, labels = draw_boxes(80), torch.rand(80), torch.randint(0, 5, (80,))
    config = {'type': 'nms', 'iou_threshold': 0.3, 'split_thr': split_thr, 'max_num': 20}
    dets, kept = ops.batched_nms(boxes, scores, labels, config)
    expected = torchvision.ops.batched_nms(boxes, scores, labels, 0.3)[:20]
    assert kept[:20].tolist() == expected.tolist()
    assert torch.equal(dets[:20], torch.cat((boxes[kept], scores[kept, None]), 1)[:20])


def test_batched_nms_with_offset_one_equals_loops_in_each_class(ops: ModuleType) -> None:
    boxes, scores, labels = draw_boxes(80), torch.rand(80), torch.randint(0, 3, (80,))
    config = {'type': 'nms', 'iou_threshold': 0.35, 'offset': 1}
    _, kept = ops.batched_nms(boxes, scores, labels, config)
    expected = []
    for label in range(3):
        (index,) = torch.where(labels == label)
        found, _ = loop_soft_nms(boxes[index], scores[index], lambda v: v <= 0.35, 1e-9, 1)
        expected += index[found].tolist()
    assert sorted(kept.tolist()) == sorted(expected)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize(
    ('method', 'decay'),
    [
        ('naive', lambda overlap: float(overlap < 0.3)),
        ('linear', lambda overlap: 1 - overlap if overlap >= 0.3 else 1.0),
        ('gaussian', lambda overlap: math.exp(-(overlap**2) / 0.5)),
    ],
)
def test_soft_nms_equals_loops(
    ops: ModuleType, method: str, decay: Callable[[float], float], offset: int
) -> None:
    boxes, scores = draw_boxes(40), torch.rand(40)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    expected, new_scores = loop_soft_nms(boxes, scores, decay, 0.05, offset)
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[:, 4], torch.tensor(new_scores))
    assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms_of_boxes_without_area(ops: ModuleType) -> None:
    boxes, scores = torch.tensor([[3.0, 1, 3, 1]] * 3), torch.tensor([0.5, 0.4, 0.0])
    _, kept = ops.soft_nms(boxes, scores, 0.6, method='gaussian')
    assert kept.tolist() == [0, 1]


# RoIAlign

ROIS = torch.tensor(
    [[0, 1.5, 2, 20, 9.5], [1, 0, 0, 28, 12], [1, 4, 4, 4.5, 4.25], [0, -6, -3, 50, 40]]
)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('device', DEVICES)
def test_roi_align_equals_torchvision(
    ops: ModuleType, dtype: torch.dtype, aligned: bool, device: str
) -> None:
    rois = ROIS.to(device)
    layer = ops.RoIAlign((7, 5), spatial_scale=0.5, sampling_ratio=0, aligned=aligned)
    assert_same(
        lambda x: layer(x, rois.to(x.dtype)),
        lambda x: torchvision.ops.roi_align(x, rois, (7, 5), 0.5, 0, aligned),
        torch.rand(2, 6, 13, 29, device=device),
        dtype=dtype,
    )


def test_roi_align_of_a_ramp_is_the_bin_centre(ops: ModuleType) -> None:
    ramp = torch.arange(29.0).expand(1, 1, 13, 29)
    pooled = ops.RoIAlign((2, 4), sampling_ratio=2)(ramp, torch.tensor([[0.0, 3, 2, 19, 10]]))
    centres = torch.tensor([5.0, 9.0, 13.0, 17.0]) - 0.5  # pixel 0 is centred at 0.5
    torch.testing.assert_close(pooled[0, 0], centres.expand(2, 4))


def test_roi_align_of_no_rois_has_zero_gradient(ops: ModuleType) -> None:
    features = torch.rand(1, 2, 5, 9, requires_grad=True)
    pooled = ops.RoIAlign(3)(features, torch.zeros(0, 5))
    pooled.sum().backward()
    assert pooled.shape == (0, 2, 3, 3)
    assert not features.grad.any()


def test_roi_align_max_is_refused(ops: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match=r"pool_mode='max'.*pool_mode='avg'"):
        ops.RoIAlign(3, pool_mode='max')(torch.rand(1, 2, 5, 9), ROIS[:1])


# Deformable convolution


def sample(image: Tensor, y: float, x: float) -> float:
    """Bilinear value of an (H, W) image, zero outside."""
    total, (top, left) = 0.0, (math.floor(y), math.floor(x))
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column].item()
    return total


def loop_deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """One image, stride (2, 1), padding (1, 2), dilation (1, 2), two groups of each kind."""
    out = torch.zeros(len(weight), *offset.shape[2:])
    _, per_group, height, width = weight.shape
    for o, i, j in itertools.product(*map(range, out.shape)):
        for c, u, v in itertools.product(range(per_group), range(height), range(width)):
            channel = (o // (len(weight) // 2)) * per_group + c
            tap = (channel // (x.shape[1] // 2)) * height * width + u * width + v
            dy, dx = offset[0, 2 * tap : 2 * tap + 2, i, j].tolist()
            value = sample(x[0, channel], 2 * i - 1 + u + dy, j - 2 + 2 * v + dx)
            out[o, i, j] += weight[o, c, u, v] * mask[0, tap, i, j] * value
    return out[None]


DEFORM_OPTIONS = ((2, 1), (1, 2), (1, 2), 2, 2)


def deform_inputs(device: str = 'cpu') -> list[Tensor]:
    """Features, offsets, mask, weight and bias on a rectangle: kernel (3, 2), output (4, 9)."""
    shapes = [(1, 4, 7, 7), (1, 24, 4, 9), (1, 12, 4, 9), (4, 2, 3, 2), (4,)]
    return [torch.randn(shape, device=device) for shape in shapes]


def test_deform_conv_equals_loops(ops: ModuleType) -> None:
    x, offset, mask, weight, _ = deform_inputs()
    out = ops.deform_conv2d(x, offset, weight, *DEFORM_OPTIONS)
    torch.testing.assert_close(out, loop_deform_conv(x, offset, torch.ones_like(mask), weight))


def test_modulated_deform_conv_equals_loops(ops: ModuleType) -> None:
    x, offset, mask, weight, bias = deform_inputs()
    out = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *DEFORM_OPTIONS)
    torch.testing.assert_close(out, loop_deform_conv(x, offset, mask, weight) + bias[:, None, None])


def test_deform_conv_gradients_are_the_slopes(ops: ModuleType) -> None:
    x, offset, _, weight, _ = (t.double().requires_grad_() for t in deform_inputs())
    assert torch.autograd.gradcheck(
        lambda *inputs: ops.deform_conv2d(*inputs, *DEFORM_OPTIONS),
        (x, offset, weight),
        fast_mode=True,
    )


@pytest.mark.parametrize('with_bias', [True, False])
def test_modulated_deform_conv_gradients_are_the_slopes(ops: ModuleType, with_bias: bool) -> None:
    inputs = [t.double().requires_grad_() for t in deform_inputs()]
    bias = [] if with_bias else [None]
    assert torch.autograd.gradcheck(
        lambda *given: ops.modulated_deform_conv2d(*given, *bias, *DEFORM_OPTIONS),
        inputs if with_bias else inputs[:4],
        fast_mode=True,
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('device', DEVICES)
def test_modulated_deform_conv_in_half_types_equals_torchvision(
    ops: ModuleType, dtype: torch.dtype, device: str
) -> None:
    assert_same(
        lambda x, o, m, w, b: ops.modulated_deform_conv2d(x, o, m, w, b, *DEFORM_OPTIONS),
        lambda x, o, m, w, b: torchvision.ops.deform_conv2d(x, o, w, b, *DEFORM_OPTIONS[:3], m),
        *deform_inputs(device),
        dtype=dtype,
    )


# Focal losses


def loop_sigmoid_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    loss = torch.zeros_like(logits)
    for n, c in itertools.product(*map(range, logits.shape)):
        p = 1 / (1 + math.exp(-logits[n, c]))
        if target[n] == c:
            loss[n, c] = -alpha * (1 - p) ** gamma * math.log(p)
        else:
            loss[n, c] = -(1 - alpha) * p**gamma * math.log(1 - p)
    return loss


@pytest.mark.parametrize('gamma', [2.0, 0.5, 0.0])
def test_sigmoid_focal_loss_equals_loops(ops: ModuleType, gamma: float) -> None:
    logits, target = 3 * torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, 1])  # 4: background
    loss = ops.sigmoid_focal_loss(logits, target, gamma, 0.25, None, 'none')
    torch.testing.assert_close(loss, loop_sigmoid_focal(logits, target, gamma, 0.25))


def test_sigmoid_focal_loss_weighs_the_class_of_the_sample(ops: ModuleType) -> None:
    logits, target = torch.randn(3, 2), torch.tensor([0, 1, 2])
    plain = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    weighted = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, torch.tensor([3.0, 5.0]), 'none')
    torch.testing.assert_close(weighted, plain * torch.tensor([[3.0], [5.0], [1.0]]))


def test_sigmoid_focal_loss_gradients_are_the_slopes(ops: ModuleType) -> None:
    logits = torch.randn(6, 4).double().requires_grad_()
    target, weight = torch.tensor([0, 1, 2, 3, 4, 1]), torch.rand(4).double()
    assert torch.autograd.gradcheck(
        lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, 'mean'), [logits]
    )


def test_sigmoid_focal_loss_is_finite_for_huge_logits(ops: ModuleType) -> None:
    logits = torch.tensor([[-300.0, 300.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0]), 0.5, 0.25, None, 'none')
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([[75.0, 225.0]]))
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.75]]))


def test_softmax_focal_loss_equals_loops(ops: ModuleType) -> None:
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, -1])
    loss = ops.softmax_focal_loss(logits, target, 2.0, 0.25, torch.tensor([1.0, 2, 3]), 'none')
    probs = logits.softmax(1)
    expected = [
        -0.25 * weight * (1 - probs[n, c].item()) ** 2 * math.log(probs[n, c])
        for n, (c, weight) in enumerate([(0, 1.0), (1, 2.0), (2, 3.0), (1, 2.0)])
    ]
    torch.testing.assert_close(loss, torch.tensor([*expected, 0.0]))


@pytest.mark.parametrize('gamma', [2.0, 0.5])
def test_softmax_focal_loss_gradients_are_the_slopes(ops: ModuleType, gamma: float) -> None:
    logits = torch.randn(5, 3).double().requires_grad_()
    target, weight = torch.tensor([0, 1, 2, 1, -1]), torch.rand(3).double()
    assert torch.autograd.gradcheck(
        lambda x: ops.softmax_focal_loss(x, target, gamma, 0.25, weight, 'mean'), [logits]
    )


# Multi-scale deformable attention


def attention_inputs(device: str = 'cpu') -> list[Tensor]:
    """Values, locations (some outside the maps) and weights: 2 images, 4 heads, 30 queries."""
    keys = sum(h * w for h, w in LEVELS)
    value = torch.randn(2, keys, 4, 8)
    locations = torch.rand(2, 30, 4, 3, 4, 2) * 1.4 - 0.2
    weights = torch.rand(2, 30, 4, 12).softmax(-1).view(2, 30, 4, 3, 4)
    return [x.to(device) for x in (value, locations, weights)]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('device', DEVICES)
def test_deformable_attention_equals_mmcv(ops: ModuleType, dtype: torch.dtype, device: str) -> None:
    module = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    shapes = torch.tensor(LEVELS, device=device)
    starts = torch.cat((shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]))
    assert_same(
        lambda v, x, w: module.MultiScaleDeformableAttnFunction.apply(v, shapes, starts, x, w, 64),
        lambda v, x, w: module.multi_scale_deformable_attn_pytorch(v, shapes, x, w),
        *attention_inputs(device),
        dtype=dtype,
    )


# mmcv's layers, with and without autocast


def deformable_attention(ops: ModuleType) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    shapes = torch.tensor(LEVELS)
    layer = ops.MultiScaleDeformableAttention(32, 4, 3, 4, dropout=0.0, batch_first=True)
    # Smooth maps: on noise the gradient of a location jumps with the least rounding.
    coarse = torch.randn(2, 32, 2, 3)
    maps = [F.interpolate(coarse, size=size, mode='bilinear').flatten(2) for size in LEVELS]
    x = torch.cat(maps, 2).transpose(1, 2)
    points = torch.rand(2, x.shape[1], 3, 2)
    return layer, lambda q: layer(q, reference_points=points, spatial_shapes=shapes), x


def roi_align(ops: ModuleType) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    conv, pool = nn.Conv2d(4, 4, 1), ops.RoIAlign((3, 2), 0.5)
    return conv, lambda x: pool(conv(x), ROIS), torch.randn(2, 4, 7, 11)


def sigmoid_focal_loss(ops: ModuleType) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    linear, loss, target = nn.Linear(8, 4), ops.SigmoidFocalLoss(2.0, 0.25), torch.arange(50) % 5
    return linear, lambda x: loss(linear(x), target), torch.randn(50, 8)


def deform_conv(ops: ModuleType) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    conv, offset = ops.DeformConv2d(4, 6, 3, padding=1), torch.randn(2, 18, 7, 11)
    return conv, lambda x: conv(x, offset), torch.randn(2, 4, 7, 11)


def modulated_deform_conv(ops: ModuleType) -> tuple[nn.Module, Callable[..., Tensor], Tensor]:
    pack = ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    nn.init.normal_(pack.conv_offset.weight, std=0.1)
    return pack, pack, F.interpolate(torch.randn(2, 4, 2, 3), size=(7, 11), mode='bilinear')


@pytest.mark.parametrize(
    'build',
    [deformable_attention, roi_align, sigmoid_focal_loss, deform_conv, modulated_deform_conv],
)
def test_layer_under_bf16_autocast_stays_near_fp32(
    ops: ModuleType, build: Callable[..., tuple[nn.Module, Callable[..., Tensor], Tensor]]
) -> None:
    layer, call, x = build(ops)
    runs = []
    for enabled in (False, True):
        layer.zero_grad()
        x = x.detach().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out = call(x)
        out.float().square().sum().backward()
        runs.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for full, mixed in zip(*runs, strict=True):
        assert (full - mixed.float()).norm() <= 0.05 * full.norm()
