"""Options that the tools share, and their one way to fail.

It lies here and not in the package, which takes seconds to import: `--help` and mistakes in the
arguments answer at once.
"""

import argparse
import atexit
import contextlib
import functools
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, ClassVar, NoReturn

from _spelling import with_flags
from _started import as_typed, module

# Threads of GNU OpenMP spin before they sleep, and take the cores from those they wait for: a step
# of 0.9 s takes 6.7 s beside three busy processes on two cores. With this count it takes 2.6 s, and
# no longer than before without them. PyTorch reads it as it is imported.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')

Main = Callable[[Sequence[str] | None], int | None]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that lets `one_line_errors` name its flags."""

    flags: ClassVar[dict[str, str]] = {}  # by the argument's name in the library
    debug: ClassVar[bool] = False

    def __init__(self, prog: str | None = None, **kwargs: Any) -> None:
        typed = ' '.join(['python', *module()]) if module() else None
        super().__init__(prog or typed, **kwargs)

    def format_help(self) -> str:
        return as_typed(super().format_help())

    def error(self, message: str) -> NoReturn:
        self.exit(2, as_typed(f'error: {message}; see --help\n'))

    def parse_known_args(self, *args: Any, **kwargs: Any) -> tuple[argparse.Namespace, list[str]]:
        parsed, rest = super().parse_known_args(*args, **kwargs)
        for action in self._actions:
            if action.option_strings:
                self.flags[action.dest.removeprefix('cfg_')] = action.option_strings[-1]
        Parser.debug |= getattr(parsed, 'debug', False)
        return parsed, rest


def one_line_errors(main: Main) -> Callable[[Sequence[str] | None], int]:
    """Let a tool's `main`, which uses `Parser`, report an error in one line.

    It returns an exit code: 2 after a `ValueError`, `OSError`, `ImportError` or `RuntimeError`, 130
    after Ctrl-C, 143 after SIGTERM. An error with `while_running = True` is a crash and keeps its
    traceback; `VIT_BACKBONES_DEBUG=1` shows all. Arguments in the line, as `name=value`, become
    flags.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        Parser.flags.clear()
        Parser.debug = os.environ.get('VIT_BACKBONES_DEBUG', '0') != '0'
        try:
            with _interrupts():
                return main(argv) or 0
        except KeyboardInterrupt as stop:
            say(str(stop) or 'interrupted', error=True)
            return getattr(stop, 'exit_code', 130)
        except BrokenPipeError as error:  # `| head` has read enough
            if getattr(error, 'while_running', False):
                raise
            sys.stdout = open(os.devnull, 'w')
            return 0
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            if getattr(error, 'while_running', False):
                raise
            if Parser.debug:
                traceback.print_exc()
            if is_first_process() or getattr(error, 'of_any_process', False):
                print(f'error: {_line(error)}', file=sys.stderr)
            return 2

    return run


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a tool as an exception does, worker processes included."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code.co_name == '<module>':  # a library that is imported may swallow it
            os.write(2, b'interrupted\n')
            os._exit(128 + number)
        frame = frame.f_back
    stop = KeyboardInterrupt()
    stop.exit_code = 128 + number
    raise stop


def is_first_process() -> bool:
    """Whether this is the one of several processes that prints."""
    return os.environ.get('RANK', '0') == '0'


def say(line: str, *, error: bool = False) -> None:
    """Print a line; of several processes only the first one does."""
    if is_first_process():
        print(as_typed(line), file=sys.stderr if error else sys.stdout)


def leave(code: int) -> NoReturn:
    """End a tool; one of several processes leaves out the end of the interpreter.

    There a thread of gloo that still holds a tensor would abort the process, with its work done.
    """
    if os.environ.get('WORLD_SIZE', '1') == '1':
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f': {error.filename}' if error.filename else ''
        return f'{error.strerror}{place}'
    text = as_flags(' '.join(str(error).split())) or type(error).__name__
    if 'install' in text or not (isinstance(error, ImportError) or _while_importing(error)):
        return text
    return f'{text}; install the pinned set of requirements.txt'


