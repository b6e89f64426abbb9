"""tools/train.py and tools/test.py, on a task that takes a second."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from toy_task import write_toy_config

from vit_backbones import ViTFeatBackbone
from vit_backbones.hosts.mmengine_pickles import allow_mmengine_checkpoints
from vit_backbones.training.ending import _interrupt

REPOSITORY = Path(__file__).parents[1]


def load(path):
    allow_mmengine_checkpoints()
    return torch.load(path, weights_only=True)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder of a finished training from another folder through the shell, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    write_toy_config(folder, 'toy', drawn=True)
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / 'tests')])
    run = subprocess.run(
        [sys.executable, REPOSITORY / 'tools/train.py', 'toy.py', '--seed', '5'],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    return folder, run


def test_train__closing_line_tells_last_and_best(trained):
    _, run = trained
    assert run.returncode == 0
    last_line = run.stdout.splitlines()[-1]
    pattern = r'done: mIoU 40\.0 % \(best 50\.0 % at epoch 2\) · \d+ s · work_dirs/toy'
    assert re.fullmatch(pattern, last_line), run.stdout + run.stderr


def test_train__terminal_is_calm_and_shows_the_eta(trained):
    folder, run = trained
    assert run.stderr == ''
    assert len(run.stdout.splitlines()) < 40
    assert 'eta: ' in run.stdout
    assert 'chatty' not in run.stdout
    log = next((folder / 'work_dirs/toy').glob('*/*.log')).read_text()
    assert 'System environment' in log
    assert 'optim_wrapper = dict' in log
    assert 'chatty' in log


def test_train__seed_reaches_the_checkpoint(trained):
    folder, _ = trained
    assert load(folder / 'work_dirs/toy/epoch_3.pth')['meta']['seed'] == 5


@pytest.mark.slow
def test_train__configs_need_no_seed_and_no_hooks(tmp_path, train, capsys):
    """As those of mmdet and mmseg, which have no `randomness`."""
    config = write_toy_config(tmp_path, 'bare', more='del randomness, default_hooks')
    assert train([config, '--seed', '5']) == 0
    assert load('work_dirs/bare/epoch_3.pth')['meta']['seed'] == 5
    assert Path('work_dirs/bare/curves.png').is_file()
    assert train([config, '--work-dir', 'unseeded']) == 0


@pytest.mark.slow
def test_train__closing_line_without_any_metric(tmp_path, train, capsys, monkeypatch):
    monkeypatch.setattr('toy_task.ToyMetric.compute_metrics', lambda self, results: {})
    more = 'default_hooks["checkpoint"] = dict(type="CheckpointHook")'
    assert train([write_toy_config(tmp_path, 'mute', more=more, drawn=True)]) == 0
    assert 'done: no metric · ' in capsys.readouterr().out


def test_train__curves_are_drawn(trained):
    folder, _ = trained
    picture = cv2.imread(str(folder / 'work_dirs/toy/curves.png'))
    assert picture.shape == (400, 1100, 3)
    for half in np.hsplit(picture, 2):
        colored = half.max(2).astype(int) - half.min(2) > 60
        assert colored.sum() > 100


def test_train__predictions_are_drawn(trained):
    folder, _ = trained
    pictures = sorted((folder / 'work_dirs/toy/predictions').glob('*.png'))
    assert [path.stem for path in pictures] == [f'val{i}' for i in range(6)]


def test_train__what_it_took_is_recorded(trained):
    folder, _ = trained
    record = json.loads((folder / 'work_dirs/toy/record.json').read_text())
    assert record['config'].endswith('toy.py')
    assert record['parameters'] == record['trained_parameters'] == 2
    assert [each['epoch'] for each in record['validations']] == [1, 2, 3]
    assert record['validations'][1]['metrics']['toy/mIoU'] == 50.0
    assert 100 < record['peak_memory_mib'] < 10_000
    assert record['train_images_per_second'] > 1
    assert record['val_images_per_second'] > 1
    assert record['versions']['torch'] == torch.__version__
    assert 'threads' in record['device']


def test_train__interrupted_and_resumed_equals_undisturbed(train, tmp_path, capsys):
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=1)]"
    assert train([write_toy_config(tmp_path, 'whole')]) == 0
    stopped = write_toy_config(tmp_path, 'stopped', more=stop)
    assert train([stopped, '--work-dir', 'parts']) == 130
    line = capsys.readouterr().err
    assert re.fullmatch(
        rf'interrupted; the last checkpoint is parts/epoch_1.pth, continue with: '
        rf'{sys.executable} {REPOSITORY}/tools/train.py \S*stopped.py --work-dir parts --resume\n',
        line,
    )
    assert train([write_toy_config(tmp_path, 'rest'), '--work-dir', 'parts', '--resume']) == 0
    whole, parts = (load(f'{folder}/epoch_3.pth') for folder in ('work_dirs/whole', 'parts'))
    assert parts['meta']['epoch'] == 3
    assert parts['meta']['iter'] == whole['meta']['iter']
    for name, tensor in whole['state_dict'].items():
        assert torch.equal(tensor, parts['state_dict'][name])
    for mine, theirs in zip(whole['param_schedulers'], parts['param_schedulers'], strict=True):
        assert mine == theirs


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def with_another_byte(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'state_dict') + 4] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [cut, with_another_byte, lambda path: path.write_bytes(b'')])
def test_train__resume_passes_over_damaged_checkpoints(damage, train, tmp_path, capsys):
    assert train([write_toy_config(tmp_path, 'first'), '--work-dir', 'w']) == 0
    damage(Path('w/epoch_3.pth'))
    capsys.readouterr()
    assert train([write_toy_config(tmp_path, 'given'), '--resume', 'w/epoch_3.pth']) == 2
    assert capsys.readouterr().err.startswith("error: checkpoint 'w/epoch_3.pth' is damaged")
    assert train([write_toy_config(tmp_path, 'second'), '--work-dir', 'w', '--resume']) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ['w/epoch_3.pth is damaged', 'resuming from w/epoch_2.pth']
    assert load('w/epoch_3.pth')['meta']['epoch'] == 3


def test_train__nothing_to_resume_starts_anew(train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'anew')
    assert train([config, '--resume', '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    assert 'nothing to resume in work_dirs/anew: training starts anew' in capsys.readouterr().out
    assert Path('work_dirs/anew/epoch_1.pth').exists()


def test_train__crash_in_training_keeps_its_traceback(train, tmp_path):
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=0, error='ValueError')]"
    with pytest.raises(ValueError, match='a bug'):
        train([write_toy_config(tmp_path, 'crash', more=stop)])


@pytest.mark.parametrize('num_workers', [0, 1])
def test_train__unreadable_images_are_skipped_and_counted(num_workers, train, tmp_path, capsys):
    name = f'skip{num_workers}'
    config = write_toy_config(tmp_path, name, broken=['train1.png', 'train4.png'])
    workers = f'train_dataloader.num_workers={num_workers}'
    assert train([config, '--cfg-options', workers]) == 0
    out = capsys.readouterr().out
    assert out.count('skipped unreadable training image') == 2
    found = re.search(r'skipped 2 unreadable training images: (.*)', out)[1]
    counts = re.fullmatch(r'train1\.png \((\d+) times\), train4\.png \((\d+) times\)', found)
    assert all(int(count) >= 3 for count in counts.groups())  # once an epoch at least


def test_train__only_unreadable_images_end_with_one_line(train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'none', broken=[f'train{i}.png' for i in range(6)])
    assert train([config, '--cfg-options', 'train_dataloader.num_workers=1']) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r'error: .*100 training images in a row could not be read.*\n', line)


def test_train__iteration_based(train, tmp_path, capsys):
    more = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
train_dataloader.update(sampler=dict(type='InfiniteSampler'))
log_processor = dict(by_epoch=False)
default_hooks.update(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
"""
    config = write_toy_config(tmp_path, 'iters', broken=['train0.png'], more=more)
    workers = 'train_dataloader.num_workers=1'
    assert train([config, '--cfg-options', workers]) == 0
    out = capsys.readouterr().out
    assert re.search(r'skipped 1 unreadable training image: train0.png \(\d times?\)', out)
    assert out.splitlines()[-1].startswith('done: mIoU 50.0 % · ')  # without CurvesHook too


