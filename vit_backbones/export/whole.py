"""A whole trained model in an exported file: from images to classes."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from vit_backbones.checks.wiring import vit_of
from vit_backbones.config.datasets import pads_with_black
from vit_backbones.export.graph import ImageGraph
from vit_backbones.models.chosen import Loaded, expected_images
from vit_backbones.models.trained import Trained

# Heads by what they give. Postprocessing with loops over values is not part of a graph.
_OF_PIXELS = ('FCNHead', 'UPerHead', 'SegEoMTHead', 'SegPlainMaskHead')
_OF_QUERIES = ('EoMTHead', 'PlainMaskHead')
_SUPPORTED = (
    'EoMT (EoMTHead, SegEoMTHead), plain mask heads (PlainMaskHead, SegPlainMaskHead), linear '
    '(FCNHead) and UPerNet (UPerHead)'
)
_MERGING = ('object_mask_thr', 'iou_thr', 'filter_low_score', 'max_per_image')


class WholeGraph(ImageGraph):
    """From images of one size to what a trained model finds in them, at that size.

    Segmenters give `scores` (B, classes, H, W), of which the largest is the label. Detectors with
    queries give logits: `classes` (B, Q, classes + 1), the last of which is no object, and `masks`
    (B, Q, H, W).

    Args:
        trained: The model; it is copied, and `lora` merged in the copy.
        name: Of its config.
        weights: Of its checkpoint.
        normalises: Take RGB images on 0-255 and normalise them.

    Raises:
        ValueError: If its head or another part of it is not one of those that are exported.
    """

    any_size = False

    def __init__(
        self, trained: Trained, name: str, weights: str, *, normalises: bool = False
    ) -> None:
        head = _supported(trained, name)
        model = copy.deepcopy(trained.model).cpu()
        backbone = vit_of(model)
        images = expected_images(trained.config, backbone)
        loaded = Loaded(backbone, Path(name).stem, weights, *images)
        super().__init__(loaded, backbone, normalises=normalises)
        self.model, self.classes = model, trained.classes
        self.padding = 'black' if pads_with_black(trained.config) else 'mean'
        self.by_queries = head in _OF_QUERIES
        self.eval().requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The ViT in the model."""
        return vit_of(self.model)

    @property
    def title(self) -> str:
        """Name of the config, in messages."""
        return self.loaded.name

    def output_names(self, count: int) -> list[str]:
        """Names of the outputs."""
        return ['classes', 'masks'] if self.by_queries else ['scores']

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run (B, C, H, W) images."""
        images = self.prepared(images)
        size = tuple(images.shape[-2:])
        shapes = dict.fromkeys(('img_shape', 'pad_shape', 'batch_input_shape', 'ori_shape'), size)
        if not self.by_queries:
            return (self.model.encode_decode(images, [dict(shapes)] * len(images)),)
        samples = [BaseDataElement(metainfo=dict(shapes)) for _ in images]
        return tuple(self.model.panoptic_head.predict(self.model.extract_feat(images), samples))

    def notes(self) -> dict[str, object]:
        """Notes for users of the file: classes, padding, and how the config reads queries."""
        found: dict[str, object] = dict(classes=self.classes, padding=self.padding)
        if self.by_queries:
            found['num_things'] = self.model.panoptic_head.num_things_classes
            found |= merging(self.model.test_cfg)
        return super().notes() | found


def merging(test_cfg: Config | dict[str, Any] | None) -> dict[str, Any]:
    """The options by which a config's `test_cfg` turns queries into objects."""
    return {key: test_cfg[key] for key in _MERGING if key in (test_cfg or {})}


def _supported(trained: Trained, name: str) -> str:
    """The type of the model's head, if a whole file of it can be written."""
    model = trained.model
    heads = [
        type(head).__name__
        for key in ('decode_head', 'panoptic_head', 'bbox_head', 'roi_head')
        if (head := getattr(model, key, None)) is not None
    ]
    head = ', '.join(heads) or 'no head'
    deformable = any('DeformableAttention' in type(each).__name__ for each in model.modules())
    reason = ' with deformable attention' if deformable else ''
    if deformable or head not in _OF_PIXELS + _OF_QUERIES or vit_of(model) is None:
        raise ValueError(
            f'{name}: a whole {type(model).__name__} ({head}){reason} is not exported; whole '
            f'models are {_SUPPORTED} on a ViTFeatBackbone; without whole=True the backbone is, '
            f'and its neck by with_neck=True'
        )
    if getattr(model, 'out_channels', 2) == 1:
        raise ValueError(
            f'{name}: its {head} gives one channel for two classes, which no file has; whole '
            f'models give a channel for each class'
        )
    return head
