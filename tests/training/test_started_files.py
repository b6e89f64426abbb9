"""A refused start leaves nothing behind; what was there before stays."""

import os
from pathlib import Path

import pytest
from own_files import write_masks
from toy_task import write_toy_config


def tree(folder):
    """Every file with its content, and every folder, below a folder."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob('*')}


WRONG = {
    'before the runner': ['param_scheduler.type=Cosine'],
    'while it is built': ['visualizer.type=Visualiser'],
    'after it is built': ['load_from=missing.pth'],
    'a hook that does not build': ['default_hooks.logger.interval=-1'],
    'in the sanity check': ['val_evaluator.type=BrokenToyMetric'],
}


@pytest.mark.parametrize('options', WRONG.values(), ids=WRONG)
def test_a_refused_start_leaves_no_folder(options, train, tmp_path):
    config = write_toy_config(tmp_path, 'refused')
    before = tree(tmp_path)
    assert train([config, '--work-dir', 'a/b/c', '--cfg-options', *options]) == 2
    assert tree(tmp_path) == before


def test_a_finished_run_keeps_its_files(train, tmp_path):
    config = write_toy_config(tmp_path, 'kept')
    assert train([config]) == 0
    (log,) = Path('work_dirs/kept').glob('20*')
    log.rename(log.with_name('20260101_000000'))  # not of the same second as the next start
    before = tree('work_dirs')
    Path(config).write_text(Path(config).read_text() + '\nchanged = True\n')
    assert train([config, '--resume', 'missing.pth']) == 2
    assert train([config, '--cfg-options', 'default_hooks.logger.interval=-1']) == 2
    assert tree('work_dirs') == before


def test_files_of_another_run_in_the_same_folder_stay(train, tmp_path, monkeypatch):
    """They may appear while the start is refused."""
    config = write_toy_config(tmp_path, 'shared')
    others = [Path('w/20260101_000000/vis_data/x.json'), Path('w/epoch_1.pth')]

    def appear(*args):
        for path in others:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'1')
        raise ValueError('no')

    monkeypatch.setattr('vit_backbones.training.run.model_findings', appear)
    assert train([config, '--work-dir', 'w']) == 2
    assert sorted(path for path in Path('w').rglob('*') if path.is_file()) == sorted(others)


def test_lists_of_own_data_go_too(train, tmp_path):
    data = write_masks(tmp_path / 'data')
    before = tree(tmp_path)
    config = Path(__file__).parents[2] / 'configs/upernet_vit.py'
    wrong = 'model.decode_head.in_channels=[1,2,3,4]'
    assert train([str(config), '--dataset', str(data), '--cfg-options', wrong]) == 2
    assert tree(tmp_path) == before


def test_lists_of_an_earlier_run_stay(train, tmp_path):
    """Its config reads them to validate."""
    data = write_masks(tmp_path / 'data')
    Path('w/dataset').mkdir(parents=True)
    Path('w/dataset/val.txt').write_text('other\n')
    before = tree(tmp_path)
    config = Path(__file__).parents[2] / 'configs/upernet_vit.py'
    wrong = 'model.decode_head.in_channels=[1,2,3,4]'
    options = ['--work-dir', 'w', '--cfg-options', wrong]
    assert train([str(config), '--dataset', str(data), *options]) == 2
    assert tree(tmp_path) == before


def test_no_shapes_are_drawn_for_a_model_that_does_not_fit(train, tmp_path, capsys):
    config = Path(__file__).parents[2] / 'configs/upernet_vit.py'
    assert train([str(config), '--cfg-options', 'model.decode_head.num_classes=4']) == 2
    assert 'is for 4 classes, but' in capsys.readouterr().err
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ('place', 'why'), [('w', 'it is no folder'), ('w/x', 'Not a directory: {}/w')]
)
def test_a_work_dir_that_is_a_file(place, why, train, tmp_path, capsys):
    config = write_toy_config(tmp_path, 'placed')
    Path('w').write_text('mine')
    before = tree(tmp_path)
    assert train([config, '--work-dir', place]) == 2
    assert capsys.readouterr().err == (
        f'error: {place} cannot be written: {why.format(tmp_path)}\n'
    )
    assert tree(tmp_path) == before


def test_a_refused_test_leaves_no_folder(evaluate, tmp_path):
    config = write_toy_config(tmp_path, 'untested')
    before = tree(tmp_path)
    assert evaluate([config, 'missing.pth', '--show-dir', 'shown']) == 2
    assert tree(tmp_path) == before


def test_a_crash_in_training_keeps_its_log(train, tmp_path):
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=0, error='ValueError')]"
    with pytest.raises(ValueError, match='a bug'):
        train([write_toy_config(tmp_path, 'crash', more=stop)])
    assert [path.suffix for path in Path('work_dirs/crash').glob('*/*.log')] == ['.log']
    assert os.path.isfile('work_dirs/crash/crash.py')
