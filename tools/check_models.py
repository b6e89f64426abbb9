"""Compare every transformer of timm with timm itself: `python tools/check_models.py`."""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from mmengine.logging import MMLogger
    from rich.progress import track

    from vit_backbones.coverage import Check, architectures, check, table
    from vit_backbones.files import write_whole

    MMLogger.get_current_instance().setLevel('ERROR')
    every = architectures()
    unknown = set(args.names) - {name for _, name in every}
    if unknown:
        print(f'error: no transformer of timm: {", ".join(sorted(unknown))}', file=sys.stderr)
        return 2
    wanted = [(module, name) for module, name in every if not args.names or name in args.names]
    part = bool(args.names) or args.sample is not None
    if args.sample is not None:
        wanted = random.Random(args.seed).sample(wanted, min(args.sample, len(wanted)))
    known = {}
    if not part and args.out.exists():
        known = {row['name']: Check(**row) for row in json.loads(args.out.read_text())}
    checks = []
    for module, name in track(wanted, description='comparing'):
        checks.append(known.get(name) or check(module, name))
        if not part and name not in known:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            rows = json.dumps([c._asdict() for c in checks], indent=1)
            write_whole(args.out, rows.encode())
    if not part:
        write_whole(args.out.with_suffix('.md'), table(checks).encode())
    print(table(checks))
    return 1 if any(c.status == 'fails' for c in checks) else 0


if __name__ == '__main__':
    sys.exit(main())
