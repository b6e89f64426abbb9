"""The cost and the quality of backbones: `python tools/benchmark.py speed vit_small...`."""

import argparse
import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import _command_line as cli
from _benchmark_runs import add_study, add_table
from _benchmark_scale import add_scale
from _benchmark_steps import add_growth, add_run_options, add_step, size
from _started import module

PEERS = ('timm', 'mmseg', 'mmpretrain', 'transformers', 'torchvision')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description='Measure the cost and the quality of backbones.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    adders = (add_speed, add_step, add_growth, add_scale, add_targets, add_quality)
    for add in (*adders, add_study, add_table):
        add(commands)
    return parser.parse_args(argv)


def add_speed(commands: Any) -> None:
    parser = commands.add_parser(
        'speed',
        help='time, memory and FLOPs of models',
        description='Time, memory and FLOPs of backbones and of whole models with random weights, '
        'compared with the least time for their arithmetic and with other libraries.',
    )
    parser.set_defaults(run=run_speed)
    parser.add_argument(
        'models',
        nargs='+',
        metavar='MODEL_OR_CONFIG',
        help=f'names of backbones, paths of configs; {cli.TRUST}',
    )
    parser.add_argument('--source', default='timm', help='library of the names (default: timm)')
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        default=[(512, 512)],
        metavar='SIZE',
        help='size of the images: a side, or HEIGHTxWIDTH (default: 512)',
    )
    parser.add_argument('--batch-size', **cli.COUNT, default=1, help='(default: 1)')
    parser.add_argument('--dtype', nargs='+', choices=('fp32', 'bf16', 'fp16'), default=['fp32'])
    parser.add_argument(
        '--mode',
        nargs='+',
        choices=('forward', 'train'),
        default=['forward'],
        help='inference; or forward and backward without an optimizer (default: forward)',
    )
    cli.add_flag(parser, '--compile', 'run models through torch.compile')
    parser.add_argument(
        '--peers', nargs='*', choices=PEERS, default=PEERS, help='libraries to compare with'
    )
    cli.add_device_option(parser)
    parser.add_argument('--repeats', **cli.COUNT, default=10, help='rounds (default: 10)')
    add_run_options(parser)
    cli.add_config_options(parser, 'model.backbone.frozen_stages=12')


def run_speed(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark import speed
    from vit_backbones.benchmark.results import table_row, write_json

    under = speed.settings(
        args.sizes, args.dtype, args.mode, args.device, args.batch_size, args.compile
    )
    wanted = speed.Wanted(args.models, args.source, args.cfg_options, args.peers, args.repeats)
    speed.check(wanted, under[0])
    environment = speed.environment(wanted, under[0])
    print(speed.introduction(wanted, under[0]), flush=True)
    rows = []
    for model, setting in itertools.product(args.models, under):
        print(f'{model} {setting} ...', file=sys.stderr, flush=True)
        rows.append(speed.measure(model, wanted, setting))
        print(table_row(speed.cells(rows[-1], args.peers)), flush=True)
    for line in speed.absent_lines(rows):
        print(line)
    if args.out is not None:
        write_json(args.out, environment=environment, rows=rows)
        print(f'wrote {args.out}')
    return 0


def add_targets(commands: Any) -> None:
    parser = commands.add_parser(
        'targets',
        help='the speed and memory that this package promises',
        description='Measure the speed and memory that this package promises: for each case a '
        'ratio, and pass or miss. The exit code is 1 after a miss.',
    )
    parser.set_defaults(run=run_targets)
    parser.add_argument('cases', nargs='*', metavar='CASE', help='only these (default: all)')
    parser.add_argument(
        '--peak-tflops',
        type=float,
        metavar='X',
        help="the GPU's peak in bf16, to show its utilisation",
    )
    add_run_options(parser)


def run_targets(args: argparse.Namespace) -> int:
    from _targets import run_targets

    return run_targets(args.cases, peak_tflops=args.peak_tflops, out=args.out)


def add_quality(commands: Any) -> None:
    parser = commands.add_parser(
        'quality',
        help='mIoU of a linear probe on frozen features',
        description='Fit the same linear probe on every backbone: ridge regression of the class of '
        'each pixel on the frozen patch features of several layers, in closed form. Features are '
        'kept, so a stopped run goes on where it was.',
    )
    parser.set_defaults(run=run_quality)
    parser.add_argument(
        'data',
        metavar='DATA',
        help='a folder with images/ and masks/, or an mmseg config (only its datasets are used); '
        + cli.TRUST,
    )
    add_models(parser)
    parser.add_argument(
        '--size',
        nargs=2,
        type=cli.positive,
        metavar=('H', 'W'),
        help='resize images; models of a fixed size are built for it (default: their own size)',
    )
    parser.add_argument(
        '--fine-tune',
        type=cli.positive,
        metavar='EPOCHS',
        help="then train each backbone with the config's recipe, in work_dirs/fine_tune/",
    )
    parser.add_argument(
        '--cache',
        type=Path,
        default=Path('work_dirs/features'),
        metavar='DIR',
        help='folder of the kept features (default: work_dirs/features)',
    )
    cli.add_device_option(parser)
    add_run_options(parser)
    cli.add_config_options(parser, 'val_dataloader.dataset.data_root=data/mine')


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--models',
        nargs='+',
        required=True,
        metavar='NAME[=CHECKPOINT]',
        help='backbones; a config can stand for a name',
    )
    parser.add_argument('--source', default='timm', help='library of the names (default: timm)')
    cli.add_flag(parser, '--pretrained', 'library weights for models without a checkpoint')
    parser.add_argument(
        '--random-weights',
        type=int,
        metavar='SEED',
        help='random weights for models without a checkpoint, as a baseline',
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        default=['even4'],
        metavar='I',
        help="blocks to concatenate, 0-based, or 'last4', 'even4' (default: even4)",
    )


def run_quality(args: argparse.Namespace) -> int:
    from vit_backbones.benchmark.quality import by_class, choices, compare
    from vit_backbones.benchmark.results import heading, markdown, write_json

    size = tuple(args.size) if args.size else None
    models = choices(
        args.models,
        source=args.source,
        layers=args.layers,
        size=size,
        pretrained=args.pretrained,
        random_weights=args.random_weights,
    )
    comparison = compare(
        args.data,
        models,
        options=args.cfg_options,
        size=size,
        fine_tune=args.fine_tune,
        cache=args.cache,
        device=args.device,
    )
    print(heading(comparison.environment), flush=True)
    started = ['python', *(module()[:2] or sys.argv[:1]), *sys.argv[1:]]
    rows = comparison.rows(cli.say, shlex.join(started))
    print(f'\n{markdown(rows)}\n\n{by_class(rows)}')
    if args.out is not None:
        write_json(args.out, environment=comparison.environment, rows=rows)
        print(f'wrote {args.out}')
    return 0


@contextlib.contextmanager
def prepared(threads: int | None, out: Path | None) -> Iterator[None]:
    """Limit the CPU's threads, silence the libraries' logs and warnings, refuse a wrong `out`."""
    import torch

    from vit_backbones.files import check_writable
    from vit_backbones.terminal import silence

    if out is not None:
        check_writable(out)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with silence():
            yield
    finally:
        torch.set_num_threads(before)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')  # read when PyTorch is imported
    with prepared(getattr(args, 'threads', None), args.out):
        return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
