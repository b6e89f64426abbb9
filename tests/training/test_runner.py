import logging

import pytest
from mmengine.config import Config

from vit_backbones.training import runner


@pytest.mark.parametrize(
    ('text', 'level', 'shown'),
    [
        ('Epoch(train) [1][20/184]', logging.INFO, True),
        ('learning rates by layer:\nlayer 0 of 4', logging.INFO, False),
        ('two lines\nof a warning', logging.WARNING, True),
        ('a.weight is skipped since its requires_grad=False', logging.WARNING, False),
        ('Exp name: toy', logging.INFO, False),
    ],
)
def test_the_terminal_gets_the_short_lines_that_tell_something(text, level, shown):
    record = logging.LogRecord('toy', level, __file__, 1, text, None, None)
    assert runner._fits_terminal(record) == shown


@pytest.mark.parametrize(
    ('options', 'kind'),
    [
        ({}, 'QuietRunner'),
        (dict(runner_type='FlexibleRunner'), 'QuietFlexibleRunner'),
        (
            dict(runner_type='FlexibleRunner', launcher='pytorch', strategy='F'),
            'QuietFlexibleRunner',
        ),
        (dict(runner_type='FlexibleRunner', strategy='F'), 'QuietRunner'),  # one process, no shards
    ],
    ids=str,
)
def test_the_runner_is_that_of_the_config(options, kind, monkeypatch):
    for name in ('QuietRunner', 'QuietFlexibleRunner'):
        monkeypatch.setattr(getattr(runner, name), 'from_cfg', classmethod(lambda cls, cfg: cls))
    if 'strategy' in options:
        options = options | dict(strategy=dict(type='ViTFSDPStrategy'))
    assert runner.build_runner(Config(options)).__name__ == kind


def test_a_strategy_that_nothing_reads_is_refused():
    config = Config(dict(strategy=dict(type='ViTFSDPStrategy')))
    with pytest.raises(ValueError, match=r"strategy=ViTFSDPStrategy needs runner_type='Flexible"):
        runner.build_runner(config)


def test_another_runner_is_refused():
    with pytest.raises(
        ValueError, match=r"runner_type must be .*'FlexibleRunner'.*, got 'MyRunner'"
    ):
        runner.build_runner(Config(dict(runner_type='MyRunner')))
