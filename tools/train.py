"""Train an mmdet or mmseg config: `python tools/train.py configs/mask2former_vit.py`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

import _command_line as cli
from _started import module


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(description='Train an mmdet or mmseg config.')
    parser.add_argument('config', **cli.CONFIG)
    cli.add_dataset_options(parser)
    parser.add_argument('--work-dir', help='for results; default: work_dirs/<config name>')
    cli.add_flag(parser, '--amp', 'mixed precision, on GPUs and CPUs')
    cli.add_flag(parser, '--compile', 'torch.compile for backbone and neck')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue from CKPT; without CKPT from the last one in the work dir',
    )
    parser.add_argument(
        '--replay',
        metavar='FILE',
        help='run the batch of a non_finite_iter_*.pth again, layer by layer, and train nothing',
    )
    parser.add_argument('--seed', type=int, help="replaces the config's")
    cli.add_flag(parser, '--deterministic', 'only deterministic algorithms')
    parser.add_argument(
        '--no-sanity-check',
        dest='sanity_check',
        action='store_false',
        help='do not validate two batches before the first epoch',
    )
    parser.add_argument('--epochs', **cli.COUNT, help='another length; the schedules follow')
    cli.add_flag(parser, '--scale-lr', 'learning rates in proportion to the images of a step')
    cli.add_flag(parser, '--ema', 'average the weights, and validate the average')
    parser.add_argument(
        '--early-stopping',
        nargs='?',
        const=5,
        **cli.COUNT,
        help='end after N validations without a better main metric (without N: 5)',
    )
    cli.add_flag(parser, '--trial', 'a few iterations, a validation and a picture')
    for name in ('tensorboard', 'wandb', 'mlflow'):
        cli.add_flag(parser, f'--{name}', f'losses and metrics to {name} too')
    cli.add_launch_options(parser, "model.backbone.out_indices='[2,5,8,11]'")
    return cli.parse_dataset_options(parser, argv)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from vit_backbones.training.run import train

    given = {k: v for k, v in vars(args).items() if k not in ('cfg_options', 'debug')}
    command = resume_command(argv, args.resume)
    finished = train(**given, options=args.cfg_options, command=command, say=cli.say)
    cli.say(f'done: {finished}')


def resume_command(argv: Sequence[str], resume: str | None) -> str:
    """The command that continues this training from its last checkpoint."""
    words = ['auto' if resume and word == resume else word for word in argv]
    words = ['--resume=auto' if word.startswith('--resume=') else word for word in words]
    python = [_shown(sys.executable)]
    if processes := os.environ.get('LOCAL_WORLD_SIZE'):
        python += ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
    words += [] if resume else ['--resume']
    return shlex.join([*python, *(module() or [_shown(__file__)]), *words])


def _shown(program: str) -> str:
    """A path as a user types it: from the current folder, or whole where it lies elsewhere."""
    relative = os.path.relpath(program)
    return os.path.abspath(program) if relative.startswith(os.pardir) else relative


if __name__ == '__main__':
    cli.leave(main())
