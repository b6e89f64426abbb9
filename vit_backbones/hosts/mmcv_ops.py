"""The compiled functions of mmcv by torchvision and PyTorch, for mmcv-lite.

They have mmcv's argument order and its habit of writing into tensors that the caller has
allocated. All compute in fp32 when given fp16 or bf16 and cast the result back; they use no
operation that autocast would run in a half type, and the same code on CPU and CUDA. Gradients come
from autograd through a second forward pass. Deformable attention has a module of its own.

mmcv itself rounds before it calls these functions, compiled or not: `batched_nms` moves boxes of
different classes apart in the type of the boxes. Keep boxes in fp32 under bf16 autocast.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as tv_ops

from vit_backbones.hosts.deformable_attention import deformable_attention
from vit_backbones.hosts.deformable_attention import wide as _wide

SERVED: dict[str, Callable[..., Any]] = {}


def refuse(what: str) -> NoReturn:
    """Name the missing operator, and how to get it."""
    raise NotImplementedError(
        f"{what} of mmcv is not among vit_backbones' stand-ins ({', '.join(sorted(SERVED))}). "
        'Install an mmcv with compiled operators: remove mmcv-lite, then build mmcv==2.1.0 from '
        'source with the CUDA toolkit that matches your torch (MMCV_WITH_OPS=1 pip install '
        '--no-binary mmcv mmcv==2.1.0), or install the onedl-mmcv family.'
    )


def _serve(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a function to the stand-in, under its name without the underscore."""
    SERVED[function.__name__.removeprefix('_')] = function
    return function


def _gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of `function(*inputs)` for every input, in the wide type."""
    with torch.enable_grad():
        leaves = [_wide(tensor.detach()).requires_grad_() for tensor in inputs]
        output = function(*leaves)
    return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))


def _write(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


# Non-maximum suppression


@_serve
def _nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes, by falling score. boxes: (N, 4) as x1 y1 x2 y2."""
    if offset:
        # Sides of x2 - x1 + 1 are those of boxes that end one pixel later. In fp64, since
        # batched_nms moves boxes so far out that fp32 would round the sum.
        boxes = boxes.double() + boxes.new_tensor([0, 0, offset, offset])
    boxes = _wide(boxes)
    # torchvision compares fp32 overlaps with an fp64 threshold: an overlap of just 0.4 would
    # exceed 0.4, which it does not in mmcv's kernel.
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return tv_ops.nms(boxes, scores.to(boxes.dtype), threshold)


@_serve
def _softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017): overlapping boxes lose score instead of going at once.

    Args:
        boxes: (N, 4) as x1 y1 x2 y2.
        scores: (N,).
        dets: (N, 5), whose first rows get the kept boxes and their new scores.
        iou_threshold: overlap from which methods 0 and 1 act.
        sigma: width of the Gaussian of method 2.
        min_score: boxes whose score falls below are dropped.
        method: 0 hard, 1 linear, 2 Gaussian.
        offset: 0 or 1, added to the sides of the boxes.

    Returns:
        Indices of the kept boxes, by falling score.
    """
    ends = _wide(boxes) + boxes.new_tensor([0, 0, offset, offset])
    scores, left, kept = _wide(scores).clone(), torch.arange(len(boxes)), []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept)] = torch.cat((boxes[best], scores[best, None]))
        kept.append(best)
        left = left[left != best]
        # Two boxes without area have the overlap 0 / 0, which counts as none.
        overlap = tv_ops.box_iou(ends[best, None], ends[left])[0].nan_to_num(0.0)
        if method == 2:
            decay = torch.exp(-overlap.square() / sigma)
        else:
            decay = torch.where(overlap < iou_threshold, 1.0, (1 - overlap) * (method == 1))
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


# RoIAlign


def _roi_align(
    features: Tensor,
    rois: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    """(B, C, H, W) and (N, 5) rois as image index, x1 y1 x2 y2 -> (N, C, height, width)."""
    if pool_mode == 0:
        refuse("pool_mode='max' of the operator 'roi_align' (use pool_mode='avg')")
    features = _wide(features)
    return tv_ops.roi_align(
        features,
        rois.to(features.dtype),
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        aligned,
    )


@_serve
def _roi_align_forward(
    features: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **grid: Any
) -> None:
    output.copy_(_roi_align(features, rois, **grid))


@_serve
def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **grid: Any,
) -> None:
    # Average pooling is linear: its gradient does not depend on the features.
    pool = functools.partial(_roi_align, rois=rois, **grid)
    _write([grad_input], _gradients(pool, [torch.zeros_like(grad_input)], grad_output))


# Deformable convolution, v1 (mmcv spells its geometry dW, padH, ...) and v2 (stride_h, pad_w, ...)


def _geometry(options: dict[str, Any], stride: str, padding: str, dilation: str) -> dict[str, Any]:
    """The (height, width) pairs of torchvision; `stride` and so on are mmcv's name prefixes."""
    height, width = ('H', 'W') if 'dH' in options else ('_h', '_w')
    return {
        name: (options[prefix + height], options[prefix + width])
        for name, prefix in (('stride', stride), ('padding', padding), ('dilation', dilation))
    }


def _deform_conv(options: dict[str, Any]) -> Callable[..., Tensor]:
    """Function of (features, offset, weight) -> (B, C_out, h, w)."""
    geometry = _geometry(options, 'd', 'pad', 'dilation')
    return lambda x, offset, weight: tv_ops.deform_conv2d(x, offset, weight, **geometry)


