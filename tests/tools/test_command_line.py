"""The one way in which tools fail, and how they spell the library's arguments."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _command_line import Parser, add_config_options, one_line_errors
from _resuming import resume_command
from _spelling import with_flags
from conftest import load_tool

ROOT = Path(__file__).parents[2]

FLAGS = {
    'amp': '--amp',
    'size': '--size',
    'img_size': '--img-size',
    'options': '--cfg-options',
    'checkpoint': '--checkpoint',
}


@pytest.mark.parametrize(
    ('text', 'spelled'),
    [
        ('amp=True needs a GPU', '--amp needs a GPU'),
        ('give size=..., or amp=True.', 'give --size, or --amp.'),
        ('checkpoint=FILE of a training', '--checkpoint FILE of a training'),
        ('img_size=(64, 96) is too large', '--img-size 64 96 is too large'),
        ("size='avg' or size='a b'", "--size avg or --size 'a b'"),
        ('options= change a config', '--cfg-options change a config'),
        ('options=model.neck: no neck', '--cfg-options model.neck: no neck'),
        ('options=size=3: no size', '--cfg-options size=3: no size'),
        ('options=...: no config', '--cfg-options: no config'),
        ('model.backbone.size=3, my_size=3, size-3', 'model.backbone.size=3, my_size=3, size-3'),
        ("the file 'size=3' or out/size=3", "the file 'size=3' or out/size=3"),
        ('size must be 3, other=True', '--size must be 3, other=True'),
        ('the size must be 3', 'the size must be 3'),
        ('size=4*.png: no such image', 'size=4*.png: no such image'),
        ('size=4/x.parquet does not exist', 'size=4/x.parquet does not exist'),
        ('options=load_from=a/b.pth', '--cfg-options load_from=a/b.pth'),
        ('amp=False, or checkpoint=None', 'amp=False, or checkpoint=None'),
    ],
)
def test_arguments_are_spelled_as_flags(text, spelled):
    assert with_flags(text, FLAGS) == spelled
    assert with_flags(text, {}) == text


def fail(error, argv):
    """Exit code of a tool with a command whose work raises an error."""

    @one_line_errors
    def main(argv):
        parser = Parser()
        commands = parser.add_subparsers()
        first, other = commands.add_parser('first'), commands.add_parser('other')
        first.add_argument('--size')
        add_config_options(first, 'a=1')
        other.add_argument('--amp', action='store_true')
        first.add_argument('--debug', action='store_true')
        assert isinstance(parser.parse_args(argv), argparse.Namespace)
        raise error

    return main(argv)


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('size=3 is\n  small, amp=True'), 'error: --size 3 is small, amp=True'),
        (RuntimeError(), 'error: RuntimeError'),
        (OSError(2, 'No such file', 'a.py'), 'error: No such file: a.py'),
        (ImportError('no x'), 'error: no x; install the pinned set of requirements.txt'),
        (ImportError('no x: pip install x'), 'error: no x: pip install x'),
    ],
)
def test_an_error_is_one_line_with_the_flags_of_the_command(error, line, capsys):
    assert fail(error, ['first']) == 2
    assert capsys.readouterr().err == f'{line}\n'


@pytest.mark.parametrize('stop', [KeyboardInterrupt(), KeyboardInterrupt('stopped; go on with x')])
def test_ctrl_c_has_its_own_code(stop, capsys):
    assert fail(stop, ['first']) == 130
    assert capsys.readouterr().err == f'{str(stop) or "interrupted"}\n'


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert fail(ValueError('x'), ['first']) == 2
    assert capsys.readouterr().err == ''


def test_tracebacks_are_there_on_demand(capsys, monkeypatch):
    fail(ValueError('x'), ['first', '--debug'])
    assert capsys.readouterr().err.startswith('Traceback')
    fail(ValueError('x'), ['first'])
    assert capsys.readouterr().err == 'error: x\n'
    monkeypatch.setenv('VIT_BACKBONES_DEBUG', '1')
    fail(ValueError('x'), ['first'])
    assert capsys.readouterr().err.startswith('Traceback')


def test_a_crash_keeps_its_traceback():
    error = ValueError('a bug')
    error.while_running = True
    with pytest.raises(ValueError, match='a bug'):
        fail(error, ['first'])


def test_results_of_check_models_that_cannot_be_read_are_one_line(tmp_path, capsys):
    assert load_tool('check_models').main(['--out', str(tmp_path)]) == 2
    assert capsys.readouterr().err == f'error: {tmp_path} cannot be written: it is no file\n'


def test_a_pipe_that_breaks_while_a_training_runs_is_a_crash():
    error = BrokenPipeError()
    error.while_running = True
    with pytest.raises(BrokenPipeError):
        fail(error, ['first'])
    assert fail(BrokenPipeError(), ['first']) == 0


def test_packages_that_do_not_fit_together_get_the_advice_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / 'unfit.py').write_text("raise RuntimeError('operator a::b does not exist')")
    monkeypatch.syspath_prepend(tmp_path)

    @one_line_errors
    def main(argv):
        import unfit  # noqa: F401

    assert main([]) == 2
    assert 'does not exist; install the pinned set' in capsys.readouterr().err


def test_an_error_of_one_process_is_reported_by_that_process(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    error = ValueError('try size=3')
    assert fail(error, ['first']) == 2
    assert capsys.readouterr().err == ''
    error.of_any_process = True
    assert fail(error, ['first']) == 2
    assert capsys.readouterr().err == 'error: try --size 3\n'


LEAVING = """
import atexit, os, sys
import _command_line as cli

