"""Classes are found by the names that configs write, and nothing else is imported for them."""

import sys

import pytest
import torch
from mmdet.models import Mask2Former
from mmseg.evaluation import IoUMetric

from vit_backbones import ViTFeatBackbone
from vit_backbones.config.registries import find_registered


@pytest.mark.parametrize(
    ('kind', 'scope', 'found'),
    [
        ('Mask2Former', 'mmdet', Mask2Former),
        ('mmdet.Mask2Former', 'mmseg', Mask2Former),
        ('IoUMetric', 'mmseg', IoUMetric),
        ('ViTFeatBackbone', 'mmdet', ViTFeatBackbone),  # of the root's registry
        ('torch.optim.SGD', None, torch.optim.SGD),
        (Mask2Former, None, Mask2Former),
    ],
)
def test_a_class_by_its_name(kind, scope, found):
    assert set(find_registered(kind, scope)) == {found}


@pytest.mark.parametrize('kind', ['Missing', 'IoUMetric', 'mmdet.Missing', 'missing.Missing', 3])
def test_none(kind):
    assert find_registered(kind, 'mmdet') == []


def test_a_module_of_that_name_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / 'wished.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    assert find_registered('wished', 'mmdet') == []
    assert 'wished' not in sys.modules
