import importlib.metadata
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from toy_task import write_toy_config
from trained_models import write_images

ROOT = Path(__file__).parents[1]
LOCKS = ('requirements.txt', 'requirements-optional.txt')
FORKS = 'requirements-onedl.txt'
DOCS = 'requirements-docs.txt'
LOCK_LINE = re.compile(r"[A-Za-z0-9_-]+==[0-9][0-9a-z.]*(; platform_system == 'Linux')?")


def lock_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def locked_versions() -> dict[str, str]:
    pins = [Requirement(line) for name in LOCKS for line in lock_lines(name)]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def unmet_requirements(name: str) -> Iterator[str]:
    """What an installed distribution asks for and the environment lacks, as pip check does."""
    for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield requirement.name


@pytest.fixture(scope='module')
def metadata() -> dict[str, Any]:
    """The arguments that setup.py hands to setuptools."""
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, 'setup', lambda **arguments: given.update(arguments))
        runpy.run_path(str(ROOT / 'setup.py'))
    return given


@pytest.mark.parametrize('name', [*LOCKS, FORKS, DOCS])
def test_lock__pins_every_line(name: str) -> None:
    assert [line for line in lock_lines(name) if not LOCK_LINE.fullmatch(line)] == []


def test_lock__names_each_package_once() -> None:
    assert len(locked_versions()) == sum(len(lock_lines(name)) for name in LOCKS)


def test_lock_of_the_docs__has_the_versions_of_the_others() -> None:
    locked = locked_versions()
    pins = [line.split('==') for line in lock_lines(DOCS)]
    shared = {canonicalize_name(name): version for name, version in pins} | locked
    assert [pin for pin in pins if shared[canonicalize_name(pin[0])] != pin[1]] == []


def test_lock__has_headless_opencv_only() -> None:
    assert [name for name in locked_versions() if 'opencv' in name] == ['opencv-python-headless']


@pytest.mark.parametrize('name', LOCKS)
def test_lock__leaves_only_opencv_python_open(name: str) -> None:
    names = [canonicalize_name(Requirement(line).name) for line in lock_lines(name)]
    locked = locked_versions()
    for package in names:
        if installed_version(package) != locked[package]:
            pytest.skip(f'not the locked environment: {package} is {installed_version(package)}')
    unmet = [(package, wanted) for package in names for wanted in unmet_requirements(package)]
    wants_opencv = [('mmengine', 'opencv-python'), ('mmcv-lite', 'opencv-python')]
    assert unmet == [pair for pair in wants_opencv if pair[0] in names]


@pytest.mark.parametrize(
    'extra', ['install', 'openmmlab', 'transformers', 'lightly', 'peft', 'faiss', 'dev']
)
def test_setup__ranges_admit_the_lock(metadata: dict[str, Any], extra: str) -> None:
    wanted = {'install': metadata['install_requires'], **metadata['extras_require']}[extra]
    locked = locked_versions()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_setup__names_the_forks_of_their_lock(metadata: dict[str, Any]) -> None:
    forks = [line for line in lock_lines(FORKS) if line.startswith('onedl-')]
    assert metadata['extras_require']['onedl'] == [line.replace('==', '>=') for line in forks]


def test_setup__admits_no_older_release_than_has_passed() -> None:
    matrix = runpy.run_path(str(ROOT / '.ci/matrix'))
    rows = json.loads((ROOT / 'docs/results/versions/matrix.json').read_text())['rows']
    passed = [row['versions'] for row in rows if row['passed'] and not row['failed']]
    tried = {(name, Version(each[name])) for each in passed for name in matrix['SHOWN']}
    oldest = {(name, Version(matrix['OLDEST'][name])) for name in matrix['SHOWN']}
    assert oldest - tried == set()


def test_setup__names_the_oldest_transformers_that_the_source_takes(
    metadata: dict[str, Any],
) -> None:
    from vit_backbones.sources.transformers_build import _OLDEST

    assert metadata['extras_require']['transformers'] == [f'transformers>={_OLDEST},<6']


