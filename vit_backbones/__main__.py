"""`python -m vit_backbones`: what is installed and what is wrong with it; `list`: the models."""

import argparse
import os
import sys
from collections.abc import Sequence

from vit_backbones.environment import explained, report


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m vit_backbones',
        description='Tell what is installed, and what of it does not work together, a line each '
        'with its fix. Exit code 1 with problems, 0 without.',
    )
    commands = parser.add_subparsers(dest='command', metavar='list')
    models = commands.add_parser('list', help='models with sizes, sources and licences')
    models.add_argument('pattern', nargs='?', default='*', metavar='PATTERN')
    models.add_argument('--source', help='only those of one library')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; gives the exit code."""
    args = parse_args(argv)
    try:
        return _list(args) if args.command == 'list' else _report()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has read enough
        sys.stdout = open(os.devnull, 'w')
        return 0
    except OSError as error:
        sys.stdout = open(os.devnull, 'w')
        print(f'error: {error.strerror}', file=sys.stderr)
        return 2


def _report() -> int:
    rows, problems = report()
    print('\n'.join(rows))
    print(''.join(f'\nproblem: {each}' for each in problems) or '\nno problems')
    return 1 if problems else 0


def _list(args: argparse.Namespace) -> int:
    try:
        from vit_backbones.models.catalogue import print_models
    except Exception as error:  # of packages that do not fit together
        print(f'error: {explained(error)}', file=sys.stderr)
        return 2
    try:
        print_models(args.pattern, args.source)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
