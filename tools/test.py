"""Evaluate a checkpoint: `python tools/test.py configs/x.py work_dirs/x/epoch_12.pth`."""

import argparse
from collections.abc import Sequence

import _command_line as cli


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description='Evaluate a checkpoint on the test data.')
    parser.add_argument('config', **cli.CONFIG)
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument('--work-dir', help='for logs; default: work_dirs/<config name>')
    parser.add_argument('--show-dir', metavar='DIR', help='save pictures of all predictions')
    parser.add_argument(
        '--bootstrap',
        nargs='?',
        type=cli.positive,
        const=200,
        metavar='N',
        help='standard errors of mAP and mIoU over the images, from N draws (without N: 200)',
    )
    cli.add_flag(parser, '--compile', 'torch.compile for backbone and neck')
    cli.add_launch_options(parser, 'test_dataloader.batch_size=1')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from vit_backbones.training.run import evaluate

    finished = evaluate(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        show_dir=args.show_dir,
        compile=args.compile,
        bootstrap=args.bootstrap,
    )
    cli.say(f'done: {finished}')


if __name__ == '__main__':
    cli.leave(main())
