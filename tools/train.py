"""Train an mmdet or mmseg config: `python tools/train.py configs/mask2former_vit.py`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from _command_line import Parser, add_config_options, add_dataset_options


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
    add_config_options(parser, "model.backbone.out_indices='[2,5,8,11]'")
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--debug', action='store_true', help='tracebacks of set-up errors too')
    args = parser.parse_args(argv)
    if args.dataset is None and (args.val_dataset or args.images):
        parser.error('--val-dataset and --images go with --dataset')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    try:
        # Here, so that --help is instant and packages that do not fit together are one line.
        from vit_backbones.training.run import train
    except (ImportError, RuntimeError) as error:
        print(f'error: {error}; install the pinned set of requirements.txt', file=sys.stderr)
        return 2
    return train(
        args.config,
        dataset=args.dataset,
        val_dataset=args.val_dataset,
        images=args.images,
        work_dir=args.work_dir,
        amp=args.amp,
        resume=args.resume,
        seed=args.seed,
        deterministic=args.deterministic,
        options=args.cfg_options,
        launcher=args.launcher,
        debug=args.debug,
        command=resume_command(argv, args.resume),
    )


def resume_command(argv: Sequence[str], resume: str | None) -> str:
    """The command that goes on from the last checkpoint of this one."""
    words = ['auto' if resume and word == resume else word for word in argv]
    words = ['--resume' if word.startswith('--resume=') else word for word in words]
    script = os.path.relpath(__file__)
    return shlex.join(['python', script, *words, *([] if resume else ['--resume'])])


if __name__ == '__main__':
    sys.exit(main())