def test_setup__reads_the_version_of_the_package(metadata: dict[str, Any]) -> None:
    import vit_backbones

    assert metadata['version'] == vit_backbones.__version__


def test_setup__ships_every_package(metadata: dict[str, Any]) -> None:
    found = {
        '.'.join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / 'vit_backbones').rglob('*.py')
    }
    assert found == set(metadata['packages'])


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lib`, what a wheel holds, and `dist`, with an sdist, of a copy of this folder."""
    folder = tmp_path_factory.mktemp('built')
    for name in ('vit_backbones', 'configs', 'tools'):
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__')
        )
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, folder)
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', 'lib', 'sdist'],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


def shipped(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*.py')}


@pytest.mark.parametrize('name', ['configs', 'tools'])
def test_wheel__holds_every_config_and_tool(built: Path, name: str) -> None:
    assert shipped(built / f'lib/vit_backbones/.mim/{name}') == shipped(ROOT / name)
    assert not any(path.is_symlink() for path in built.glob('lib/vit_backbones/.mim/*'))


def test_sdist__holds_every_config_and_tool(built: Path) -> None:
    (archive,) = built.glob('dist/*.tar.gz')
    shutil.unpack_archive(archive, built / 'unpacked')
    (folder,) = (built / 'unpacked').iterdir()
    for name in ('configs', 'tools'):
        assert shipped(folder / f'vit_backbones/.mim/{name}') == shipped(ROOT / name)
    assert (folder / 'vit_backbones/.mim/model-index.yml').is_file()


INHERITED = """
_base_ = 'vit_backbones::linear_probe/linear_vit-b-dinov2_ade20k.py'
model = dict(backbone=dict(pretrained=False))
"""


@pytest.mark.slow
def test_wheel__is_inherited_from_by_name(built: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text(INHERITED)
    read = (
        'import vit_backbones.config as c; cfg = c.load_config("mine.py"); '
        'print(c.__file__, cfg.model.backbone.pretrained, cfg.model.decode_head.num_classes)'
    )
    done = subprocess.run(
        [sys.executable, '-c', read], cwd=tmp_path, env=os.environ | {'PYTHONPATH': built / 'lib'},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-3:] == [
        f'{built}/lib/vit_backbones/config/__init__.py',
        'False',
        '150',
    ]


@pytest.fixture
def started(built: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python -m vit_backbones` of the wheel with some words, from an empty folder."""
    given = os.environ | {'PYTHONPATH': f'{built}/lib:{ROOT}/tests', 'OMP_NUM_THREADS': '1'}

    def run(*words: str, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess:
        command = [sys.executable, *launcher, '-m', 'vit_backbones', *words]
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ('words', 'line'),
    [
        (['tran'], "error: no command 'tran': did you mean train? Choose list, analyze, "),
        (['_targets'], "error: no command '_targets': Choose list, analyze, benchmark, "),
        (['a\nb', '--out'], r"error: no command 'a\nb': Choose list, analyze, benchmark, "),
        (['train'], 'error: the following arguments are required: CONFIG; see --help'),
        (
            ['benchmark', 'spee'],
            "error: argument COMMAND: invalid choice: 'spee' (choose from 'speed', ",
        ),
    ],
)
def test_wheel__answers_a_wrong_command_at_once(
    words: list[str], line: str, started: Callable[..., subprocess.CompletedProcess]
) -> None:
    done = started(*words, launcher=['-X', 'importtime'])
    told = [each for each in done.stderr.splitlines() if not each.startswith('import time:')]
    assert (done.returncode, done.stdout) == (2, '')
    assert told[-1].startswith(line)
    assert len(told) == 1
    assert not re.search(r'\| +(torch|numpy|mmengine)$', done.stderr, re.MULTILINE)


def test_wheel__lists_its_tools(started: Callable[..., subprocess.CompletedProcess]) -> None:
    listed = re.findall(r'^    (\w+)', started('--help').stdout, re.MULTILINE)
    assert listed == ['list', *sorted(path.stem for path in ROOT.glob('tools/[!_]*.py'))]
    told = started('analyze', '--help').stdout
    assert 'folder of python -m vit_backbones train with its config' in ' '.join(told.split())


@pytest.mark.slow
def test_wheel__a_tool_runs_from_another_folder(
    started: Callable[..., subprocess.CompletedProcess], tmp_path: Path
) -> None:
    write_images(tmp_path / 'images', (64, 96), (50, 33))
    words = 'images --model test_vit --random-weights 0 --out f.npz --device cpu'.split()
    done = started('extract_features', *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('2 images, featmap of 64 channels')
    words += ['--layers', '99']
    wrong = started('extract_features', *words)
    run = [sys.executable, ROOT / 'tools/extract_features.py', *words]
    given = os.environ | {'PYTHONPATH': str(ROOT)}
    by_path = subprocess.run(run, cwd=tmp_path, env=given, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, by_path.stderr)
    assert re.fullmatch(r'error: out_indices must be in .* got 99\n', wrong.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('launcher', 'more'),
    [([], []), (['-m', 'torch.distributed.run', '--nproc_per_node=2'], ['--launcher', 'pytorch'])],
    ids=['alone', 'torchrun'],
)
def test_wheel__stopped_training_goes_on_by_its_command(
    launcher: list[str],
    more: list[str],
    started: Callable[..., subprocess.CompletedProcess],
    tmp_path: Path,
) -> None:
    stop = "custom_hooks = [dict(type='ToyStopHook', epoch=1)]"
    config = Path(write_toy_config(tmp_path, more=stop))
    done = started('train', 'toy.py', *more, launcher=launcher)
    words = [sys.executable, *launcher, *'-m vit_backbones train toy.py'.split(), *more, '--resume']
    line = f'the last checkpoint is work_dirs/toy/epoch_1.pth, continue with: {shlex.join(words)}'
    assert f'interrupted; {line}' in done.stderr.splitlines(), done.stderr
    config.write_text(config.read_text().replace(stop, ''))
    done = started('train', 'toy.py', *more, '--resume', launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert 'work_dirs/toy/epoch_1.pth' in done.stdout
    assert done.stdout.splitlines()[-1].startswith('done: mIoU')


def test_clone__is_inherited_from_by_name(tmp_path: Path) -> None:
    from vit_backbones.config.loading import load_config

    (tmp_path / 'mine.py').write_text(INHERITED)
    cfg = load_config(tmp_path / 'mine.py')
    assert cfg.model.backbone.frozen_stages == 12
    assert "_scope_='vit_backbones'" not in cfg.pretty_text


@pytest.mark.parametrize(
    'path', ['.venv/bin/python', 'site/index.html', 'data/shapes/a.png', 'work_dirs/a/b.pth']
)
def test_gitignore__covers_what_a_run_writes(path: str, tmp_path: Path) -> None:
    if shutil.which('git') is None:
        pytest.skip('git is not installed')
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    shutil.copy(ROOT / '.gitignore', tmp_path)
    found = subprocess.run(['git', 'check-ignore', '-q', path], cwd=tmp_path, check=False)
    assert found.returncode == 0


@pytest.mark.parametrize('version', [(3, 10), (3, 15)])
def test_make__names_the_python_it_cannot_use(version: tuple[int, int], tmp_path: Path) -> None:
    if shutil.which('make') is None:
        pytest.skip('make is not installed')
    python = tmp_path / 'python'
    python.write_text(
        '#!/bin/sh\n'
        f'[ "$1" = -V ] && echo Python {version[0]}.{version[1]}.0 && exit\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = {(*version, 0)}; $2"\n'
    )
    python.chmod(0o755)
    result = subprocess.run(
        ['make', 'train', f'PYTHON={python}', f'VENV={tmp_path}/venv'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert f'is Python {version[0]}.{version[1]}.0, the locked wheels need' in result.stderr
    assert not (tmp_path / 'venv').exists()