@_serve
def _deform_conv_forward(
    features: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    *buffers: Tensor,
    **options: Any,
) -> None:
    output.copy_(_deform_conv(options)(_wide(features), _wide(offset), _wide(weight)))


@_serve
def _deform_conv_backward_input(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *buffers: Tensor,
    **options: Any,
) -> None:
    def conv(x: Tensor, shift: Tensor) -> Tensor:
        return _deform_conv(options)(x, shift, _wide(weight))

    _write([grad_input, grad_offset], _gradients(conv, [features, offset], grad_output))


@_serve
def _deform_conv_backward_parameters(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    *buffers: Tensor,
    scale: float,
    **options: Any,
) -> None:
    conv = functools.partial(_deform_conv(options), _wide(features), _wide(offset))
    (grad,) = _gradients(conv, [torch.zeros_like(grad_weight)], grad_output)
    grad_weight.add_(grad, alpha=scale)


def _modulated_deform_conv(options: dict[str, Any]) -> Callable[..., Tensor]:
    """Function of (features, offset, mask, weight, bias) -> (B, C_out, h, w)."""
    geometry = _geometry(options, 'stride', 'pad', 'dilation')

    def conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = tv_ops.deform_conv2d(x, offset, weight, mask=mask, **geometry)
        # Without a bias mmcv passes an empty one, which has to keep its (empty) gradient.
        return out + (bias[:, None, None] if options['with_bias'] else bias.sum())

    return conv


@_serve
def _modulated_deform_conv_forward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **options: Any,
) -> None:
    conv = _modulated_deform_conv(options)
    output.copy_(conv(*map(_wide, (features, offset, mask, weight, bias))))


@_serve
def _modulated_deform_conv_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **options: Any,
) -> None:
    inputs = [features, offset, mask, weight, bias]
    targets = [grad_input, grad_offset, grad_mask, grad_weight, grad_bias]
    _write(targets, _gradients(_modulated_deform_conv(options), inputs, grad_output))


# Focal losses (Lin et al., Focal Loss for Dense Object Detection, ICCV 2017)


def _class_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Factor of each sample, (N,); 1 for background, whose target is -1 or the class count."""
    return F.pad(_wide(weight), (0, 1), value=1.0)[target] if weight.numel() else 1.0


def _sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """(N, C) logits and (N,) class indices -> (N, C) losses."""
    positive = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    signed = torch.where(positive, logits, -logits)
    # (1 - p_t) ** gamma through its logarithm: exact gradients where 1 - p_t underflows.
    loss = -torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    balanced = loss * torch.where(positive, alpha, 1 - alpha)
    return (balanced.T * _class_weight(weight, target)).T


@_serve
def _sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    output.copy_(_sigmoid_focal_loss(_wide(logits), target, weight, gamma, alpha))


@_serve
def _sigmoid_focal_loss_backward(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    def loss(x: Tensor) -> Tensor:
        return _sigmoid_focal_loss(x, target, weight, gamma, alpha)

    _write([grad_input], _gradients(loss, [logits], torch.ones_like(logits)))


def _softmax_focal_loss(
    log_probs: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """(N, C) log-softmax and (N,) class indices -> (N,) losses, 0 for negative indices."""
    log_p = log_probs.gather(1, target.clamp_min(0)[:, None])[:, 0]
    # The floor keeps the gradient of the power finite at p = 1 for gamma < 1.
    rest = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).tiny)
    loss = -alpha * rest**gamma * log_p
    return torch.where(target >= 0, loss * _class_weight(weight, target), 0.0)


def _log_probs(softmax: Tensor) -> Tensor:
    softmax = _wide(softmax)
    return softmax.clamp_min(torch.finfo(softmax.dtype).tiny).log()


@_serve
def _softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    output.copy_(_softmax_focal_loss(_log_probs(softmax), target, weight, gamma, alpha))


@_serve
def _softmax_focal_loss_backward(
    softmax: Tensor,
    target: Tensor,
    weight: Tensor,
    buffer: Tensor,
    grad_input: Tensor,
    *,
    gamma: float,
    alpha: float,
) -> None:
    # mmcv hands the softmax over, but wants the gradient for the logits: log-probabilities serve
    # as logits, since log_softmax leaves them as they are.
    def loss(logits: Tensor) -> Tensor:
        return _softmax_focal_loss(logits.log_softmax(1), target, weight, gamma, alpha)

    _write([grad_input], _gradients(loss, [_log_probs(softmax)], torch.ones_like(buffer)))


# Multi-scale deformable attention: mmcv's layer takes `attend_as_mmcv` instead


def attend_as_mmcv(
    value: Tensor,
    shapes: Tensor,
    level_start: Tensor,
    locations: Tensor,
    weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """`MultiScaleDeformableAttnFunction.apply` of mmcv, which would round the locations."""
    return deformable_attention(value, shapes, locations, weights)


@_serve
def _ms_deform_attn_forward(*inputs: Tensor, im2col_step: int) -> Tensor:
    return attend_as_mmcv(*inputs, im2col_step)


@_serve
def _ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    level_start: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    def attend(*inputs: Tensor) -> Tensor:
        return deformable_attention(inputs[0], shapes, *inputs[1:])

    grads = _gradients(attend, [value, locations, weights], grad_output)
    _write([grad_value, grad_locations, grad_weights], grads)


# Facts on mmcv's build, which `collect_env` reports


@_serve
def _get_compiler_version() -> str:
    return 'none (operators served by vit_backbones)'


@_serve
def _get_compiling_cuda_version() -> str:
    return 'not available'