def _while_importing(error: Exception) -> bool:
    """Whether packages that do not fit together raised it, as torch and torchvision do."""
    frames = traceback.extract_tb(error.__traceback__)
    importing = any(each.name == '<module>' or 'importlib' in each.filename for each in frames)
    return isinstance(error, RuntimeError) and importing


def as_flags(text: str) -> str:
    """A text of the library as the user of the running tool writes its arguments and tools."""
    return as_typed(with_flags(text, Parser.flags))


def positive(text: str) -> int:
    """A number from 1."""
    return _number(int, text, 1)


def not_negative(text: str) -> int:
    """A number from 0."""
    return _number(int, text, 0)


def _share(text: str) -> float:
    return _number(float, text, 0, 1)


def _number(kind: type, text: str, low: float, high: float = math.inf) -> Any:
    with contextlib.suppress(ValueError):
        if low <= (number := kind(text)) <= high:
            return number
    wanted = f'{"whole " * (kind is int)}numbers from {low}' + f' to {high}' * (high < math.inf)
    raise argparse.ArgumentTypeError(f'takes {wanted}, got {text}')


# Arguments of `add_argument`
TRUST = 'a config is a program: take only those that you trust'
CONFIG: dict[str, Any] = dict(metavar='CONFIG', help=f'of mmdet or mmseg; {TRUST}')
COUNT: dict[str, Any] = dict(type=positive, metavar='N')
SIDES: dict[str, Any] = dict(nargs=2, type=int, metavar=('H', 'W'))


def add_flag(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action='store_true', help=help)


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
    """Add `--dataset`, `--val-dataset` and `--images`; `parse_dataset_options` checks them."""
    parser.add_argument(
        '--dataset',
        metavar='DATA',
        help="your own data instead of the config's: COCO, YOLO, Pascal VOC, or images and masks",
    )
    parser.add_argument('--val-dataset', metavar='DATA', help='data to validate on')
    parser.add_argument('--images', metavar='DIR', help='folder of the images of COCO files')


def parse_dataset_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse, and refuse options that need a `--dataset`."""
    args = parser.parse_args(argv)
    if args.dataset is None and (args.val_dataset or args.images):
        parser.error('--val-dataset and --images go with --dataset')
    return args


def add_launch_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--cfg-options`, `--launcher` and `--debug`."""
    add_config_options(parser, example)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add_flag(parser, '--debug', 'show the traceback of an error before the start too')


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a backbone and its weights, the fields of `models.chosen.Choice`."""
    group = parser.add_argument_group('backbone')
    group.add_argument('--model', metavar='NAME', help="the source's name of a model")
    group.add_argument('--source', default='timm', help='its library (default: timm)')
    group.add_argument('--config', **CONFIG)
    add_config_options(group, 'model.backbone.norm=all')
    group.add_argument(
        '--checkpoint', metavar='FILE', help='weights, or a checkpoint that tools/train.py wrote'
    )
    add_flag(group, '--pretrained', "the library's published weights")
    group.add_argument(
        '--random-weights',
        type=int,
        metavar='SEED',
        help='random weights, for a dry run: the features are meaningless',
    )
    group.add_argument('--img-size', **SIDES, help='size the model is built for')
    group.add_argument(
        '--layers',
        nargs='+',
        metavar='I',
        help="blocks, 0-based, negative from the end, or 'last4', 'even4' (default: the last one)",
    )


def add_images(parser: argparse.ArgumentParser, *, nargs: str, also: str = '') -> None:
    """Add IMAGES, as `vit_backbones.images.find_images` takes them; `also` is for the help."""
    parser.add_argument(
        'images',
        nargs=nargs,
        metavar='IMAGES',
        help='images, folders, patterns, .txt lists and COCO .json files'
        + f', {also}' * bool(also),
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
        help='leave out predicted objects with a lower score (default: 0.3)',
    )
