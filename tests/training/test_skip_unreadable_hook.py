import logging
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from toy_task import write_toy_config, write_toy_data

from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.pictures.curves import draw_curves
from vit_backbones.training.skip_unreadable_hook import (
    SkipUnreadableImagesHook,
    UnreadableDataError,
)


def make_dataset(root, **kwargs):
    from mmengine.dataset import BaseDataset

    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackToy')]
    prefix = dict(img_path='images')
    return BaseDataset('train.json', None, str(root), prefix, pipeline=pipeline, **kwargs)


def make_runner(dataset, tmp_path):
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset, num_workers=0))
    hub, logger = MessageHub(str(tmp_path)), logging.getLogger('toy')
    return SimpleNamespace(train_loop=loop, log_dir=str(tmp_path), logger=logger, message_hub=hub)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dataset,
        lambda dataset: RepeatDataset(dataset, 2),
        lambda dataset: ConcatDataset([dataset, dataset]),
    ],
    ids=['bare', 'repeat', 'concat'],
)
def test_skip__works_in_dataset_wrappers(wrap, tmp_path, caplog):
    root = write_toy_data(tmp_path / 'data', broken=['train3.png'])
    dataset = wrap(make_dataset(root))
    hook, runner = SkipUnreadableImagesHook(), make_runner(dataset, tmp_path)
    hook.before_train(runner)
    samples = [dataset[i] for i in range(len(dataset))]
    assert all('train3' not in sample['paths'] for sample in samples)
    hook.after_train(runner)
    times = hook.counts[str(root / 'images' / 'train3.png')]
    assert times >= len(dataset) // 6
    assert caplog.messages[-1].startswith('skipped 1 unreadable training image: train3.png (')


def test_skip__wrapping_twice_counts_once(tmp_path):
    root = write_toy_data(tmp_path / 'data')
    dataset = make_dataset(root)
    hook, runner = SkipUnreadableImagesHook(), make_runner(dataset, tmp_path)
    hook.before_train(runner)
    first = dataset.pipeline.transforms[0]
    hook.before_train_epoch(runner)
    assert dataset.pipeline.transforms[0] is first


def test_skip__too_many_in_a_row_raise(tmp_path):
    root = write_toy_data(tmp_path / 'data', broken=[f'train{i}.png' for i in range(6)])
    dataset = make_dataset(root)
    hook = SkipUnreadableImagesHook(max_in_a_row=7)
    hook.before_train(make_runner(dataset, tmp_path))
    with pytest.raises(UnreadableDataError, match=r'7 training images in a row .*train\d.png'):
        dataset[0]


def test_skip__says_nothing_when_all_are_readable(tmp_path, caplog):
    dataset = make_dataset(write_toy_data(tmp_path / 'data'))
    hook, runner = SkipUnreadableImagesHook(), make_runner(dataset, tmp_path)
    hook.before_train(runner)
    assert len([dataset[i] for i in range(6)]) == 6
    hook.after_train(runner)
    assert caplog.messages == []


def test_skip__limit_below_one_raises():
    with pytest.raises(ValueError, match='max_in_a_row must be at least 1, got 0'):
        SkipUnreadableImagesHook(max_in_a_row=0)


def test_skip__works_under_mmengines_own_runner(tmp_path, capsys):
    config = Config.fromfile(write_toy_config(tmp_path, 'stock', broken=['train0.png'], drawn=True))
    config.work_dir = str(tmp_path)
    config.custom_hooks = [dict(type='SkipUnreadableImagesHook')]
    Runner.from_cfg(config).train()
    assert 'skipped 1 unreadable training image: train0.png (' in capsys.readouterr().out


def test_leaf_datasets__bare_one_is_itself():
    dataset = object()
    assert list(leaf_datasets(dataset)) == [dataset]


def test_draw_curves__draws_main_metrics_only():
    metrics = {'coco/segm_mAP': 0.4, 'coco/segm_mAP_s': 0.1, 'data_time': 1.0}
    entries = [dict(epoch=1, iter=100, metrics=metrics)]
    left, right = draw_curves(np.linspace(5, 1, 100), entries).axes
    assert [line.get_label() for line in right.lines] == ['segm_mAP']
    assert [line.get_label() for line in left.lines] == ['each iteration', 'mean of 2']
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[100, 0.4]])


def test_draw_curves__marks_where_the_head_starts():
    left, right = draw_curves(np.linspace(5, 1, 40), [], {30: 'the head starts'}).axes
    assert [line.get_label() for line in left.lines] == ['each iteration', 'the head starts']
    assert left.lines[1].get_xdata() == [30, 30]
    assert not right.lines


def test_draw_curves__smooths_without_a_shift():
    losses = np.arange(500.0)
    smooth = draw_curves(losses, []).axes[0].lines[1].get_xydata()
    np.testing.assert_allclose(smooth[0], [10, 4.5])  # mean of the first ten, at the tenth
    assert len(smooth) == 491


@pytest.mark.parametrize(
    'name', ['CurvesHook', 'PredictionPicturesHook', 'SkipUnreadableImagesHook']
)
def test_hooks__are_registered(name):
    assert HOOKS.get(name).__name__ == name