@pytest.mark.slow
def test_train__our_hooks_take_options_and_can_be_left_out(train, tmp_path):
    config = write_toy_config(tmp_path, 'options', drawn=True)
    hooks = ['default_hooks.curves=None', 'default_hooks.pictures.num_images=2']
    assert train([config, '--cfg-options', 'train_cfg.max_epochs=1', *hooks]) == 0
    assert not Path('work_dirs/options/curves.png').exists()
    assert len(list(Path('work_dirs/options/predictions').glob('*'))) == 2


def test_train__amp_in_float16_without_a_gpu_is_one_line(train, tmp_path, capsys, no_gpu):
    config = write_toy_config(tmp_path, 'amp')
    options = ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.dtype=float16']
    assert train([config, '--amp', '--cfg-options', *options]) == 2
    assert re.fullmatch(r"error: .*dtype='float16' needs a CUDA GPU.*\n", capsys.readouterr().err)


def test_test__prints_the_metric_and_draws(evaluate, trained, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'tested')
    checkpoint = str(trained[0] / 'work_dirs/toy/epoch_3.pth')
    assert evaluate([config, checkpoint, '--show-dir', 'shown']) == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r'done: mIoU 30\.0 % · \d+ s · work_dirs/tested', last_line)
    assert len(list(Path('shown').glob('*.png'))) == 6
    assert json.loads(Path('work_dirs/tested/test.json').read_text())['metrics']['toy/mIoU'] == 30.0


