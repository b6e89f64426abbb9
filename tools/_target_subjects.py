"""What the cases of `make bench` measure beside backbones: losses, whole steps, attention."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vit_backbones.benchmark.measuring import flops_and_floor
from vit_backbones.benchmark.step_peers import as_the_toolbox, by_grid_sample, with_stock_head
from vit_backbones.benchmark.subjects import Setting, Subject, built
from vit_backbones.benchmark.training_step import TrainingStep, training_config, training_step
from vit_backbones.checks.trial import data_samples

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
MASK2FORMER = CONFIGS / 'mask2former/mask2former_vit-b-dinov2_coco-instance.py'
_TINY = ('model.backbone.model_name=test_vit', 'model.neck.in_channels=[64,64,64,64]')
_OUTPUTS = 10  # of its decoder
_STRIDE = 4  # of its masks
_OBJECTS = 5
_SIDE = 8192  # of the matrices whose product stands for the peak of a GPU


def loss(setting: Setting, *, stock: bool = False) -> Subject:
    """Mask2Former's losses of drawn outputs, by the recipe's head or the toolbox's own."""
    config = training_config(MASK2FORMER, _TINY)
    if stock:
        config = with_stock_head(config) or config
    model = built(config, MASK2FORMER)
    head = model.panoptic_head.to(setting.device).train()
    samples = data_samples(config, model, setting.size, setting.batch_size, _OBJECTS)
    samples = [each.to(setting.device) for each in samples]
    objects = [each.gt_instances for each in samples]
    objects = head.preprocess_gt(objects, [None] * len(samples))
    classes, masks = (list(each.unbind()) for each in _outputs(head, setting))

    def run() -> Tensor:
        losses = head.loss_by_feat(classes, masks, objects, [each.metainfo for each in samples])
        return sum(losses.values())

    return Subject(head, run, setting)


def _outputs(head: nn.Module, setting: Setting) -> tuple[Tensor, Tensor]:
    """Logits of classes and masks of all outputs, (outputs, B, queries, ...)."""
    many = (_OUTPUTS, setting.batch_size, head.num_queries)
    small = tuple(side // _STRIDE for side in setting.size)
    classes = torch.randn(*many, head.num_classes + 1, device=setting.device)
    masks = torch.randn(*many, *small, device=setting.device)
    return classes.requires_grad_(), masks.requires_grad_()


def mask2former(setting: Setting, *, stock: bool = False) -> TrainingStep:
    """A training step of Mask2Former with DINOv2 ViT-B, by the recipe or as mmdet computes it."""
    if stock:
        return as_the_toolbox(training_config(MASK2FORMER), MASK2FORMER, setting)
    return training_step(MASK2FORMER, (), setting)


def drawn_shapes(setting: Setting) -> TrainingStep:
    """A training step of the recipe of `make train`."""
    return training_step(CONFIGS / 'mask2former_vit.py', (), setting)


class _Sampling(nn.Module):
    """Deformable attention of maps of strides 8, 16 and 32, every cell a query."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.shapes = [tuple(side // stride for side in setting.size) for stride in (32, 16, 8)]
        cells = sum(h * w for h, w in self.shapes)
        batch, heads, channels, points = setting.batch_size, 8, 32, 4
        shape = (batch, cells, heads, len(self.shapes), points)
        self.value = nn.Parameter(torch.randn(batch, cells, heads, channels))
        self.locations = nn.Parameter(torch.rand(*shape, 2))
        self.weights = nn.Parameter(torch.randn(*shape).flatten(3).softmax(-1).view(shape))


def deformable(setting: Setting, *, stock: bool = False) -> Subject:
    """Deformable attention as mmcv calls it: by this package's operator, or by grid_sample."""
    from mmcv.ops import multi_scale_deform_attn as place

    module = _Sampling(setting).to(setting.device)
    shapes = torch.tensor(module.shapes, device=setting.device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    given = module.value, shapes, starts, module.locations, module.weights, 64

    def run() -> Tensor:
        if not stock:
            return place.MultiScaleDeformableAttnFunction.apply(*given).sum()
        with by_grid_sample():
            return place.MultiScaleDeformableAttnFunction.apply(*given).sum()

    return Subject(module, run, setting)


def floor(build: Callable[[], Subject], setting: Setting) -> Subject:
    """Only the matrix products, convolutions and attentions of a subject."""
    subject = build()
    _, replay = flops_and_floor(subject.visible_step)
    return Subject(subject.model, replay, setting._replace(dtype='fp32', mode='forward'))


def matrix_product(setting: Setting) -> Subject:
    """A large product in bf16: what the GPU reaches at best."""
    a, b = (torch.randn(_SIDE, _SIDE, device=setting.device, dtype=torch.bfloat16) for _ in 'ab')
    wanted = setting._replace(dtype='fp32', mode='forward')

    def run() -> Any:
        return a @ b

    return Subject(nn.Identity(), run, wanted)
