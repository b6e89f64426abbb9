"""Teach a small ViT the features of a larger one: `python tools/distill.py TEACHER STUDENT ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _command_line as cli
from _resuming import resume_command

_MODELS = ('teacher', 'student')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Teach STUDENT the patch and CLS features of TEACHER on images without labels. '
        'DIR gets student.safetensors, which every tool and config takes as a checkpoint.'
    )
    parser.add_argument('teacher', metavar='TEACHER', help='NAME=CHECKPOINT, or NAME --pretrained')
    parser.add_argument('student', metavar='STUDENT', help='the same, or NAME --scratch')
    cli.add_images(parser, nargs='+')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR')
    add_model_options(parser)
    add_training_options(parser)
    args = parser.parse_args(argv)
    if args.cache and not args.views:
        parser.error('--cache keeps features of fixed crops: say how many by --views N')
    return args


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('models')
    group.add_argument('--source', default='timm', help='their library (default: timm)')
    group.add_argument('--teacher-source', help="the teacher's, if it is another one")
    cli.add_flag(group, '--pretrained', 'library weights for models without a checkpoint')
    cli.add_flag(group, '--scratch', 'let STUDENT start without weights')
    group.add_argument(
        '--size',
        nargs='+',
        type=cli.positive,
        metavar='S',
        help="side, or height and width, of the student's images (default: 224)",
    )
    group.add_argument(
        '--teacher-size',
        nargs='+',
        type=cli.positive,
        metavar='S',
        help='the same for the teacher (default: the size with as many patches)',
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('training')
    length = group.add_mutually_exclusive_group()
    length.add_argument('--epochs', **cli.COUNT, default=20, help='passes (default: 20)')
    length.add_argument('--iters', **cli.COUNT, help='batches, in place of passes')
    group.add_argument('--batch-size', **cli.COUNT, default=32, help='(default: 32)')
    group.add_argument('--lr', type=float, default=3e-4, help='learning rate (default: 0.0003)')
    group.add_argument('--seed', type=cli.not_negative, default=0, help='(default: 0)')
    group.add_argument(
        '--views', **cli.COUNT, help='fixed crops of each image (default: a new one each time)'
    )
    group.add_argument(
        '--cache', type=Path, metavar='FOLDER', help="keep the teacher's features of --views"
    )
    group.add_argument(
        '--max-gb', type=float, default=20.0, metavar='X', help='largest cache (default: 20)'
    )
    cli.add_flag(group, '--amp', 'mixed precision for the student')
    cli.add_device_option(group)
    group.add_argument(
        '--num-workers',
        type=cli.not_negative,
        metavar='N',
        help='processes that load images (default: as many as suit the machine)',
    )
    group.add_argument(
        '--save-every', **cli.COUNT, default=500, help='batches between checkpoints (default: 500)'
    )
    group.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue from CKPT; without CKPT from the last one in DIR',
    )


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from vit_backbones.distillation.distilling import distill
    from vit_backbones.distillation.student_hook import STUDENT
    from vit_backbones.distillation.training_plan import Plan
    from vit_backbones.models.chosen import Choice

    teacher = Choice.named(
        args.teacher, source=args.teacher_source or args.source, pretrained=args.pretrained
    )
    student = Choice.named(
        args.student,
        source=args.source,
        pretrained=args.pretrained and not args.scratch,
        scratch=args.scratch,
    )
    same = {name: getattr(args, name) for name in Plan._fields if name not in _MODELS}
    plan = Plan(teacher, student, **same)
    finished = distill(plan, cli.say, resume_command(__file__, argv, args.resume))
    cli.say(f'done: {finished}\nwrote {args.out / STUDENT}')


if __name__ == '__main__':
    cli.leave(main())
