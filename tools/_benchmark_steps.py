"""The actions `step`, `growth`, `scale` of tools/benchmark.py, and options its actions share."""

import argparse
import re
from pathlib import Path
from typing import Any

import _command_line as cli

_KINDS = ('global', 'windows', 'vitdet')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add `--threads` and `--out`."""
    parser.add_argument('--threads', **cli.COUNT, help='threads of the CPU')
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the figures as JSON')


def size(text: str) -> tuple[int, int]:
    """(H, W) of `512` or `512x1024`."""
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', text):
        raise argparse.ArgumentTypeError(f'{text!r} is neither a side nor HEIGHTxWIDTH')
    sides = [int(each) for each in text.split('x')]
    return sides[0], sides[-1]


def add_step(commands: Any) -> None:
    """Add the action `step`."""
    parser = commands.add_parser(
        'step',
        help='the parts of a training step',
        description='A whole training step of a config with random weights and drawn images: time, '
        'operators and synchronisations of its parts, on a GPU also how long they wait.',
    )
    parser.set_defaults(run=run_step)
    parser.add_argument('config', **cli.CONFIG)
    parser.add_argument('--size', type=size, help="side or HEIGHTxWIDTH (default: the config's)")
    parser.add_argument('--batch-size', **cli.COUNT, help="(default: the config's)")
    parser.add_argument(
        '--dtype', choices=('fp32', 'bf16'), help="type of autocast (default: the config's)"
    )
    parser.add_argument(
        '--amp', action='store_const', const='bf16', dest='dtype', help='same as --dtype bf16'
    )
    cli.add_flag(parser, '--compile', 'run backbone and neck through torch.compile')
    cli.add_flag(parser, '--no-peers', 'do not measure other ways to compute it')
    cli.add_device_option(parser)
    parser.add_argument('--repeats', **cli.COUNT, default=10, help='rounds (default: 10)')
    add_run_options(parser)
    cli.add_config_options(parser, 'model.backbone.frozen_stages=12')


def run_step(args: argparse.Namespace) -> int:
    """Measure and print a step."""
    from vit_backbones.benchmark.results import heading, write_json
    from vit_backbones.benchmark.step_table import Wanted, introduction, measure_step, step_lines

    record = measure_step(
        Wanted(
            args.config,
            args.cfg_options,
            args.size,
            args.batch_size,
            args.dtype,
            args.device,
            args.compile,
            args.repeats,
            not args.no_peers,
        )
    )
    print(heading(record['environment']), introduction(record), sep='\n', end='\n\n')
    print(*step_lines(record), sep='\n')
    if args.out is not None:
        write_json(args.out, **record)
        print(f'wrote {args.out}')
    return 0


def add_growth(commands: Any) -> None:
    """Add the action `growth`."""
    parser = commands.add_parser(
        'growth',
        help='how time and memory grow with the images',
        description='Time and memory over sizes and batches, for backbones with global attention, '
        'windows, and windows with relative positions, and for whole models of configs; with the '
        'fitted exponents.',
    )
    parser.set_defaults(run=run_growth)
    parser.add_argument('models', nargs='+', metavar='MODEL_OR_CONFIG', help=cli.TRUST)
    parser.add_argument('--source', default='timm', help='library of the names (default: timm)')
    parser.add_argument(
        '--kinds', nargs='+', choices=_KINDS, default=_KINDS, help='(default: all three)'
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        metavar='SIZE',
        help='(default: from 224 to 1024, on a GPU to 1536)',
    )
    parser.add_argument('--batch-sizes', nargs='+', **cli.COUNT, default=[1], help='(default: 1)')
    parser.add_argument('--dtype', choices=('fp32', 'bf16'), default='fp32')
    parser.add_argument('--mode', choices=('forward', 'train'), default='forward')
    parser.add_argument(
        '--memory-gib', **cli.COUNT, help='skip what needs more (default: what is free)'
    )
    cli.add_device_option(parser)
    parser.add_argument('--repeats', **cli.COUNT, default=3, help='rounds (default: 3)')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='a picture')
    add_run_options(parser)
    cli.add_config_options(parser, 'model.backbone.frozen_stages=12')


def run_growth(args: argparse.Namespace) -> int:
    """Measure and print how cost grows."""
    from vit_backbones.benchmark import growth
    from vit_backbones.benchmark.results import describe_environment, heading, write_json
    from vit_backbones.benchmark.subjects import Setting
    from vit_backbones.devices import choose_device
    from vit_backbones.files import write_whole
    from vit_backbones.pictures.canvas import check_figure, figure_file
    from vit_backbones.pictures.growing import draw_growth

    if args.plot is not None:
        check_figure(args.plot)
    device = choose_device(args.device)
    sizes = args.sizes or growth.sizes(device)
    setting = Setting(sizes[0], 1, args.dtype, args.mode, device)
    wanted = growth.Wanted(
        args.models,
        args.source,
        args.kinds,
        args.cfg_options,
        sizes,
        args.batch_sizes,
        setting,
        args.repeats,
        args.memory_gib,
    )
    growth.check(wanted)
    environment = describe_environment(setting.device) | dict(mode=args.mode, dtype=args.dtype)
    print(heading(environment), '', *growth.HEADING, sep='\n', flush=True)
    rows = []
    for row in growth.grow(wanted):
        rows.append(row)
        print(growth.growth_row(row), flush=True)
    fits = growth.fits(rows)
    if fits:
        print('', *growth.fit_lines(fits), sep='\n')
    if args.plot is not None:
        write_whole(args.plot, figure_file(draw_growth(rows, fits), args.plot.suffix))
        print(f'wrote {args.plot}')
    if args.out is not None:
        write_json(args.out, environment=environment, rows=rows, fits=fits)
        print(f'wrote {args.out}')
    return 0