class Aborting:
    def __del__(self):
        os.abort()

left = Aborting()  # until the end of the interpreter
atexit.register(print, 'tidy')
print('done')
cli.leave(3)
"""


@pytest.mark.parametrize(('number', 'code'), [('1', -6), ('2', 3)])
def test_one_of_several_processes_leaves_before_the_end_of_the_interpreter(number, code):
    ended = subprocess.run(
        [sys.executable, '-c', LEAVING],
        env=os.environ | dict(WORLD_SIZE=number, PYTHONPATH=str(ROOT / 'tools')),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code
    assert code < 0 or ended.stdout == 'done\ntidy\n'


@pytest.mark.parametrize('name', ['train', 'test', 'extract_features'])
def test_tools_of_several_processes_leave_so(name):
    assert (ROOT / f'tools/{name}.py').read_text().endswith('    cli.leave(main())\n')


@pytest.mark.parametrize(
    ('given', 'count'),
    [({}, '1000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'PASSIVE'}, '0')],
)
def test_threads_of_pytorch_soon_sleep_unless_a_user_says_otherwise(given, count):
    """So that they leave the cores to other processes; see what OpenMP itself has read."""
    free = {k: v for k, v in os.environ.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    read = subprocess.run(
        [sys.executable, '-c', 'import _command_line, torch'],
        env=free | given | {'OMP_DISPLAY_ENV': 'VERBOSE', 'PYTHONPATH': str(ROOT / 'tools')},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    if 'GOMP_SPINCOUNT' not in read:
        pytest.skip('this build of PyTorch has no GNU OpenMP')
    assert f"GOMP_SPINCOUNT = '{count}'" in read


def test_the_command_to_resume_starts_as_many_processes(monkeypatch):
    """`python tools/train.py --launcher pytorch` would not run."""
    tool = str(ROOT / 'tools/train.py')
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'executable', str(ROOT / '.venv/bin/python'))
    one = '.venv/bin/python tools/train.py a.py --resume'
    assert resume_command(tool, ['a.py'], None) == one
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    several = '.venv/bin/python -m torch.distributed.run --nproc_per_node=2 tools/train.py '
    assert resume_command(tool, ['a.py'], None) == several + 'a.py --resume'
    monkeypatch.delenv('LOCAL_WORLD_SIZE')
    assert resume_command(tool, ['--resume=1.pth', 'a.py'], '1.pth') == (
        '.venv/bin/python tools/train.py --resume=auto a.py'
    )


@pytest.fixture
def by_module(monkeypatch):
    """As if `python -m vit_backbones train a.py` had started this process."""
    spec = importlib.util.spec_from_loader('vit_backbones.__main__', None)
    monkeypatch.setattr(sys.modules['__main__'], '__spec__', spec)
    monkeypatch.setattr(sys, 'argv', ['vit_backbones/__main__.py', 'train', 'a.py'])


def test_a_tool_of_the_module_is_named_as_it_was_started(by_module, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'executable', str(ROOT / '.venv/bin/python'))
    tool = ROOT / 'tools/train.py'
    assert (
        resume_command(tool, ['a.py'], None)
        == '.venv/bin/python -m vit_backbones train a.py --resume'
    )
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert resume_command(tool, ['a.py'], None) == (
        '.venv/bin/python -m torch.distributed.run --nproc_per_node=2 -m vit_backbones train a.py '
        '--resume'
    )
    error = ValueError("size=3: 'tools/train.py' and my/tools/train.py; tools/train.py trains")
    assert fail(error, ['first']) == 2
    assert capsys.readouterr().err == (
        "error: --size 3: 'tools/train.py' and my/tools/train.py; python -m vit_backbones train "
        'trains\n'
    )
    assert Parser().prog == 'python -m vit_backbones train'
