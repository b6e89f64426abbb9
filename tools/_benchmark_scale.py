"""`tools/benchmark.py scale`: what many images cost."""

import argparse
import sys
from pathlib import Path
from typing import Any

import _command_line as cli
from _benchmark_steps import add_run_options


def add_scale(commands: Any) -> None:
    """Add the action `scale`."""
    parser = commands.add_parser(
        'scale',
        help='what many images cost: shards, embeddings, an index',
        description='Without IMAGES, write drawn embeddings as a data set, build their index and '
        'search it. With IMAGES, extract their embeddings from files, from a tar and from Parquet, '
        'which must be equal.',
    )
    parser.set_defaults(run=run_scale)
    cli.add_images(parser, nargs='*')
    parser.add_argument('--folder', required=True, type=Path, help='a new folder to write into')
    parser.add_argument('--rows', **cli.COUNT, default=1_000_000, help='(default: a million)')
    parser.add_argument('--dims', **cli.COUNT, default=384, help='of an embedding (default: 384)')
    cli.add_size_option(parser, 'as images are')
    parser.add_argument('--batch-size', **cli.COUNT, default=8, help='(default: 8)')
    parser.add_argument(
        '--num-workers', type=cli.not_negative, default=1, metavar='N', help='(default: 1)'
    )
    cli.add_device_option(parser)
    add_run_options(parser)
    cli.add_backbone_options(parser)


def run_scale(args: argparse.Namespace) -> int:
    """Measure and print the steps."""
    import torch

    from vit_backbones.benchmark.results import describe_environment, heading, write_json
    from vit_backbones.benchmark.scale import measure_extraction, measure_search, step_table
    from vit_backbones.features.request import Request, prepare
    from vit_backbones.images import find_images
    from vit_backbones.models.chosen import Choice

    own = ('size', 'batch_size', 'num_workers', 'device')
    request = Request(args.folder, **{name: getattr(args, name) for name in own})
    if args.images:
        extractor = prepare(Choice.of(args), request)
        measured = measure_extraction(find_images(args.images), extractor, request)
        noted = dict(model=args.model, size=args.size, num_workers=args.num_workers)
    else:
        measured = measure_search(args.folder, args.rows, args.dims)
        noted = dict(rows=args.rows, dims=args.dims)
    device = extractor.device if args.images else torch.device('cpu')
    environment, steps = describe_environment(device), []
    print(heading(environment))
    for step in measured:
        print(f'{step.step}: {step.seconds:.1f} s', file=sys.stderr, flush=True)
        steps.append(step._asdict())
    print(*step_table(steps), sep='\n')
    if args.out is not None:
        write_json(args.out, environment=environment, **noted, steps=steps)
        print(f'wrote {args.out}')
    return 0
