"""The objects of a COCO file: what mmdet leaves out of a training in silence, or fails on."""

from vit_backbones.objects.problems import (
    Kept,
    kept_objects,
    object_problems,
    problems_and_kept,
)
from vit_backbones.objects.survey import Problem, taken

__all__ = ['Kept', 'Problem', 'kept_objects', 'object_problems', 'problems_and_kept', 'taken']
