"""The model that is trained: a student with a head for each kind of token of its teacher."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from vit_backbones.distillation.crops import PairPreprocessor
from vit_backbones.distillation.teacher import Teacher, tokens_of
from vit_backbones.models.chosen import Loaded

# As Ranzinger et al., AM-RADIO: Agglomerative Vision Foundation Model, CVPR 2024, weigh the two
COSINE, SMOOTH_L1 = 0.9, 0.1


class Distiller(BaseModel):
    """Learns the tokens of a teacher, each kind through a linear layer to the teacher's width.

    Args:
        student: The model that learns, in the form `'raw'`.
        teacher: Gives the features; it is no part of the state dict.

    Attributes:
        backbone: The student.
    """

    def __init__(self, student: Loaded, teacher: Teacher) -> None:
        super().__init__(data_preprocessor=PairPreprocessor(student, teacher.loaded))
        self.backbone, self.teacher = student.backbone, teacher
        kinds = ('patches', 'cls') if teacher.with_cls else ('patches',)
        width = self.backbone.out_channels[0]
        self.heads = nn.ModuleDict({kind: nn.Linear(width, teacher.width) for kind in kinds})

    def forward(
        self, inputs: dict[str, Tensor], data_samples: Sequence[Any], mode: str = 'loss'
    ) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """The losses of a batch, `loss_patches` and `loss_cls`; in other modes what it predicts.

        Args:
            inputs: `'student'` and `'teacher'`, (B, 3, H, W) each, normalised.
            data_samples: With the view of each image, if the teacher's features are kept.
            mode: `'loss'`, or `'tensor'` for features (B, h*w, C) and (B, C).
        """
        tokens = zip(self.heads.items(), tokens_of(self.backbone, inputs['student']), strict=False)
        found = {kind: head(each) for (kind, head), each in tokens}
        if mode != 'loss':
            return tuple(found.values())
        wanted = self.teacher.features(inputs['teacher'], data_samples)
        pairs = zip(found.items(), wanted, strict=True)
        return {f'loss_{kind}': distance(each, taught) for (kind, each), taught in pairs}


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """How far features (..., C) are from others: cosine and smooth L1, mean of all tokens."""
    found = found.float()
    cosine = 1 - F.cosine_similarity(found, wanted, dim=-1).mean()
    return COSINE * cosine + SMOOTH_L1 * F.smooth_l1_loss(found, wanted)
