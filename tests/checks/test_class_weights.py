"""Weights of classes are as many as the outputs of their head."""

from pathlib import Path

import pytest
from checked_configs import DETECTOR, SEGMENTER

LOSS = "loss_decode=dict(type='CrossEntropyLoss')"


@pytest.mark.parametrize(
    ('losses', 'wrong'),
    [
        ("dict(type='CrossEntropyLoss', class_weight=[1, 2])", 0),
        ("dict(type='CrossEntropyLoss', class_weight=[1, 2, 3])", 3),
        ("dict(type='CrossEntropyLoss', class_weight=(1,))", 1),
        ("dict(type='LovaszLoss', reduction='none', class_weight=[1, 2, 3])", 3),
        ("[dict(type='DiceLoss'), dict(type='CrossEntropyLoss', class_weight=[1, 2, 3])]", 3),
    ],
)
def test_those_of_a_segmenter(losses, wrong, check):
    Path('a.py').write_text(SEGMENTER.replace(LOSS, f'loss_decode={losses}'))
    code, lines = check('a.py')
    begin = 'error: model.decode_head.loss_decode.class_weight has'
    text = f'{begin} {wrong} values, and the head has 2 outputs: give one value for each'
    assert (text in lines) == bool(wrong)
    assert code == bool(wrong)


def test_they_are_not_negative(check):
    Path('a.py').write_text(SEGMENTER)
    code, lines = check('a.py', 'model.decode_head.loss_decode.class_weight=[1,-2]')
    text = 'error: model.decode_head.loss_decode.class_weight holds -2: give numbers from 0'
    assert (code, lines[0]) == (1, text)


@pytest.mark.parametrize(('weights', 'wrong'), [('[1,1,1,0.1]', False), ('[1,1,1]', True)])
def test_those_of_a_detector_and_its_background(weights, wrong, check):
    Path('a.py').write_text(DETECTOR)
    place = 'model.roi_head.bbox_head.loss_cls.class_weight'
    code, lines = check('a.py', f'{place}={weights}')
    text = (
        f'error: {place} has 3 values, and the head has 4 outputs (its classes, and the background '
        f'last): give one value for each'
    )
    assert (text in lines) == wrong
    assert code == wrong


def test_those_of_mask2former(check):
    config = Path(__file__).parents[2] / 'configs/mask2former_vit.py'
    place = 'model.panoptic_head.loss_cls.class_weight'
    code, lines = check(str(config), f'{place}=[1,1]')
    text = f'error: {place} has 2 values, and the head has 9 outputs (its classes, and the back'
    assert any(line.startswith(text) for line in lines)
    assert code == 1
