"""Compare every transformer of timm with timm itself: `python tools/check_models.py`."""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from _command_line import Parser, one_line_errors

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Compare the features of every transformer of timm with timm itself, on a '
        'rectangle and an odd size. Stopped, it goes on where it was.'
    )
    parser.add_argument('names', nargs='*', metavar='NAME', help='only these architectures')
    parser.add_argument('--sample', type=int, metavar='N', help='only N of them, drawn by --seed')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'docs/results/models/timm.json',
        help='results of a whole walk; a table for reading stands beside it',
    )
    args = parser.parse_args(argv)
    if args.sample is not None and args.sample < 1:
        parser.error(f'--sample takes a number from 1, got {args.sample}')
    return args


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from mmengine.logging import MMLogger

    from vit_backbones.coverage import architectures

    every = architectures()
    unknown = set(args.names) - {name for _, name in every}
    if unknown:
        raise ValueError(f'no transformer of timm: {", ".join(sorted(unknown))}')
    wanted = [(module, name) for module, name in every if not args.names or name in args.names]
    part = bool(args.names) or args.sample is not None
    if args.sample is not None:
        wanted = random.Random(args.seed).sample(wanted, min(args.sample, len(wanted)))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')  # models tell what they have not, a line each
    try:
        return walk(wanted, None if part else args.out)
    finally:
        logger.setLevel(level)


def walk(wanted: Sequence[tuple[str, str]], out: Path | None) -> int:
    """Compare architectures, and print the table; with `out` keep each result there at once."""
    from rich.progress import track

    from vit_backbones.coverage import Check, check, table
    from vit_backbones.files import write_whole

    known = {}
    if out is not None and out.exists():
        known = {row['name']: Check(**row) for row in json.loads(out.read_text())}
    for module, name in track(wanted, description='comparing'):
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


if __name__ == '__main__':
    sys.exit(main())
