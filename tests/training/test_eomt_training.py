"""EoMT in MMEngine's runners: a resume in mid-annealing, accumulation, averages, the best file."""

import functools
from pathlib import Path

import pytest
import torch
from eomt_models import CLASSES, QUERIES, backbone_config
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from vit_backbones.heads.mask_annealing import MaskAnnealing
from vit_backbones.training.added_hooks import ADDED, add_hooks
from vit_backbones.training.unmasked_best_hook import UnmaskedBestHook

SIZE = (32, 48)


@DATASETS.register_module()
class DrawnMaps(BaseDataset):
    """Images with label maps, by their index."""

    def __init__(self, number=24):
        self.number = number
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [dict(index=i) for i in range(self.number)]

    def prepare_data(self, idx):
        generator = torch.Generator().manual_seed(idx)
        sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE))
        labels = torch.randint(0, CLASSES, (1, *SIZE), generator=generator)
        sample.gt_sem_seg = PixelData(data=labels)
        return dict(inputs=torch.randn(3, *SIZE, generator=generator), data_samples=sample)


@METRICS.register_module()
class FallingMetric(BaseMetric):
    """Worse with each validation."""

    default_prefix = 'm'
    count = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        type(self).count += 1
        return dict(score=-float(type(self).count))


class Watch(Hook):
    """Notes losses and probabilities of each iteration, and probabilities of validations."""

    priority = 'VERY_LOW'

    def __init__(self, stop=None):
        self.losses, self.keep, self.validated, self.stop = {}, {}, {}, stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.keep[runner.iter] = head_of(runner).keep_probabilities()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = {k: float(v) for k, v in outputs.items()}
        if runner.iter + 1 == self.stop:
            raise KeyboardInterrupt

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.validated[runner.iter] = head_of(runner).keep_probabilities()


def head_of(runner):
    return runner.model.decode_head


def runner(folder, iters, name, *, watch, by_epoch=False, annealing=None, **options):
    init_default_scope('mmseg')
    decode_head = dict(
        type='SegEoMTHead',
        num_classes=CLASSES,
        num_queries=QUERIES,
        num_blocks=2,
        annealing=annealing,
        train_cfg=dict(num_points=64),
    )
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    loop = (
        dict(by_epoch=True, max_epochs=iters // 3)
        if by_epoch
        else dict(by_epoch=False, max_iters=iters)
    )
    optimizer = dict(type='AdamW', lr=1e-3)
    given = dict(
        model=dict(
            type='SegEoMT',
            data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE),
            backbone=backbone_config(),
            decode_head=decode_head,
            test_cfg=ConfigDict(mode='whole'),
        ),
        work_dir=str(folder),
        train_dataloader=loader
        | dict(dataset=dict(type='DrawnMaps', number=6 if by_epoch else 24)),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=optimizer, clip_grad=dict(max_norm=0.01)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
            logger=dict(type='LoggerHook', interval=100),
        ),
        custom_hooks=[],
        experiment_name=f'{name}_{Path(folder).name}',
        randomness=dict(seed=7),
        default_scope='mmseg',
        log_level='WARNING',
    )
    built = Runner(**given | options)
    built.register_hook(watch)
    return built


