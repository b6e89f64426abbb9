"""Two processes end with the weights of one that has the same images a step, augmented alike."""

import shutil

import pytest
import timm
import torch
from conftest import REPOSITORY
from two_processes import FSDP, SEGMENTER, TwoProcesses

SMALL = """
builtin_data['num_train'] = {images}
model['data_preprocessor']['size'] = (64, 96)
model['backbone']['model_name'] = 'test_vit'
model['decode_head'].update(in_channels=[64, 64], channels=128)
train_dataloader['dataset']['pipeline'][2:2] = [
    dict(type='RandomCrop', crop_size=(64, 96)), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
]
default_hooks = dict(
    checkpoint=dict(save_best=None, rule=None), curves=None, pictures=None,
    logger=dict(interval=1),
)
"""
ACCUMULATE = """
optim_wrapper['accumulative_counts'] = 2
default_hooks['checkpoint'].update(by_epoch=False, interval=3, max_keep_ckpts=9)
"""
EMA = """
custom_hooks = [dict(type='EMAHook', momentum=0.3)]
"""
ENDLESS = """
train_dataloader['sampler'] = dict(_delete_=True, type='InfiniteSampler', shuffle=True)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9, val_interval=9)
default_hooks['checkpoint'].update(by_epoch=False, interval=5)
"""
FROZEN = """
model['backbone'].update(frozen_stages=1, checkpoint='weights.pth')
"""
# images, changes of the config, whether it is also stopped and resumed
KINDS = {
    'plain': (8, '', False),
    'frozen': (8, FROZEN, False),
    'accumulated': (8, ACCUMULATE, True),  # 4 iterations an epoch, checkpoints at 3 and 6
    'averaged': (8, EMA, True),
    'endless, 7 images': (7, ENDLESS, True),  # passes end within a batch
    'shards': (8, FSDP, True),
    'shards, frozen': (8, FSDP + FROZEN, False),
}
FEW = ('accumulated',)


def train(folder, images, more, number, *options):
    """The last checkpoint."""
    torch.manual_seed(0)
    base = str(REPOSITORY / 'configs/upernet_vit.py')
    text = SEGMENTER.format(base=base, batch=2 // number) + SMALL.format(images=images)
    (folder / 'config.py').write_text(text + more)
    torch.save(timm.create_model('test_vit').state_dict(), folder / 'weights.pth')
    ran = TwoProcesses(folder, 'config.py', '--work-dir', 'w', *options, number=number)
    assert ran.wait(250) == [0] * number, ran.said(0)
    last = (folder / 'w/last_checkpoint').read_text()
    return torch.load(last if last.startswith('/') else folder / last, weights_only=True)


def assert_same(got, expected):
    for section in ('state_dict', 'ema_state_dict'):
        for name, value in expected.get(section, {}).items():
            torch.testing.assert_close(got[section][name], value, rtol=1e-5, atol=1e-6, msg=name)


def largest_difference(got, expected):
    pairs = [(got['state_dict'][name], e) for name, e in expected['state_dict'].items()]
    return max(float((a - b).abs().max()) for a, b in pairs if a.is_floating_point())


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    'kind', [pytest.param(k, marks=() if k in FEW else pytest.mark.slow) for k in KINDS]
)
def test_two_processes_end_as_one(kind, tmp_path):
    images, more, resumes = KINDS[kind]
    one, two = tmp_path / 'one', tmp_path / 'two'
    one.mkdir(), two.mkdir()
    expected = train(one, images, more, 1)
    start = torch.load(one / 'w/epoch_1.pth')['state_dict'] if kind == 'plain' else None
    got = train(two, images, more, 2)
    print(f'{kind}: {largest_difference(got, expected):.1e}')
    assert_same(got, expected)
    if start is not None:
        assert largest_difference(dict(state_dict=start), expected) > 1e-2
    if resumes:
        first = sorted((two / 'w').glob('*.pth'), key=lambda path: path.stat().st_mtime)[0]
        resumed = train(two, images, more, 2, '--resume', str(first))
        print(f'{kind}, from {first.name}: {largest_difference(resumed, expected):.1e}')
        assert_same(resumed, expected)
        alone = train(one, images, more, 1, '--resume', str(first))
        print(f'{kind}, in one process: {largest_difference(alone, expected):.1e}')
        assert_same(alone, expected)
        shutil.rmtree(two / 'w')


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_uneven_last_batch_repeats_an_image(tmp_path):
    """By design of samplers: one process has seven images in an epoch, two have eight."""
    one, two = tmp_path / 'one', tmp_path / 'two'
    one.mkdir(), two.mkdir()
    more = "default_hooks['checkpoint'].update(by_epoch=False, interval=1, max_keep_ckpts=9)"
    train(one, 7, more, 1), train(two, 7, more, 2)
    for number in (1, 2, 3, 4):
        got, expected = (torch.load(each / f'w/iter_{number}.pth') for each in (two, one))
        difference = largest_difference(got, expected)
        print(f'after iteration {number}: {difference:.1e}')
        assert (difference < 1e-5) == (number < 4)
