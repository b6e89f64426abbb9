"""The installed packages, and their conflicts: a line each with its fix.

It needs only the standard library, so that it can report why an import fails.
"""

import contextlib
import importlib
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

from vit_backbones.errors import one_line

# Whether `python -m vit_backbones` imports this, and looks for the module: sys.argv[0] is '-m' then
STARTED = sys.argv[:1] == ['-m'] and sys.orig_argv[-len(sys.argv)] in (
    'vit_backbones',
    '-mvit_backbones',
)


class Problem(NamedTuple):
    """One thing that is wrong with the environment, in one line with its fix."""

    text: str
    stops: bool = True  # it should prevent every start


_OPENCV = tuple(f'opencv-{a}python{b}' for a in ('', 'contrib-') for b in ('', '-headless'))
# Import name, distributions that bring it, and the extra of ours that installs one
_PACKAGES = (
    ('torch', ('torch',), ''),
    ('torchvision', ('torchvision',), ''),
    ('numpy', ('numpy',), ''),
    ('timm', ('timm',), ''),
    ('mmengine', ('mmengine', 'onedl-mmengine'), '[openmmlab]'),
    ('mmcv', ('mmcv', 'mmcv-lite', 'onedl-mmcv'), '[openmmlab]'),
    ('mmdet', ('mmdet', 'onedl-mmdetection'), '[openmmlab]'),
    ('mmseg', ('mmsegmentation', 'onedl-mmsegmentation'), '[openmmlab]'),
    ('mmpretrain', ('mmpretrain', 'onedl-mmpretrain'), None),
    ('opencv', _OPENCV, '[openmmlab]'),
    ('transformers', ('transformers',), '[transformers]'),
    ('lightly', ('lightly',), '[lightly]'),
    ('peft', ('peft',), '[peft]'),
    ('pyarrow', ('pyarrow',), '[tools]'),
    ('scikit-learn', ('scikit-learn',), '[tools]'),
    ('onnx', ('onnx',), '[tools]'),
    ('onnxruntime', ('onnxruntime', 'onnxruntime-gpu'), '[tools]'),
)
_NEEDED = ('numpy', 'torch', 'torchvision', 'mmengine', 'mmcv', 'timm')  # in the order of imports
_HOSTS = ('mmdet', 'mmseg')
_MMCV_RANGE = ('2.0.0', '2.2.0')  # of mmdet 3.3.0 and mmsegmentation 1.2.2, not of the onedl forks


def problems() -> Iterator[Problem]:
    """Conflicts between the installed versions, without any import."""
    for check in (_python, _rivals, _torch_pair, _mmcv, _too_old, _too_new):
        yield from check()


def explained(error: BaseException) -> str:
    """A failed import in one line, with the problem behind it where that is known."""
    line = one_line(error)
    known = [each.text for each in problems() if each.stops]
    if isinstance(error, ModuleNotFoundError):
        known += [each.text for each in _missing() if each.text.startswith(f'{error.name} ')]
    if known:
        return f'{line}: {known[0]}'
    own = isinstance(error, ValueError)  # about a setting, not about an installation
    return line if own else f'{line}; install the pinned set of requirements.txt'


def report() -> tuple[list[str], list[str]]:
    """Lines on the installation and on its problems, some of them found by importing."""
    wrong = [each.text for each in problems()]
    wrong += [each.text for each in _missing()]
    failure, gpus = _first_failure(), _gpus()
    if failure and not any(each.stops for each in problems()):
        wrong.append(failure)
    torch = sys.modules.get('torch')
    if hasattr(torch, 'cuda') and gpus:
        wrong += _unused(torch, gpus)
    rows = [('Python', f'{platform.python_version()} ({platform.system()} {platform.machine()})')]
    rows += [(name, _versions(name, extra)) for name, _, extra in _PACKAGES]
    if hasattr(torch, 'cuda'):
        rows += [('CUDA', _cuda(torch))]
    rows += [('GPU', '; '.join(gpus) or 'none')]
    return [row(*each) for each in rows], wrong


def row(name: str, value: str) -> str:
    """A line of the report."""
    return f'{name:<14}{value}'


