"""Compare every transformer of timm with timm itself: `python tools/check_models.py`."""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import _command_line as cli

RESULTS = Path(__file__).resolve().parents[1] / 'docs/results/models'  # a wheel has none


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Compare the features of every transformer of timm with timm itself, on a '
        'rectangle and an odd size. A stopped run goes on where it was.'
    )
    parser.add_argument('names', nargs='*', metavar='NAME', help='only these architectures')
    parser.add_argument('--sample', type=int, metavar='N', help='only N of them, drawn by --seed')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--out',
        type=Path,
        default=(RESULTS if RESULTS.is_dir() else Path()) / 'timm.json',
        help='results of all architectures; a table for reading goes beside it',
    )
    args = parser.parse_args(argv)
    if args.sample is not None and args.sample < 1:
        parser.error(f'--sample takes a number from 1, got {args.sample}')
    return args


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from _comparison import architectures

    from vit_backbones.files import check_writable
    from vit_backbones.terminal import silence

    every = architectures()
    unknown = set(args.names) - {name for _, name in every}
    if unknown:
        raise ValueError(f'no transformer of timm: {", ".join(sorted(unknown))}')
    wanted = [(module, name) for module, name in every if not args.names or name in args.names]
    part = bool(args.names) or args.sample is not None
    if args.sample is not None:
        wanted = random.Random(args.seed).sample(wanted, min(args.sample, len(wanted)))
    if not part:
        check_writable(args.out)
    with silence():  # models log each part that they lack
        return walk(wanted, None if part else args.out)


def walk(wanted: Sequence[tuple[str, str]], out: Path | None) -> int:
    """Compare architectures, and print the table; with `out` keep each result there at once."""
    from _comparison import check, table

    from vit_backbones.files import write_whole
    from vit_backbones.terminal import track

    known = read(out) if out is not None and out.exists() else {}
    for module, name in track(wanted, 'comparing'):
        if name not in known:
            known[name] = check(module, name)
            if out is not None:
                rows = [c._asdict() for c in known.values()]
                write_whole(out, json.dumps(rows, indent=1).encode())
    checks = [known[name] for _, name in wanted]
    if out is not None:
        write_whole(out.with_suffix('.md'), table(checks).encode())
    print(table(checks))
    return 1 if any(c.status == 'fails' for c in checks) else 0


def read(out: Path) -> dict[str, tuple]:
    """Earlier results by architecture."""
    from _comparison import Check

    try:
        return {row['name']: Check(**row) for row in json.loads(out.read_text())}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{out} is no result of tools/check_models.py: name another') from None


if __name__ == '__main__':
    sys.exit(main())
