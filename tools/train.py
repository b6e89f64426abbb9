"""Train an mmdet or mmseg config: `python tools/train.py configs/mask2former_vit.py`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_dataset_options,
    add_launch_options,
    one_line_errors,
    parse_dataset_options,
    say,
)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(description='Train an mmdet or mmseg config.')
    parser.add_argument('config', metavar='CONFIG')
    add_dataset_options(parser)
    parser.add_argument('--work-dir', help='for results; default: work_dirs/<config name>')
    parser.add_argument('--amp', action='store_true', help='mixed precision, on a GPU')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue from CKPT; without CKPT from the last one in the work dir',
    )
    parser.add_argument('--seed', type=int, help="replaces the config's")
    parser.add_argument(
        '--deterministic', action='store_true', help='only deterministic algorithms'
    )
    add_launch_options(parser, "model.backbone.out_indices='[2,5,8,11]'")
    return parse_dataset_options(parser, argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from vit_backbones.training.run import train

    given = {k: v for k, v in vars(args).items() if k not in ('cfg_options', 'debug')}
    command = resume_command(argv, args.resume)
    finished = train(**given, options=args.cfg_options, command=command, say=say)
    say(f'done: {finished}')


def resume_command(argv: Sequence[str], resume: str | None) -> str:
    """The command that continues this training from its last checkpoint."""
    words = ['auto' if resume and word == resume else word for word in argv]
    words = ['--resume' if word.startswith('--resume=') else word for word in words]
    script = os.path.relpath(__file__)
    return shlex.join(['python', script, *words, *([] if resume else ['--resume'])])


if __name__ == '__main__':
    sys.exit(main())
