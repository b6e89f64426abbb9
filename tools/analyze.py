"""Look at trained runs: `python tools/analyze.py work_dirs/a work_dirs/b`."""

import argparse
import sys
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_config_options,
    add_device_option,
    not_negative,
    one_line_errors,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Curves of runs in one picture, a table of classes, confusion matrices and the '
        'worst images, each model run once over its images.'
    )
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='of tools/train.py')
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='for the results (default: analysis in the work dir, of several runs in this folder)',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='of a single run (default: the best, else the last)',
    )
    parser.add_argument('--split', choices=['val', 'test'], default='val', help='(default: val)')
    parser.add_argument(
        '--num-worst', type=not_negative, default=8, metavar='N', help='images to draw (default: 8)'
    )
    add_device_option(parser)
    parser.add_argument(
        '--curves-only', action='store_true', help='no predictions: needs no data and no weights'
    )
    add_config_options(parser, 'val_dataloader.dataset.data_root=data/camvid')
    args = parser.parse_args(argv)
    for name in ('checkpoint', 'split', 'num_worst', 'device', 'cfg_options'):
        if args.curves_only and getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} is of predictions, without --curves-only')
    return args


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.evaluation.analyze_command import analyze

    analyze(
        args.work_dirs,
        out=args.out,
        checkpoint=args.checkpoint,
        split=args.split,
        num_worst=args.num_worst,
        device=args.device,
        options=args.cfg_options,
        curves_only=args.curves_only,
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