def test_test__one_draw_has_no_deviation(evaluate, trained, tmp_path, capsys):
    checkpoint = str(trained[0] / 'work_dirs/toy/epoch_3.pth')
    assert evaluate([write_toy_config(tmp_path, 'tested'), checkpoint, '--bootstrap', '1']) == 2
    assert re.match(r'error: .*bootstrap.* 2.*, got 1', capsys.readouterr().err)


def test_test__standard_errors_of_an_unknown_metric_are_one_line(
    evaluate, trained, tmp_path, capsys
):
    checkpoint = str(trained[0] / 'work_dirs/toy/epoch_3.pth')
    assert evaluate([write_toy_config(tmp_path, 'tested'), checkpoint, '--bootstrap']) == 2
    assert 'are known for IoUMetric and CocoMetric' in capsys.readouterr().err


def test_test__checkpoint_of_another_model_is_one_line(evaluate, tmp_path, capsys):
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, 'other.pth')
    assert evaluate([write_toy_config(tmp_path, 'other'), 'other.pth']) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"error: checkpoint 'other.pth' lacks 2 of 2 tensors .*\n", line)


def test_ctrl_c_that_a_library_turned_into_another_error_still_counts():
    error = SyntaxError('cannot format')
    error.__context__ = KeyboardInterrupt()
    assert _interrupt(error)
    assert not _interrupt(ValueError())


def test_convert__writes_the_models_keys_and_prints_the_report(convert, capsys):
    weights = torchvision.models.VisionTransformer(224, 16, 12, 3, 192, 768).state_dict()
    torch.save(weights, 'in.pth')
    assert convert(['in.pth', 'out/a.safetensors', '--model', 'vit_tiny_patch16_224']) == 0
    written = load_file('out/a.safetensors')
    assert torch.equal(written['cls_token'], weights['class_token'])
    assert len(written) == 150
    lines = capsys.readouterr().out.splitlines()
    report = 'in.pth: loaded 150 of 150 tensors, resized 0, from torchvision keys'
    assert lines == [report, 'wrote out/a.safetensors']


def test_convert__a_grid_is_kept_with_as_many_cells_as_the_native_one(convert):
    native = ViTFeatBackbone('vit_tiny_patch16_224')
    torch.save(native.vit.state_dict(), 'in.pth')
    size = ['--img-size', '112', '448']  # 7 x 28 cells as 14 x 14
    assert convert(['in.pth', 'a.safetensors', '--model', 'vit_tiny_patch16_224', *size]) == 0
    again = ViTFeatBackbone('vit_tiny_patch16_224', img_size=(112, 448), checkpoint='a.safetensors')
    written = load_file('a.safetensors')
    assert torch.equal(again.vit.pos_embed, written['pos_embed'])
    assert written.keys() == native.vit.state_dict().keys()  # timm's own and no others


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.pth', 'a.safetensors', '--model', 'vit_tiny_patch16_224'], 'does not exist'),
        (['in.txt', 'a.safetensors', '--model', 'vit_tiny_patch16_224'], 'is no .pth'),
        (
            ['in.pth', 'a.safetensors', '--model', 'vit_tiny_patch16_224'],
            'matches 0 of 150 tensors',
        ),
        (['in.pth', 'a.safetensors', '--model', 'vit_tinny'], 'unknown model_name'),
        (['in.pth', 'a.pth', '--model', 'vit_tiny_patch16_224'], 'must be a .safetensors file'),
        (['b.safetensors', 'b.safetensors', '--model', 'test_vit'], 'OUT is IN'),
    ],
)
def test_convert__bad_input_is_one_line_and_writes_nothing(arguments, message, convert, capsys):
    torch.save({'other.weight': torch.zeros(1)}, 'in.pth')
    Path('in.txt').touch()
    Path('b.safetensors').touch()
    assert convert(arguments) == 2
    assert re.fullmatch(rf'error: .*{message}.*\n', capsys.readouterr().err)
    assert not list(Path().glob('a.*'))
