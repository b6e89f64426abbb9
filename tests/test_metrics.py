"""How metrics are told."""

import pytest

from vit_backbones.metrics import metric_text


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
