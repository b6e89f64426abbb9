"""What a distillation is asked to do, and the training that follows, as MMEngine describes it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_backbones.distillation.pairing import Pair
from vit_backbones.models.chosen import Choice

SPAN = 20  # iterations whose mean loss is shown


class Plan(NamedTuple):
    """What is distilled, and how.

    Attributes:
        images: As `find_images` takes them.
        out: Folder for the student, the checkpoints and the log.
        epochs: Passes over the images, where there are no `iters`.
        iters: Batches.
        lr: Highest learning rate.
        size: Side, or (H, W), of the student's images.
        teacher_size: The same for the teacher.
        views: Fixed crops of each image, `None` for another one each time.
        cache: Folder that keeps the teacher's features of these.
        max_gb: Largest cache, in 10**9 bytes.
        num_workers: Processes that load images; by default as many as suit the machine.
        save_every: Iterations between two checkpoints.
        resume: A checkpoint, or `'auto'` for the last one in `out`.
    """

    teacher: Choice
    student: Choice
    images: Sequence[str]
    out: Path
    epochs: int = 20
    iters: int | None = None
    batch_size: int = 32
    lr: float = 3e-4
    size: Sequence[int] | None = None
    teacher_size: Sequence[int] | None = None
    views: int | None = None
    cache: Path | None = None
    max_gb: float = 20.0
    seed: int = 0
    amp: bool = False
    device: str | None = None
    num_workers: int | None = None
    save_every: int = 500
    resume: str | None = None


def as_config(plan: Plan, pair: Pair, num_images: int) -> dict[str, Any]:
    """The training as MMEngine describes it; its model is built already."""
    iters = plan.iters or plan.epochs * math.ceil(num_images / plan.batch_size)
    warm = iters // 20
    up = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=warm)] if warm > 1 else []
    notes = _notes(plan, pair, num_images, iters)
    pipeline = [
        dict(type='LoadRGBImage'),
        dict(type='CropForBoth', student=pair.size, teacher=pair.teacher_size),
    ]
    dataset = dict(type='UnlabelledImages', inputs=list(plan.images), pipeline=pipeline)
    loader = dict(
        batch_size=plan.batch_size,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dataset | dict(views=plan.views, seed=plan.seed),
    )
    if plan.num_workers is not None:
        loader['num_workers'] = plan.num_workers
    return dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper=_optimizer(plan.lr),
        param_scheduler=[
            *up,
            dict(type='CosineAnnealingLR', by_epoch=False, begin=warm, end=iters),
        ],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=SPAN, log_metric_by_epoch=False),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=plan.save_every, max_keep_ckpts=1
            ),
            start=dict(type='StartHook', seed=plan.seed, batch_size=plan.batch_size),
            student=dict(type='StudentHook', notes=notes, metadata=_metadata(pair)),
        ),
        log_processor=dict(by_epoch=False, window_size=SPAN),
        randomness=dict(seed=plan.seed),
        env_cfg=dict(dist_cfg=dict(backend='nccl')),
    )


def _optimizer(lr: float) -> dict[str, Any]:
    """AdamW without decay of biases, norms and tokens, as ViTs are trained, in few groups."""
    return dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05),
        constructor='ViTLayerDecayConstructor',
        paramwise_cfg=dict(decay_rate=1.0),
        clip_grad=dict(max_norm=3.0),
    )


def _notes(plan: Plan, pair: Pair, num_images: int, iters: int) -> dict[str, Any]:
    """All that decides the losses, by the names of the arguments."""
    same = ('batch_size', 'lr', 'views', 'seed', 'amp')
    return dict(
        teacher=f'{pair.teacher.name} ({pair.teacher.fingerprint()[:16]})',
        student=pair.student.name,
        images=num_images,
        iters=iters,
        size=list(pair.size),
        teacher_size=list(pair.teacher_size),
        layers=list(pair.student.backbone.out_indices),
        **{name: getattr(plan, name) for name in same},
    )


def _metadata(pair: Pair) -> dict[str, str]:
    return dict(
        model=pair.student.backbone.model_name,
        distilled_from=pair.teacher.name,
        mean=json.dumps(pair.student.mean),
        std=json.dumps(pair.student.std),
    )
