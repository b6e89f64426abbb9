"""What backbones cost and what they are worth: `python tools/benchmark.py speed vit_small...`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from _command_line import add_config_options, one_line_errors


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
    parser = commands.add_parser('speed', help='time, memory and FLOPs, beside other libraries')
    parser.set_defaults(run=run_speed)
    parser.add_argument('models', nargs='+', metavar='MODEL_OR_CONFIG')
    add_config_options(parser, 'model.backbone.frozen_stages=12')


def run_speed(args: argparse.Namespace) -> int:
    raise NotImplementedError


def add_targets(commands: Any) -> None:
    parser = commands.add_parser('targets', help='the speeds and memory that this package promises')
    parser.set_defaults(run=run_targets)


def run_targets(args: argparse.Namespace) -> int:
    raise NotImplementedError


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
