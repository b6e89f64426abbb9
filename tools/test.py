"""Evaluate a checkpoint: `python tools/test.py configs/x.py work_dirs/x/epoch_12.pth`."""

import argparse
import sys
from collections.abc import Sequence

from _command_line import Parser, add_config_options


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description='Evaluate a checkpoint on the test data.')
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument('--work-dir', help='for logs; default: work_dirs/<config name>')
    parser.add_argument('--show-dir', metavar='DIR', help='save pictures of all predictions')
    add_config_options(parser, 'test_dataloader.batch_size=1')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--debug', action='store_true', help='tracebacks of set-up errors too')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        # Here, so that --help is instant and packages that do not fit together are one line.
        from vit_backbones.training.run import evaluate
    except (ImportError, RuntimeError) as error:
        print(f'error: {error}; install the pinned set of requirements.txt', file=sys.stderr)
        return 2
    return evaluate(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        show_dir=args.show_dir,
        debug=args.debug,
    )


if __name__ == '__main__':
    sys.exit(main())
