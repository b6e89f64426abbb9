"""Strangers' files in every tool that reads one: one line, exit code 2, and no code is run."""

import os
import socket
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, load_tool
from hostile_files import code, npy_of_objects, npz_of_objects
from own_files import SEGMENTER, write_masks
from toy_task import write_toy_config
from trained_models import write_images, write_segmenter

from vit_backbones.config.loading import load_config

MODEL = ['--model', 'test_vit']
RANDOM = [*MODEL, '--random-weights', '0']
OWN = ['own.py', '--dataset', 'mine']
REFUSED = 'it wants to run posix.system, which is refused; save only its tensors'
# Where a tool reads a file of weights
READERS = {
    'checkpoint': ('train', [*OWN, '--cfg-options', 'model.backbone.checkpoint={}']),
    'load_from': ('train', [*OWN, '--cfg-options', 'load_from={}']),
    'resume': ('train', [*OWN, '--resume', '{}']),
    'test': ('test', ['own.py', '{}', '--cfg-options', *(
        f'{split}_dataloader.dataset.data_prefix.{key}=mine/{folder}'
        for split in ('val', 'test') for key, folder in (
            ('img_path', 'images'), ('seg_map_path', 'masks'))
    ), *(f'{split}_dataloader.dataset.data_root=.' for split in ('val', 'test'))]),
    'predict': ('predict', ['seg.py', '{}', 'images', '--out', 'out']),
    'convert': ('convert_checkpoint', ['{}', 'out.safetensors', *MODEL]),
    'teacher': ('distill', ['test_vit={}', 'test_vit', 'images', '--scratch', '--out', 'out']),
    'export': ('export_onnx', [*MODEL, '--checkpoint', '{}', '--out', 'out.onnx']),
    'export whole': (
        'export_onnx',
        ['--whole', '--config', 'seg.py', '--checkpoint', '{}', '--out', 'out.onnx'],
    ),
    'features': ('extract_features', ['images', *MODEL, '--checkpoint', '{}', '--out', 'o.npz']),
    'visualize': ('visualize', ['images', *MODEL, '--checkpoint', '{}', '--out', 'out']),
    'predictions': (
        'visualize',
        ['--config', 'seg.py', '--checkpoint', '{}', '--predictions', '--out', 'out'],
    ),
}  # fmt: skip


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('strangers')
    write_segmenter(home)
    write_images(home / 'images', (64, 96), (50, 33))
    (home / 'own.py').write_text(SEGMENTER)
    write_masks(home / 'mine')
    code('system')(home / 'evil.pth')
    code('system', 'optimizer')(home / 'state.pth')
    return home


@pytest.fixture
def run(home, monkeypatch, capsys):
    """Run a tool; its exit code and the last line of its errors."""
    monkeypatch.chdir(home)

    def call(tool, *arguments):
        exit_code = load_tool(tool).main(list(arguments))
        return exit_code, (capsys.readouterr().err.splitlines() or [''])[-1]

    return call


@pytest.mark.parametrize(
    ('reader', 'file'),
    [*((each, 'evil.pth') for each in READERS), ('load_from', 'state.pth'), ('test', 'state.pth')],
)
def test_weights_with_code_are_refused(reader, file, run, home):
    tool, arguments = READERS[reader]
    before = sorted(home.rglob('*'))
    code, line = run(tool, *(each.format(file) for each in arguments))
    assert (code, line) == (2, f"error: checkpoint '{file}' cannot be read: {REFUSED}")
    assert sorted(home.rglob('*')) == before


DEEP = '[' * 100_000
# Text in place of JSON, and what is wrong with it
TEXTS = {
    'deep': (DEEP, 'is no JSON: it is nested too deep'),
    'list': ('[1, 2]', 'holds a list, not a dict'),
    'number': ('3', 'holds a int, not a dict'),
    'code': (
        '__import__("os").system("touch ran")',
        'is no JSON: Expecting value: line 1 column 1',
    ),
}


@pytest.mark.parametrize('text', TEXTS)
def test_a_record_is_json_only(text, run, home):
    folder = home / f'run_{text}'
    folder.mkdir()
    (folder / 'record.json').write_text(TEXTS[text][0])
    code, line = run('analyze', folder.name, '--curves-only', '--out', 'out')
    assert code == 2
    assert line.startswith(f'error: run_{text}/record.json {TEXTS[text][1]}')
    assert not (home / 'ran').exists()


def test_logs_that_hold_anything_are_left_out(run, home):
    log = home / 'logged/20260101_000000/vis_data'
    log.mkdir(parents=True)
    lines = ['[1]', '3', 'null', DEEP, '{"a":', '\\udcff']
    (log / 'scalars.json').write_bytes('\n'.join(lines).encode() + b'\xff\xfe')
    code, line = run('analyze', 'logged', '--curves-only', '--out', 'out')
    assert (code, line) == (
        2,
        'error: logged: no training was logged (TIMESTAMP/vis_data/scalars.json)',
    )


