"""`python -m vit_backbones`: a report on the installation; `list`: the models."""

import argparse
import os
import sys
from collections.abc import Sequence

from vit_backbones.environment import explained, report, row
from vit_backbones.errors import one_line


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m vit_backbones',
        description='Show the installed packages, and what does not work together, a line each '
        'with its fix. Exit code 1 with problems, 0 without.',
    )
    commands = parser.add_subparsers(dest='command', metavar='list')
    models = commands.add_parser('list', help='models with sizes, sources and licences')
    models.add_argument('pattern', nargs='?', default='*', metavar='PATTERN')
    models.add_argument('--source', help='only models of one library')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    args = parse_args(argv)
    try:
        return _list(args) if args.command == 'list' else _report()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has read enough
        sys.stdout = open(os.devnull, 'w')
        return 0
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):  # the output cannot be written
            sys.stdout = open(os.devnull, 'w')
        line = getattr(error, 'strerror', None) or str(error)
        print(f'error: {line.replace("source=...", "--source")}', file=sys.stderr)
        return 2


def _report() -> int:
    rows, problems = report()
    print('\n'.join([*rows, row('mmcv ops', _ops())]))
    print(''.join(f'\nproblem: {each}' for each in problems) or '\nno problems')
    return 1 if problems else 0


def _ops() -> str:
    """The operators of mmcv that serve, in one line."""
    try:
        from vit_backbones.hosts import mmcv_loader

        return mmcv_loader.install().removeprefix('mmcv ops: ')
    except Exception as error:  # it is among the problems
        return f'none ({one_line(error)})'


def _list(args: argparse.Namespace) -> int:
    try:
        from vit_backbones.models.catalogue import list_models
    except Exception as error:  # packages that do not fit together
        raise ValueError(explained(error)) from error
    for line in list_models(args.pattern, args.source):
        print(line, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
