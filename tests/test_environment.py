"""The report on an environment, with versions that are made up."""

import importlib
import platform
import re
import sys
import types
from importlib import metadata

import pytest

from vit_backbones import environment
from vit_backbones.__main__ import main
from vit_backbones.checks import preflight

GOOD = {
    'torch': '2.11.0',
    'torchvision': '0.26.0',
    'numpy': '2.4.6',
    'timm': '1.0.31',
    'mmengine': '0.10.7',
    'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
    'opencv-python-headless': '4.12.0',
    'setuptools': '80.8.0',
}


@pytest.fixture
def installed(monkeypatch):
    """Let these be installed in place of, or besides, those that fit."""
    for name in ('mmengine', 'mmdet', 'mmseg'):
        importlib.import_module(name)  # the forks look their own version up then

    def install(changes, gpus=()):
        versions = {name: value for name, value in (GOOD | changes).items() if value is not None}

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, 'version', version)
        pair = '2.6.0' if versions.get('torchvision') == '0.21.0' else '2.11.0'
        monkeypatch.setattr(metadata, 'requires', lambda name: ['numpy', f'torch (=={pair})'])
        monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
        monkeypatch.setattr(environment, '_gpus', lambda: list(gpus))

    return install


def test_what_fits_has_no_problem(installed):
    installed({})
    assert list(environment.problems()) == []


CASES = {
    'torch': ({'torch': '2.10.0'}, 'torch 2.10.0 and torchvision 0.26.0 do not belong .*==2.11.0'),
    'cpu': ({'torch': '2.11.0+cpu'}, r'torch 2.11.0\+cpu and .*, only torch is built for the CPU'),
    'cpu too': ({'torchvision': '0.26.0+cpu'}, 'only torchvision is built for the CPU'),
    'mmcv': ({'mmcv-lite': '2.2.0'}, 'mmcv-lite 2.2.0 does not work with mmdet 3.3.0, .* < 2.2.0'),
    'old mmcv': ({'mmcv-lite': '1.7.0'}, 'mmcv-lite 1.7.0 does not .* >= 2.0.0'),
    'families': (
        {'onedl-mmdetection': '3.5.1'},
        'mmdet 3.3.0 and onedl-mmdetection 3.5.1 are installed and overwrite each other: uninstall',
    ),
    'two mmcv': ({'mmcv': '2.1.0'}, 'mmcv 2.1.0 and mmcv-lite 2.1.0 are installed'),
    'old torch': (
        {'torch': '2.6.0', 'torchvision': '0.21.0'},
        'torch 2.6.0 cannot export models: pip install "torch>=2.8"',
    ),
    'timm': ({'timm': '1.0.30'}, 'timm 1.0.30 resamples .*: pip install "timm>=1.0.31"'),
    'setuptools': ({'setuptools': '82.0.1'}, 'setuptools 82.0.1 has no pkg_resources.*<82'),
    'python': ({}, 'Python 3.10.4 is too old: .*3.11'),
}
HARMLESS = {
    'numpy': ({'numpy': '1.26.4'}, 'numpy 1.26.4 cannot read .*: pip install "numpy>=2"'),
    'opencv': ({'opencv-python': '4.12.0'}, 'opencv-python 4.12.0 and opencv-python-headless'),
    'transformers': (
        {'transformers': '5.1.0', 'mmpretrain': '1.2.0'},
        'mmpretrain 1.2.0 does not work with transformers 5.1.0: pip install "transformers<5"',
    ),
}


@pytest.mark.parametrize('case', [*CASES, *HARMLESS])
def test_each_problem_is_one_line_and_those_that_stop_are_refused(case, installed, monkeypatch):
    changes, message = (CASES | HARMLESS)[case]
    installed(changes)
    if case == 'python':
        monkeypatch.setattr(platform, 'python_version', lambda: '3.10.4')
    (problem,) = environment.problems()
    assert re.match(f'.*{message}', problem.text)
    assert '\n' not in problem.text
    if case in HARMLESS:
        preflight.check_environment()
        return
    with pytest.raises(ValueError, match=message):
        preflight.check_environment()


@pytest.mark.parametrize(
    ('error', 'changes', 'line'),
    [
        (RuntimeError('no nms'), {'torch': '2.10.0'}, 'no nms: torch 2.10.0 and torchvision 0.26'),
        (ModuleNotFoundError("No module named 'timm'", name='timm'), {'timm': None}, 'pip install'),
        (OSError('no libGL'), {}, 'no libGL; install the pinned set of requirements.txt'),
        (ValueError('X must be on'), {}, 'X must be on'),
    ],
)
def test_a_failed_import_is_explained(error, changes, line, installed):
    installed(changes)
    assert line in environment.explained(error)


def test_report__exit_code_and_lines(installed, capsys):
    installed({'peft': None})
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert re.search(r'^mmcv +2\.1\.0 \(mmcv-lite\)$', printed, re.M)
    assert re.search(r'^peft +not installed \(pip install vit_backbones\[peft\]\)$', printed, re.M)
    assert printed.endswith('\nno problems\n')
    installed({'numpy': '1.26.4', 'mmcv-lite': None})
    assert main([]) == 1
    problems = capsys.readouterr().out.split('\n\n')[1].splitlines()
    assert len(problems) == 2
    assert problems[1] == 'problem: mmcv is not installed: pip install vit_backbones[openmmlab]'


def test_report__names_the_first_import_that_fails(installed, capsys, monkeypatch):
    installed({})

    def fail(name):
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms\ndoes not exist')

    monkeypatch.setattr(importlib, 'import_module', fail)
    assert main([]) == 1
    line = (
        'problem: torchvision cannot be imported (operator torchvision::nms does not exist): inst'
    )
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ('cuda', 'message'),
    [(None, r'is built for the CPU: pip uninstall'), ('13.0', 'CUDA 13.0, cannot use it: update')],
)
def test_report__a_gpu_that_is_not_used(cuda, message, installed, monkeypatch):
    installed({}, gpus=['H200, driver 535.1'])
    torch = types.SimpleNamespace(
        __version__='2.11.0',
        version=types.SimpleNamespace(cuda=cuda),
        cuda=types.SimpleNamespace(is_available=lambda: False),
        backends=types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: None)),
    )
    monkeypatch.setattr(environment, '_first_failure', lambda: None)
    monkeypatch.setitem(sys.modules, 'torch', torch)
    (problem,) = environment.report()[1]
    assert re.match(rf'there is a GPU \(H200, driver 535.1\), but torch 2.11.0.*{message}', problem)


@pytest.mark.parametrize(
    ('module', 'started_by', 'imports'),
    [
        ('vit_backbones', ['-m', 'train', '-h'], True),
        ('vit_backbones.version', ['-m'], False),
        ('x', ['train.py', 'vit_backbones'], False),
    ],
)
def test_a_package_that_fails_leaves_the_report_alone(module, started_by, imports, monkeypatch):
    """What `__init__` does when a library fails, run under another name."""
    code = importlib.util.find_spec('vit_backbones').loader.get_code('vit_backbones')
    monkeypatch.setitem(sys.modules, 'vit_backbones.hosts', None)
    monkeypatch.setattr(sys, 'argv', started_by)
    monkeypatch.setattr(sys, 'orig_argv', ['python', '-m', module, *started_by[1:]])
    monkeypatch.delitem(sys.modules, 'vit_backbones.environment')
    if imports:
        exec(code, {'__name__': 'copy'})
        return
    with pytest.raises(ImportError, match=r'install the pinned set of requirements.txt|: '):
        exec(code, {'__name__': 'copy'})