def validated():
    """Options that validate on two images."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='DrawnMaps', number=2),
    )
    evaluator = dict(type='FallingMetric')
    return dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=evaluator)


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_killed_training_goes_on_with_the_same_losses(by_epoch, tmp_path):
    whole, killed, rest = Watch(), Watch(stop=6), Watch()
    build = functools.partial(runner, iters=12, by_epoch=by_epoch)
    if by_epoch:
        every = dict(type='CheckpointHook', interval=1)
        build = functools.partial(build, default_hooks=dict(checkpoint=every))
    build(tmp_path / 'a', name='whole', watch=whole).train()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / 'b', name='killed', watch=killed).train()
    torch.manual_seed(99)  # whatever was drawn before
    last = tmp_path / 'b' / ('epoch_1.pth' if by_epoch else 'iter_4.pth')
    build(tmp_path / 'b', name='rest', watch=rest, resume=True, load_from=str(last)).train()
    first = 3 if by_epoch else 4
    assert sorted(rest.losses) == list(range(first, 12))
    assert any(0 < each < 1 for number in range(first, 12) for each in whole.keep[number])
    assert rest.keep == {number: whole.keep[number] for number in rest.keep}
    for number, losses in rest.losses.items():
        assert losses == pytest.approx(whole.losses[number], rel=1e-6, abs=1e-6), number


def test_annealing_follows_the_training_also_where_gradients_are_accumulated(tmp_path):
    found = []
    for count in (1, 4):
        watch = Watch()
        wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3), accumulative_counts=count)
        runner(tmp_path / str(count), 12, f'by{count}', watch=watch, optim_wrapper=wrapper).train()
        found.append(watch.keep)
    assert found[0] == found[1]
    assert found[0][0] == (1.0, 1.0)
    assert found[0][11] == (0.0, 0.0)
    assert found[0][3] == pytest.approx((0.5**0.9, 1.0))
    assert found[0][9] == pytest.approx((0.0, 0.5**0.9))


def test_ints_count_iterations(tmp_path):
    watch = Watch()
    runner(tmp_path, 6, 'ints', watch=watch, annealing=[(0, 4), (0, 0)]).train()
    assert [watch.keep[number][0] for number in range(6)] == pytest.approx(
        [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0, 0]
    )
    assert {keep[1] for keep in watch.keep.values()} == {0.0}


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('by_epoch', [False, True])
def test_only_validations_without_masks_count_for_the_best(ema, by_epoch, tmp_path):
    watch = Watch()
    saving = dict(type='CheckpointHook', by_epoch=by_epoch, interval=100, save_best='m/score')
    hooks = [dict(type='UnmaskedBestHook')] + [dict(type='EMAHook')] * ema
    loop = dict(by_epoch=False, max_iters=12, val_interval=2)
    if by_epoch:
        loop = dict(by_epoch=True, max_epochs=4, val_interval=1)
    built = runner(
        tmp_path,
        12,
        f'best{ema}{by_epoch}',
        watch=watch,
        custom_hooks=hooks,
        by_epoch=by_epoch,
        default_hooks=dict(checkpoint=saving | dict(rule='greater')),
        train_cfg=loop,
        **validated(),
    )
    built.train()
    keep = watch.validated
    # of 12 iterations masks go in 2 to 4 and 8 to 10; a half of them is there until 9
    assert {done: keep[done] for done in keep if done <= 2} == ({} if by_epoch else {2: (1.0, 1.0)})
    assert {each for done, each in keep.items() if done >= 10} == {(0.0, 0.0)}
    best = sorted(path.name for path in tmp_path.glob('best_*'))
    assert best == ['best_m_score_epoch_4.pth' if by_epoch else 'best_m_score_iter_10.pth']
    saver = next(hook for hook in built.hooks if type(hook).__name__ == 'CheckpointHook')
    assert saver.save_best == ['m/score']


def test_without_the_hook_mmengine_takes_the_first(tmp_path):
    saving = dict(type='CheckpointHook', by_epoch=False, interval=100, save_best='m/score')
    runner(
        tmp_path,
        12,
        'nohook',
        watch=Watch(),
        default_hooks=dict(checkpoint=saving | dict(rule='greater')),
        train_cfg=dict(by_epoch=False, max_iters=12, val_interval=2),
        **validated(),
    ).train()
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_m_score_iter_2.pth']


def test_the_tools_add_the_hook_once():
    for hooks in ([], [dict(type='UnmaskedBestHook')]):
        cfg = Config(dict(custom_hooks=hooks))
        add_hooks(cfg, ADDED)
        every = [*cfg.default_hooks.values(), *cfg.custom_hooks]
        assert [hook.type for hook in every].count('UnmaskedBestHook') == 1


class _Runner:
    """What `UnmaskedBestHook.before_train` reads."""

    max_iters = 1000

    def __init__(self, annealing, hooks=()):
        self.model, self.hooks, self.lines = torch.nn.Identity(), list(hooks), []
        if annealing:
            self.model.annealing = annealing
        self.logger = self

    def info(self, line):
        self.lines.append(('info', line))

    warning = lambda self, line: self.lines.append(('warning', line))  # noqa: E731


def test_a_training_too_short_for_its_annealing_is_warned_of():
    short = _Runner(MaskAnnealing(2, [(0, 3000)]))
    UnmaskedBestHook().before_train(short)
    line = (
        'masks of attention are on until iteration 3000, and the training has 1000: inference runs '
        'without masks, so let annealing end within the training (ints are iterations, floats '
        'fractions of the training)'
    )
    assert short.lines == [('warning', line)]
    others = _Runner(None)
    UnmaskedBestHook().before_train(others)
    assert others.lines == []


def test_the_log_says_from_where_validations_count():
    built = _Runner(MaskAnnealing(4), [CheckpointHook(save_best='mIoU')])
    UnmaskedBestHook().before_train(built)
    line = 'save_best counts from iteration 833 of 1000, where all masks of attention are off'
    assert built.lines == [('info', line)]
