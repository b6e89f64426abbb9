"""EoMT and what `make bench` measures beside it: its peers with the same ViT, and transformers'."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from vit_backbones.benchmark.subjects import (
    Setting,
    Subject,
    build_backbone,
    built,
    drawn,
    of_backbone,
    placed,
)
from vit_backbones.config.loading import load_config
from vit_backbones.terminal import quiet_log

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
# Instance masks: pyramid and decoder as mmdet's for ResNet-50
_MASK2FORMER = CONFIGS / 'mask2former/mask2former_vit-b-dinov2_coco-instance.py'
_CLASSES, _QUERIES, _OBJECTS = 80, 200, 5
_BLOCKS = {384: 3, 768: 3, 1024: 4}  # with queries, as published, by the ViT's width
_PATCH = 16

Build = Callable[..., Subject]


def _vit(model: str, setting: Setting, **options: Any) -> dict[str, Any]:
    given = dict(type='ViTFeatBackbone', model_name=model, patch_size=_PATCH)
    return given | dict(img_size=setting.size) | options


def bare(model: str, setting: Setting) -> Subject:
    """The ViT, up to its last map."""
    vit = build_backbone(model, 'timm', setting.size, patch_size=_PATCH)
    return of_backbone(vit, setting)


def eomt(
    model: str, setting: Setting, *, half: bool = False, compile_mode: str | None = None
) -> Subject:
    """EoMT with a ViT, masks off in inference and on in training; see `_subject`."""
    width = build_backbone(model, 'timm', setting.size).layer_channels[-1]
    head = dict(type='EoMTHead', num_things_classes=_CLASSES, num_queries=_QUERIES)
    head['num_blocks'] = _BLOCKS.get(width, 2)
    config = _config(dict(type='EoMT', backbone=_vit(model, setting), panoptic_head=head))
    return _subject(config, setting, half=half, compile_mode=compile_mode)


def mask2former(model: str, setting: Setting) -> Subject:
    """Mask2Former with a ViT and a pyramid."""
    width = build_backbone(model, 'timm', setting.size).layer_channels[-1]
    return _with_decoder(
        _vit(model, setting, out_indices='even4', norm='all'),
        dict(type='SimpleFeaturePyramid', in_channels=[width] * 4),
        256,
        setting,
    )


def adapter(model: str, setting: Setting) -> Subject:
    """Mask2Former with a ViT-Adapter."""
    vit = _vit(model, setting, out_indices='even4', norm='none')
    width = build_backbone(model, 'timm', setting.size).layer_channels[-1]
    backbone = dict(type='ViTAdapter', backbone=vit, num_heads=width // 64)
    return _with_decoder(backbone, None, width, setting)


def _with_decoder(
    backbone: dict[str, Any], neck: dict[str, Any] | None, channels: int, setting: Setting
) -> Subject:
    config = load_config(str(_MASK2FORMER))
    config.model.backbone, config.model.neck = backbone, neck
    config.model.panoptic_head.in_channels = [channels] * 4
    config.model.panoptic_head.num_queries = _QUERIES
    config.model.data_preprocessor = None
    return _subject(config, setting)


def _config(model: dict[str, Any]) -> Config:
    loading = dict(type='LoadAnnotations', with_mask=True)  # so that drawn objects have masks
    data = dict(dataset=dict(pipeline=[loading]))
    return Config(dict(default_scope='mmdet', model=model, train_dataloader=data))


def _subject(
    config: Config, setting: Setting, *, half: bool = False, compile_mode: str | None = None
) -> Subject:
    """A detector with queries: in inference its logits of classes and masks, else its loss.

    With `half` its weights are bfloat16, instead of autocast.
    """
    import vit_backbones.mmdet  # noqa: F401

    model = placed(built(config, 'this case'), setting)
    images, samples = drawn(config, 'this case', model, setting, _OBJECTS)
    if half:
        model, images = model.bfloat16(), images.bfloat16()

    def logits(images: Tensor) -> tuple[Tensor, Tensor]:
        classes, masks = model.panoptic_head(model.extract_feat(images), samples)
        return classes[-1], masks[-1]

    called = torch.compile(logits, mode=compile_mode) if compile_mode else logits

    def run() -> Any:
        if setting.mode == 'forward':
            return called(images)
        with quiet_log():  # no training runs here, as the head would log
            return model.parse_losses(model(images, samples, mode='loss'))[0]

    return Subject(model, run, setting)


def in_transformers(model: str, setting: Setting) -> Subject:
    """transformers' EoMT of the same ViT, masks off in inference and on in training."""
    from transformers import EomtConfig, EomtForUniversalSegmentation

    vit = build_backbone(model, 'timm', setting.size).vit
    peer = EomtForUniversalSegmentation(
        EomtConfig(
            hidden_size=vit.embed_dim,
            num_hidden_layers=len(vit.blocks),
            num_attention_heads=vit.blocks[0].attn.num_heads,
            num_register_tokens=vit.num_prefix_tokens - 1,
            num_blocks=_BLOCKS.get(vit.embed_dim, 2),
            num_queries=_QUERIES,
            num_labels=_CLASSES,
            image_size=setting.size[0],
            patch_size=_PATCH,
        )
    )
    return _peer_subject(placed(peer, setting), setting, setting.images())


def _peer_subject(peer: nn.Module, setting: Setting, images: Tensor) -> Subject:
    peer.attn_mask_probs.fill_(float(setting.mode == 'train'))
    masks, labels = _objects(setting)

    def run() -> Any:
        if setting.mode == 'forward':
            found = peer(images)
            return found.class_queries_logits, found.masks_queries_logits
        return peer(images, mask_labels=masks, class_labels=labels).loss

    return Subject(peer, run, setting)


def _objects(setting: Setting) -> tuple[list[Tensor], list[Tensor]]:
    """Masks and classes of so many objects an image as `drawn` gives to ours."""
    shape = setting.batch_size, _OBJECTS, *setting.size
    masks = torch.zeros(shape, device=setting.device)
    for number in range(_OBJECTS):  # strips of the image
        masks[:, number, number * 32 : number * 32 + 64] = 1
    labels = torch.arange(_OBJECTS, device=setting.device).repeat(setting.batch_size, 1)
    return list(masks), list(labels)
