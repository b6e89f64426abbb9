"""Bad input: exit code 2 and one line, before any training."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_task import write_toy_config

from vit_backbones.checks import preflight
from vit_backbones.checks.data import image_findings
from vit_backbones.config.datasets import missing_data
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts


def fake_versions(monkeypatch, **versions):
    installed = {name.replace('_', '-'): version for name, version in versions.items()}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, 'version', version)


def test_environment__mmcv_2_2_is_refused(monkeypatch):
    fake_versions(monkeypatch, mmcv='2.2.0', mmdet='3.3.0')
    with pytest.raises(
        ValueError, match=r'mmcv 2.2.0 does not work with mmdet 3.3.0.*< 2.2.0: pip'
    ):
        preflight.check_environment()


@pytest.mark.parametrize(
    'versions',
    [
        dict(mmcv_lite='2.1.0', mmdet='3.3.0', mmsegmentation='1.2.2'),
        dict(onedl_mmcv='2.3.6', onedl_mmdetection='3.5.1', onedl_mmengine='0.10.12'),
        dict(mmcv='2.2.0'),
    ],
)
def test_environment__each_family_alone_passes(versions, monkeypatch):
    fake_versions(monkeypatch, **versions)
    preflight.check_environment()


def test_environment__both_families_at_once_are_refused(monkeypatch):
    fake_versions(monkeypatch, mmengine='0.10.7', onedl_mmengine='0.10.12')
    with pytest.raises(ValueError, match=r'mmengine 0.10.7 and onedl-mmengine 0.10.12 are inst'):
        preflight.check_environment()


def test_environment__reaches_the_command_line(train, monkeypatch, capsys):
    fake_versions(monkeypatch, mmcv='2.2.0', mmdet='3.3.0')
    assert train(['any.py']) == 2
    assert re.fullmatch('error: mmcv 2.2.0 .*\n', capsys.readouterr().err)


def test_torch_and_torchvision_that_do_not_fit_are_one_line(train, monkeypatch, capsys):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == 'vit_backbones.training.run':
                raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.delitem(sys.modules, 'vit_backbones.training.run', raising=False)
    monkeypatch.setattr('sys.meta_path', [Broken(), *sys.meta_path])
    assert train(['any.py']) == 2
    pattern = 'error: operator torchvision::nms does not exist; install .*requirements.txt\n'
    assert re.fullmatch(pattern, capsys.readouterr().err)


CHECKPOINTS = {
    'empty': b'',
    'text': b'hello\n' * 100,
    'truncated': None,
}


@pytest.fixture
def bad_checkpoint(tmp_path):
    def make(kind):
        path = tmp_path / f'{kind}.pth'
        torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
        content = CHECKPOINTS[kind]
        path.write_bytes(path.read_bytes()[:2000] if content is None else content)
        return str(path)

    return make


@pytest.mark.parametrize('kind', CHECKPOINTS)
def test_checkpoint__unreadable_files_are_refused(kind, bad_checkpoint):
    path = bad_checkpoint(kind)
    (found,) = preflight.checkpoint_findings(path)
    assert found.level == 'error'
    assert f'checkpoint {path!r} cannot be read' in found.text


def test_checkpoint__weights_alone_cannot_be_resumed(tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': {'a': torch.zeros(1)}}, path)
    (found,) = preflight.checkpoint_findings(path, resume=True)
    assert found.level == 'error'
    assert 'no meta, message_hub, optimizer, so training cannot' in found.text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['train_dataloader.dataset.ann_file=no.json'], r"train_dataloader.dataset.ann_file: '\S+"),
        (['val_dataloader.dataset.data_root=/no'], "val_dataloader.dataset.data_root: '/no' does"),
        (['train_dataloader.dataset.data_prefix.img_path=no'], r'data_prefix.img_path: '),
        (['load_from=no.pth'], "checkpoint 'no.pth' does not exist"),
        (['model.type=ToyModle'], r"'ToyModle' is not in .*; did you mean ToyModel"),
        (['model.baias=1'], "'baias' is neither a key of 'model' nor .*; did you mean 'bias'"),
        (['optim_wrapper.optimizer.type=AdamX'], "'AdamX' is not in .*; did you mean .*Adam"),
        (['param_scheduler.type=Nothing'], "'Nothing' is not in"),
    ],
)
def test_train__bad_options_are_one_line(options, message, train, tmp_path, capsys):
    config = write_toy_config(tmp_path, f'bad{abs(hash(options[0]))}')
    assert train([config, '--cfg-options', *options]) == 2
    assert re.fullmatch(f'error: .*{message}.*\n', capsys.readouterr().err)


def test_train__missing_config_names_the_closest(train, tmp_path, capsys):
    write_toy_config(tmp_path, 'mask2former')
    assert train(['mask2fromer.py']) == 2
    pattern = "error: config 'mask2fromer.py' does not exist; did you mean mask2former.py\\?\n"
    assert re.fullmatch(pattern, capsys.readouterr().err)


def test_train__missing_resume_file_is_one_line(train, tmp_path, capsys):
    assert train([write_toy_config(tmp_path, 'resumed'), '--resume', 'no.pth']) == 2
    assert re.fullmatch("error: checkpoint 'no.pth' does not exist.*\n", capsys.readouterr().err)


def test_a_resume_reads_the_values_of_its_checkpoint_once(train, tmp_path, monkeypatch):
    """That is MMEngine; checks read names and shapes, and only the values that a model asks for."""
    config = write_toy_config(tmp_path, 'again')
    assert train([config, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    load, read = torch.load, []

    def counted(file, *args, map_location=None, **options):
        if map_location != 'meta' and not options.get('mmap'):
            read.append(str(file))
        return load(file, *args, map_location=map_location, **options)

    monkeypatch.setattr(torch, 'load', counted)
    assert train([config, '--resume']) == 0
    assert read == ['work_dirs/again/epoch_1.pth']


def test_train__broken_validation_image_is_found_before_the_start(train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'val_broken', broken=['val2.png'])
    assert train([config]) == 2
    printed = capsys.readouterr()
    assert re.fullmatch(r'error: 1 val image cannot be decoded: \S+val2.png .*\n', printed.err)
    assert 'Epoch(train)' not in printed.out


def test_evaluate__broken_test_image_is_found_before_the_start(evaluate, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'test_broken', broken=['val2.png', 'val5.png'])
    weights = {'linear.weight': torch.zeros(1, 1), 'linear.bias': torch.zeros(1)}
    torch.save({'state_dict': weights}, 'model.pth')
    assert evaluate([config, 'model.pth']) == 2
    assert re.fullmatch('error: 2 test images cannot be decoded: .*\n', capsys.readouterr().err)


def test_a_pipeline_that_fails_is_found_before_the_start():
    class Failing:
        def __getitem__(self, index):
            raise TypeError('Scale must be a number or tuple of int')

    (found,) = image_findings(Failing(), 'val')
    assert found.level == 'error'
    message = 'val_dataloader.dataset.pipeline fails on the first image (Scale must be a number'
    assert message in found.text


def test_evaluate__directory_as_checkpoint_is_one_line(evaluate, tmp_path, capsys):
    Path('folder.pth').mkdir()
    assert evaluate([write_toy_config(tmp_path, 'dir'), 'folder.pth']) == 2
    assert re.fullmatch("error: checkpoint 'folder.pth' .*\n", capsys.readouterr().err)


def test_train__debug_shows_the_traceback_too(train, tmp_path, capsys):
    assert train([str(tmp_path / 'no.py'), '--debug']) == 2
    assert 'Traceback' in capsys.readouterr().err


def test_files__datasets_in_wrappers_are_found():
    inner = dict(type='A', data_root='/nowhere')
    dataset = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner]))
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    place = 'train_dataloader.dataset.dataset.datasets.0.data_root'
    (found,) = missing_data(Facts.of(config, ('train',)))
    assert found.startswith(f"{place}: '/nowhere' does not exist")


def test_files__pretrained_weights_of_any_part_are_looked_for():
    init_cfg = dict(type='Pretrained', checkpoint='/nowhere.pth')
    config = Config(dict(model=dict(heads=[dict(init_cfg=init_cfg)])))
    (found,) = preflight.weight_file_findings(Facts.of(config, ()))
    assert found.level == 'error'
    assert "'/nowhere.pth' does not exist" in found.text


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (KeyError('no such key'), 'KeyError: no such key'),
        (ValueError('class `A` in a/b.py: two\n lines'), 'A: two lines'),
        (AssertionError(), 'AssertionError'),
    ],
)
def test_describe__is_one_line(error, line):
    assert describe(error) == line


def test_describe__inherited_keys_have_a_hint():
    error = TypeError("ResNet.__init__() got an unexpected keyword argument 'model_name'")
    assert 'add _delete_=True' in describe(error)
