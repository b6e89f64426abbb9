"""Values by class, runs side by side."""

import numpy as np
import pytest

from vit_backbones.evaluation.tables import as_csv, as_markdown, per_class_table
from vit_backbones.evaluation.testing import Predictions


def result(classes, **per_class):
    values = {name: np.array(each) for name, each in per_class.items()}
    return Predictions(classes, np.zeros((3, 3)), np.zeros((3, 3)), values, [], True)


def test_one_run():
    table = per_class_table({'a': result(['cat', 'dog'], IoU=[50.0, 25.0], Acc=[60.0, np.nan])})
    assert table == [
        ['class', 'IoU', 'Acc'],
        ['cat', '50.00', '60.00'],
        ['dog', '25.00', '-'],
        ['mean', '37.50', '60.00'],
    ]


def test_several_runs__with_differences_and_other_classes():
    runs = {'a': result(['cat', 'dog'], AP=[0.5, 0.25]), 'b': result(['dog', 'cow'], AP=[0.5, 1])}
    assert per_class_table(runs) == [
        ['class', 'AP a', 'AP b', 'AP b - a'],
        ['cat', '0.500', '-', '-'],
        ['dog', '0.250', '0.500', '+0.250'],
        ['cow', '-', '1.000', '-'],
        ['mean', '0.375', '0.750', '+0.375'],
    ]


def test_no_values__no_table():
    assert per_class_table({'a': result(['cat'])}) == []


@pytest.mark.parametrize(
    ('write', 'text'),
    [
        (as_csv, 'class,IoU\n"a, b",1\n'),
        (as_markdown, '| class | IoU |\n| ----- | --: |\n| a, b  |   1 |\n'),
    ],
)
def test_files(write, text):
    assert write([['class', 'IoU'], ['a, b', '1']]) == text
