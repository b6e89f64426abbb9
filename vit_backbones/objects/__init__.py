"""The objects of a COCO file: what mmdet leaves out of a training in silence, or fails on."""

from vit_backbones.objects.problems import Kept, kept_of, survey_of
from vit_backbones.objects.survey import Problem, Survey, taken

__all__ = ['Kept', 'Problem', 'Survey', 'kept_of', 'survey_of', 'taken']
