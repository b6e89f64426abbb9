"""How metrics are told."""

import pytest

from vit_backbones.metrics import headline, metric_text


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('coco_panoptic/PQ_th', 45.51, '45.5 %'),
        ('mIoU', 45.51, '45.5 %'),
        ('bbox_mAP', 0.4551, '0.455'),
    ],
)
def test_percent_where_the_library_gives_percent(name, value, text):
    assert metric_text(name, value) == text


@pytest.mark.parametrize(
    ('wanted', 'name'),
    [('mAcc', 'mAcc'), (['loss', 'mAcc', 'aAcc'], 'mAcc'), ([], 'mIoU'), ('auto', 'mIoU')],
)
def test_the_main_metric_is_the_first_that_a_config_saves(wanted, name):
    assert headline(dict(aAcc=1.0, mAcc=2.0, mIoU=3.0), wanted) == name
