"""What the command lines of the tools share.

It lies here and not in the package, which takes seconds to import: `--help` and mistakes in the
arguments are told at once.
"""

import argparse
import contextlib
import functools
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

Main = Callable[[Sequence[str] | None], int | None]


def one_line_errors(main: Main) -> Callable[[Sequence[str] | None], int]:
    """Let a tool's `main` tell what is wrong from outside in one line.

    Args:
        main: Imports the package inside, returns an exit code (`None` is 0), and raises
            `ValueError`, `OSError`, `ImportError` or `RuntimeError` for what is wrong from outside.

    Returns:
        `main` that returns 2 then, and 130 after Ctrl-C; `VIT_BACKBONES_DEBUG=1` shows tracebacks.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except KeyboardInterrupt:
            return _tell('interrupted', 130)
        except BrokenPipeError:  # `| head` has read enough
            sys.stdout = open(os.devnull, 'w')
            return 0
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            if os.environ.get('VIT_BACKBONES_DEBUG', '0') != '0':
                traceback.print_exc()
            return _tell(f'error: {_line(error)}', 2)

    return run


def _tell(line: str, code: int) -> int:
    if os.environ.get('RANK', '0') == '0':
        print(line, file=sys.stderr)
    return code


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f': {error.filename}' if error.filename else ''
        return f'{error.strerror}{place}'
    text = ' '.join(str(error).split()) or type(error).__name__
    needs_install = isinstance(error, ImportError) and 'install' not in text
    return f'{text}; install the pinned set of requirements.txt' if needs_install else text


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--cfg-options`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help=f'change the config, e.g. {example}',
    )


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add `--dataset`, `--val-dataset` and `--images`."""
    parser.add_argument(
        '--dataset',
        metavar='DATA',
        help="your own data instead of the config's: a COCO file, or a folder of images and masks",
    )
    parser.add_argument('--val-dataset', metavar='DATA', help='those to validate on')
    parser.add_argument('--images', metavar='DIR', help='where the images of COCO files lie')


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a backbone and its weights.

    They are the fields of `vit_backbones.models.chosen.Choice`, which checks them.
    """
    group = parser.add_argument_group('backbone')
    group.add_argument('--model', metavar='NAME', help="the source's name of a model")
    group.add_argument('--source', default='timm', help='its library (default: timm)')
    group.add_argument('--config', metavar='CONFIG', help="an mmdet or mmseg config's backbone")
    add_config_options(group, 'model.backbone.norm=all')
    group.add_argument(
        '--checkpoint', metavar='FILE', help='weights, or a checkpoint that tools/train.py wrote'
    )
    group.add_argument('--pretrained', action='store_true', help="the library's published weights")
    group.add_argument(
        '--random-weights', type=int, metavar='SEED', help='none of these; features mean nothing'
    )
    group.add_argument(
        '--img-size', nargs=2, type=int, metavar=('H', 'W'), help='size the model is built for'
    )
    group.add_argument(
        '--layers',
        nargs='+',
        metavar='I',
        help="blocks, 0-based, negative from the end, or 'last4', 'even4' (default: the last one)",
    )


def add_images(parser: argparse.ArgumentParser, *, nargs: str) -> None:
    """Add IMAGES, as `vit_backbones.images.find_images` takes them."""
    parser.add_argument(
        'images',
        nargs=nargs,
        metavar='IMAGES',
        help='images, folders, patterns, .txt lists and COCO .json files',
    )


def add_size_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--size`, as `vit_backbones.images` takes it."""
    parser.add_argument(
        '--size',
        nargs='+',
        type=int,
        metavar='S',
        help=f'resize: the shorter side to S, or to height and width (default: {default})',
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, as `vit_backbones.devices.choose_device` takes it."""
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (default: the GPU if there is one)')


def add_score_option(parser: argparse.ArgumentParser) -> None:
    """Add `--score-thr`."""
    parser.add_argument(
        '--score-thr',
        type=_share,
        default=0.3,
        metavar='S',
        help='leave predicted objects of a lower score out (default: 0.3)',
    )


def positive(text: str) -> int:
    """A number from 1."""
    return _number(int, text, 1)


def not_negative(text: str) -> int:
    """A number from 0."""
    return _number(int, text, 0)


def _share(text: str) -> float:
    return _number(float, text, 0, 1)


def _number(kind: type, text: str, low: int, high: float = math.inf) -> Any:
    with contextlib.suppress(ValueError):
        if low <= kind(text) <= high:
            return kind(text)
    wanted = f'{"whole " * (kind is int)}numbers from {low}' + f' to {high}' * (high < math.inf)
    raise argparse.ArgumentTypeError(f'takes {wanted}, got {text}')
