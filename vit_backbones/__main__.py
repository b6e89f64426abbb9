"""`python -m vit_backbones`: a report on the installation, the models, and each of the tools."""

import argparse
import ast
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vit_backbones.environment import STARTED, explained, report, row
from vit_backbones.errors import one_line

_TOOLS = Path(__file__).parent / '.mim/tools'  # in a wheel; in a checkout a link to ./tools


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line of the report and of `list`; `--help` names the tools too."""
    parser = argparse.ArgumentParser(
        prog='python -m vit_backbones',
        description='Without COMMAND: show the installed packages, and what does not work '
        'together, a line each with its fix. Exit code 1 with problems, 0 without.',
        epilog='COMMAND --help shows its options. CONFIG is a file, or one of a package, as '
        'vit_backbones::upernet/upernet_vit-ti_camvid.py.',
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND')
    models = commands.add_parser('list', help='models with sizes, sources and licences')
    models.add_argument('pattern', nargs='?', default='*', metavar='PATTERN')
    models.add_argument('--source', help='only models of one library')
    for name, path in _tools().items():
        commands.add_parser(name, help=_summary(path))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and return the exit code; a tool ends the process itself."""
    argv = sys.argv[1:] if argv is None else argv
    if STARTED:  # let the next import be whole
        for name in [each for each in sys.modules if each.split('.')[0] == 'vit_backbones']:
            del sys.modules[name]
    tools = _tools()
    if argv and argv[0] in tools:
        _run(tools[argv[0]], argv[1:])
    try:
        _check_command(argv, ['list', *tools])
        args = parse_args(argv)
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


def _tools() -> dict[str, Path]:
    """The file of each tool by its name."""
    files = sorted(_TOOLS.resolve().glob('[!_]*.py'))
    return {path.stem: path for path in files}


def _summary(path: Path) -> str:
    """The first words of a tool's docstring, up to its command."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    return told.split(': `')[0].replace('%', '%%')


def _run(path: Path, argv: Sequence[str]) -> None:
    """Run a tool as `python PATH` does: what the tools share lies beside them."""
    sys.path.insert(0, str(path.parent))
    main = importlib.import_module(path.stem).main
    importlib.import_module('_command_line').leave(main(argv))


def _check_command(argv: Sequence[str], commands: Sequence[str]) -> None:
    if argv and not argv[0].startswith('-') and argv[0] not in commands:
        close = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f': did you mean {close[0]}?' if close else ''
        raise ValueError(f'no command {argv[0]!r}{hint or ":"} Choose {", ".join(commands)}')


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
        line = str(error) if error.__cause__ else explained(error)  # ours has a cause, and its fix
        raise ValueError(line) from error
    for line in list_models(args.pattern, args.source):
        print(line, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
