"""What backbones cost and what they are worth: `python tools/benchmark.py speed vit_small...`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _command_line import add_config_options, one_line_errors

PEERS = ('timm', 'mmseg', 'mmpretrain', 'transformers', 'torchvision')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='What backbones cost and what they are worth.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for add in (
        add_speed,
        add_targets,
    ):
        add(commands)
    return parser.parse_args(argv)


def add_speed(commands: Any) -> None:
    parser = commands.add_parser(
        'speed',
        help='time, memory and FLOPs of models',
        description='Time, memory and FLOPs of backbones and of whole models, with random weights, '
        'beside the least time their arithmetic takes and beside other libraries.',
    )
    parser.set_defaults(run=run_speed)
    parser.add_argument(
        'models', nargs='+', metavar='MODEL_OR_CONFIG', help='names of backbones, paths of configs'
    )
    parser.add_argument('--source', default='timm', help='library of the names (default: timm)')
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        default=[(512, 512)],
        metavar='SIZE',
        help='of images: a side, or HEIGHTxWIDTH (default: 512)',
    )
    parser.add_argument('--batch-size', type=positive, default=1, metavar='N')
    parser.add_argument('--dtype', nargs='+', choices=('fp32', 'bf16', 'fp16'), default=['fp32'])
    parser.add_argument(
        '--mode',
        nargs='+',
        choices=('forward', 'train'),
        default=['forward'],
        help='inference, and forward and backward without an optimizer (default: forward)',
    )
    parser.add_argument('--compile', action='store_true', help='through torch.compile')
    parser.add_argument(
        '--peers', nargs='*', choices=PEERS, default=PEERS, help='libraries to compare with'
    )
    parser.add_argument('--device', help='of PyTorch (default: the GPU, else the CPU)')
    parser.add_argument(
        '--repeats', type=positive, default=10, metavar='N', help='rounds (default: 10)'
    )
    add_run_options(parser)
    add_config_options(parser, 'model.backbone.frozen_stages=12')


def run_speed(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark.report import quiet
    from vit_backbones.benchmark.speed import Wanted, run_speed, settings

    under = settings(args.sizes, args.dtype, args.mode, args.device, args.batch_size, args.compile)
    wanted = Wanted(args.models, args.source, args.cfg_options, args.peers, args.repeats)
    with quiet(args.threads):
        return run_speed(wanted, under, args.out)


def add_targets(commands: Any) -> None:
    parser = commands.add_parser(
        'targets',
        help='the speed and memory that this package promises',
        description='Measure the speed and memory that this package promises: a ratio and a pass '
        'or miss each. Exit code 1 with a miss.',
    )
    parser.set_defaults(run=run_targets)
    parser.add_argument('cases', nargs='*', metavar='CASE', help='only these (default: all)')
    parser.add_argument(
        '--peak-tflops',
        type=float,
        metavar='X',
        help='of the GPU in bf16, to tell how much is used',
    )
    add_run_options(parser)


def run_targets(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark.report import quiet
    from vit_backbones.benchmark.targets import run_targets

    with quiet(args.threads):
        return run_targets(args.cases, peak_tflops=args.peak_tflops, out=args.out)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--threads', type=positive, metavar='N', help='of the CPU')
    parser.add_argument('--out', type=Path, metavar='FILE', help='the figures as JSON')


def size(text: str) -> tuple[int, int]:
    """(H, W) of `512` or `512x1024`."""
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a side nor HEIGHTxWIDTH')
    sides = [int(each) for each in text.split('x')]
    return sides[0], sides[-1]


def positive(text: str) -> int:
    """A number from 1."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')  # read when PyTorch is imported
    return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