def version(distribution: str) -> str | None:
    """The installed version, or `None`."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _installed(name: str) -> list[tuple[str, str]]:
    """(distribution, version) of each package that brings an import name."""
    distributions = next(each[1] for each in _PACKAGES if each[0] == name)
    return [(each, found) for each in distributions if (found := version(each))]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r'\d+', text.split('+')[0])[:3]))


def _python() -> Iterator[Problem]:
    if _numbers(platform.python_version()) < (3, 11):
        yield Problem(
            f'Python {platform.python_version()} is too old: make an environment with Python 3.11 '
            f'or later'
        )


def _rivals() -> Iterator[Problem]:
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'opencv'):
        found = _installed(name)
        if len(found) > 1:
            yield Problem(
                f'{" and ".join(" ".join(each) for each in found)} are installed and overwrite '
                f'each other: uninstall all of them, then install one',
                stops=name != 'opencv',
            )


def _torch_pair() -> Iterator[Problem]:
    torch, torchvision = version('torch'), version('torchvision')
    if not torch or not torchvision:
        return
    needs = ' '.join(metadata.requires('torchvision') or ())
    wanted = re.search(r'torch\s*\(?==\s*([\d.]+)', needs)
    both = f'torch {torch} and torchvision {torchvision}'
    if wanted and _numbers(wanted[1]) != _numbers(torch):
        yield Problem(
            f'{both} do not belong together, which ends in "operator torchvision::nms does not '
            f'exist": pip install torch=={wanted[1]} torchvision=={torchvision.split("+")[0]}'
        )
    # Elsewhere wheels only for the CPU carry no mark
    elif platform.machine() == 'x86_64' and ('+cpu' in torch) != ('+cpu' in torchvision):
        one = 'torch' if '+cpu' in torch else 'torchvision'
        plain = (each.split('+')[0] for each in (torch, torchvision))
        yield Problem(
            f'{both} do not belong together, only {one} is built for the CPU, which ends in '
            f'"operator torchvision::nms does not exist": pip uninstall torch torchvision, then '
            f'pip install torch=={next(plain)} torchvision=={next(plain)}'
        )


def _mmcv() -> Iterator[Problem]:
    low, high = _MMCV_RANGE
    for name, found in _installed('mmcv')[:1]:
        for host in ('mmdet', 'mmsegmentation'):
            if version(host) and not _numbers(low) <= _numbers(found) < _numbers(high):
                yield Problem(
                    f'{name} {found} does not work with {host} {version(host)}, which needs mmcv '
                    f'>= {low}, < {high}: pip uninstall {name}, then pip install mmcv-lite==2.1.0'
                )
                return


def _too_old() -> Iterator[Problem]:
    for name, least, why in (
        ('torch', '2.8', 'cannot export models'),
        ('timm', '1.0.31', 'resamples position embeddings wrongly'),
        ('numpy', '2', 'cannot read the checkpoints of a resume'),
    ):
        found = version(name)
        if found and _numbers(found) < _numbers(least):
            yield Problem(
                f'{name} {found} {why}: pip install "{name}>={least}"', stops=name != 'numpy'
            )


def _too_new() -> Iterator[Problem]:
    setuptools, transformers = version('setuptools'), version('transformers')
    if version('mmengine') and setuptools and _numbers(setuptools) >= (82,):
        yield Problem(
            f'setuptools {setuptools} has no pkg_resources, which mmengine '
            f'{version("mmengine")} imports: pip install "setuptools<82"'
        )
    if version('mmpretrain') and transformers and _numbers(transformers) >= (5,):
        yield Problem(
            f'mmpretrain {version("mmpretrain")} does not work with transformers {transformers}: '
            f'pip install "transformers<5", or leave mmpretrain out',
            stops=False,
        )


def _missing() -> Iterator[Problem]:
    for name, distributions, extra in _PACKAGES:
        if name in _NEEDED and not any(map(version, distributions)):
            yield Problem(f'{name} is not installed: pip install vit_backbones{extra}')


def _versions(package: str, extra: str | None) -> str:
    """Installed versions, with the name of the distribution where it differs."""
    if found := _installed(package):
        return ', '.join(each if name == package else f'{each} ({name})' for name, each in found)
    return 'not installed' if extra is None else f'not installed (pip install vit_backbones{extra})'


def _first_failure() -> str | None:
    """Import the needed packages in order, up to the first that fails."""
    names = [*_NEEDED, *(name for name in _HOSTS if _installed(name)), 'vit_backbones.backbone']
    for name in names:
        try:
            with warnings.catch_warnings(action='ignore'):
                importlib.import_module(name)
        except Exception as error:  # each library has its own
            line, fix = one_line(error), 'install the pinned set of requirements.txt'
            return f'{name} cannot be imported ({line.removesuffix(f"; {fix}")}): {fix}'
    return None


def _gpus() -> list[str]:
    """Name and driver of each NVIDIA GPU, from nvidia-smi."""
    if shutil.which('nvidia-smi') is None:
        return []
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        lines = found.stdout.splitlines()
        return [line.replace(', ', ', driver ') for line in lines if line.strip()]
    return []


def _unused(torch: Any, gpus: list[str]) -> Iterator[str]:
    """Why PyTorch does not use an existing GPU."""
    if torch.version.cuda is None:
        yield (
            f'there is a GPU ({gpus[0]}), but torch {torch.__version__} is built for the CPU: pip '
            f'uninstall torch torchvision, then install a CUDA build (https://pytorch.org)'
        )
    elif not torch.cuda.is_available():
        yield (
            f'there is a GPU ({gpus[0]}), but torch {torch.__version__}, built for CUDA '
            f'{torch.version.cuda}, cannot use it: update the driver, or install a build for an '
            f'older CUDA (https://pytorch.org)'
        )


def _cuda(torch: Any) -> str:
    if torch.version.cuda is None:
        return 'none: torch is built for the CPU'
    used = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cudnn = torch.backends.cudnn.version()
    return f'{torch.version.cuda}, cuDNN {cudnn}; torch sees {used or "no"} GPU{"s" * (used > 1)}'