@pytest.mark.parametrize('make', [npz_of_objects, npy_of_objects])
def test_features_of_strangers_are_not_unpickled(make, run, home):
    make(home / 'strange.npz')
    code, line = run('extract_features', 'images', *RANDOM, '--out', 'strange.npz')
    assert code == 2
    assert line.startswith('error: strange.npz exists and holds something else than these')
    assert not (home / 'ran').exists()
    (home / 'strange.npz').unlink()


@pytest.mark.parametrize('text', TEXTS)
def test_notes_of_embeddings_are_json_only(text, run, home):
    import pyarrow as pa
    from pyarrow import parquet

    rows = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()), 2)
    table = pa.table({'path': ['a', 'b'], 'embedding': rows})
    table = table.replace_schema_metadata({'vit_backbones': TEXTS[text][0]})
    parquet.write_table(table, home / 'f.parquet')
    code, line = run('extract_features', '--out', 'f.parquet', '--cluster', '2')
    assert code == 2
    assert line.startswith(f"error: f.parquet: its note 'vit_backbones' {TEXTS[text][1]}")


LITERALS = "takes literals, strings in quotes, as [dict(type='EMAHook')], got "
OPTIONS = {
    "custom_hooks=[dict(type=__import__('os').system('touch ran'))]": LITERALS,
    "custom_hooks={__import__('os').system('touch ran')}": LITERALS,
    'model.backbone.model_name={{ fileDirname }}': LITERALS,
    'model.backbone.model_name={{$HOME:x}}': LITERALS,
    'custom_hooks=[dict(type=a.b.__class__)]': LITERALS,
    'train_cfg=dict(max_epochs=10**10**10)': LITERALS,
    f'train_cfg=dict(max_epochs={"9" * 5000})': LITERALS,
    f'train_cfg.max_epochs={"9" * 5000}': f'{LITERALS}{"9" * 200}...',
    f'train_cfg.max_epochs={"[" * 10000}': f'takes at most 50 levels, got {"[" * 200}...',
    f'custom_hooks=[{"dict(a=" * 3000}1{")" * 3000}]': 'takes at most 50 levels, got [dict(a=',
    'model.__class__=x': "'__class__' is neither a key of 'model' nor an argument of Enc",
}


@pytest.mark.parametrize('option', OPTIONS, ids=range(len(OPTIONS)))
def test_options_are_literals(option, home, monkeypatch):
    monkeypatch.chdir(home)
    key = option.partition('=')[0]
    with pytest.raises(ValueError, match='options=') as caught:
        load_config('own.py', [option])
    assert str(caught.value).startswith(f'options={key}: {OPTIONS[option]}')
    assert len(str(caught.value)) < 500
    assert not (home / 'ran').exists()


@pytest.mark.parametrize(
    'value', ["__import__('os').system('touch ran')", '$HOME', 'a.b.__class__', '10**10**10']
)
def test_options_that_look_like_code_stay_text(value, home, monkeypatch):
    monkeypatch.chdir(home)
    cfg = load_config('own.py', [f'model.backbone.model_name={value}'])
    assert cfg.model.backbone.model_name == value.replace(' ', '')
    assert not (home / 'ran').exists()


@pytest.mark.parametrize('suffix', ['onnx', 'pt', 'pt2'])
@pytest.mark.parametrize('whole', [True, False])
def test_exports_hold_no_paths(suffix, whole, run, home):
    weights = ['--whole', '--config', 'seg.py', '--checkpoint', 'seg.pth'] if whole else RANDOM
    out = home / f'out.{suffix}'
    code, _ = run('export_onnx', *weights, '--size', '64', '96', '--out', str(out))
    assert code == 0
    check_no_paths(out, home)


@pytest.mark.parametrize('suffix', ['npz', 'safetensors', 'parquet'])
def test_features_hold_no_paths_but_those_given(suffix, run, home):
    out = home / f'features.{suffix}'
    weights = ['--config', 'seg.py', '--checkpoint', 'seg.pth']
    assert run('extract_features', 'images', *weights, '--out', str(out))[0] == 0
    check_no_paths(out, home)


def check_no_paths(file, home):
    contents = [file.read_bytes()]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            contents += [archive.read(name) for name in archive.namelist()]
    secrets = [str(home), str(REPOSITORY), str(Path.home()) + os.sep, 'site-packages']
    secrets += [name for name in (socket.gethostname(),) if len(name) > 5]  # others occur by chance
    for content in contents:
        assert not [secret for secret in secrets if secret.encode() in content]


def test_what_trainings_write_holds_no_code(train):
    """Each checkpoint loads with `weights_only=True`: all that it names is on our short list."""
    more = "custom_hooks = [dict(type='EMAHook')]"
    assert train([write_toy_config('.', more=more)]) == 0
    files = sorted(Path('work_dirs').rglob('*.pth'))
    assert [file.name for file in files] == [
        'best_toy_mIoU_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth',
    ]  # fmt: skip
    for file in files:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(file) == []
        content = torch.load(file, weights_only=True)
        assert {'meta', 'state_dict', 'ema_state_dict', 'message_hub'} <= content.keys()
