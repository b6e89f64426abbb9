"""The model that is trained: a student with a head for all that its teacher teaches."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from vit_backbones.distillation.crops import PairPreprocessor
from vit_backbones.distillation.standard import Sample, Standard
from vit_backbones.distillation.teacher import Teacher, tokens_of
from vit_backbones.models.chosen import Loaded


class Distiller(BaseModel):
    """Learns the features of a teacher, each kind through a linear layer to the teacher's width.

    Kinds are the patches of each layer and the CLS token. `start` sets what has to be measured.

    Args:
        student: The model that learns, in the form `'raw'`.
        teacher: Gives the features; it is no part of the state dict.

    Attributes:
        backbone: The student.
        heads: Of each kind, standardise the student's features and predict the teacher's.
        standards: Of each kind, standardise the teacher's.
    """

    def __init__(self, student: Loaded, teacher: Teacher) -> None:
        super().__init__(data_preprocessor=PairPreprocessor(student, teacher.loaded))
        self.backbone, self.teacher = student.backbone, teacher
        layers = [f'patches_{index}' for index in self.backbone.out_indices]
        widths = dict(zip(layers, self.backbone.out_channels, strict=True))
        taught = dict(zip(layers, teacher.widths, strict=True))
        if teacher.with_cls:
            widths['cls'], taught['cls'] = self.backbone.out_channels[-1], teacher.widths[-1]
        self.heads = nn.ModuleDict(
            {
                kind: nn.Sequential(Standard(width), nn.Linear(width, taught[kind]))
                for kind, width in widths.items()
            }
        )
        self.standards = nn.ModuleDict({kind: Standard(width) for kind, width in taught.items()})

    def forward(
        self, inputs: dict[str, Tensor], data_samples: Sequence[Any], mode: str = 'loss'
    ) -> dict[str, Tensor]:
        """The losses of a batch, `loss_patches` of all layers and `loss_cls`; else predictions.

        Args:
            inputs: `'student'` and `'teacher'`, (B, 3, H, W) each, normalised.
            data_samples: With the view of each image, if the teacher's features are kept.
            mode: `'loss'`, or `'tensor'` for features (B, h*w, C) and (B, C) by kind.
        """
        found = {kind: self.heads[kind](each) for kind, each in self._own(inputs).items()}
        if mode != 'loss':
            return found
        wanted = self._taught(inputs, data_samples)
        lost = {
            kind: F.mse_loss(each.float(), self.standards[kind](wanted[kind]))
            for kind, each in found.items()
        }
        cls = {'loss_cls': lost.pop('cls')} if self.teacher.with_cls else {}
        return {'loss_patches': torch.stack([*lost.values()]).mean(), **cls}

    @torch.no_grad()
    def start(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Measure the scale of all features on batches, and let the heads predict what they can.

        A student that has to learn for heads with random weights first loses what it knows: Kumar
        et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
        2022.
        """
        samples = {kind: Sample() for kind in self.heads}
        self.eval()
        for batch in batches:
            data = self.data_preprocessor(batch)
            own, taught = self._own(data['inputs']), self._taught(**data)
            for kind, sample in samples.items():
                sample.add(own[kind], taught[kind])
        for kind, sample in samples.items():
            pairs = zip(sample.means, sample.deviations, strict=True)
            standard, linear = self.heads[kind]
            for each, measured in zip((standard, self.standards[kind]), pairs, strict=True):
                each.set(*measured)
            linear.weight.copy_(sample.regression())
            linear.bias.zero_()

    def _own(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        patches, cls = tokens_of(self.backbone, inputs['student'], self.teacher.grid)
        return self._by_kind([*patches, cls])

    def _taught(self, inputs: dict[str, Tensor], data_samples: Sequence[Any]) -> dict[str, Tensor]:
        return self._by_kind(self.teacher.features(inputs['teacher'], data_samples))

    def _by_kind(self, features: Sequence[Tensor | None]) -> dict[str, Tensor]:
        return dict(zip(self.heads, features, strict=False))
