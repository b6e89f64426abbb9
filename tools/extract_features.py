"""Features of images in one file: `python tools/extract_features.py IMAGES --model NAME ...`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _command_line as cli

if TYPE_CHECKING:
    from vit_backbones.features.job import Extracted


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Write the features that a backbone makes of images: embeddings into a '
        '.parquet file (path, height, width, embedding), maps and tokens into .npz or .safetensors '
        '(one array per image, PATH, or PATH:LAYER with several layers). A killed run goes on when '
        'the command is repeated; under torchrun several processes share the work. The exit code '
        'is 0 if at least one image could be read; FILE.unreadable.txt lists the others.'
    )
    cli.add_images(parser, nargs='*')
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        help="the images of the --config's dataset instead",
    )
    parser.add_argument('--out', required=True, type=Path, metavar='FILE')
    parser.add_argument(
        '--out-type',
        choices=('featmap', 'cls', 'raw', 'avg_featmap'),
        help="form of the features (default of .npz and .safetensors: featmap, or the config's)",
    )
    parser.add_argument(
        '--pool',
        choices=('model', 'cls', 'avg', 'max', 'cls+avg', 'gem', 'attn'),
        help="embeddings (default of .parquet: model, the model's own embedding, else cls or avg)",
    )
    cli.add_size_option(parser, 'as images are')
    parser.add_argument('--batch-size', **cli.COUNT, default=8, help='(default: 8)')
    parser.add_argument(
        '--dtype',
        choices=('fp32', 'bf16', 'fp16'),
        default='fp32',
        help='bf16: compute in it, store fp32; fp16: store it, and on a GPU compute in it',
    )
    cli.add_flag(parser, '--normalize', 'embeddings of length 1')
    cli.add_device_option(parser)
    parser.add_argument(
        '--num-workers',
        type=cli.not_negative,
        default=2,
        metavar='N',
        help='threads that read ahead (default: 2)',
    )
    cli.add_flag(parser, '--overwrite', 'replace FILE, and the unfinished run of another command')
    cli.add_backbone_options(parser)
    add_embedding_options(parser)
    args = parser.parse_args(argv)
    asks = args.search or args.plot or args.cluster is not None or args.classify
    if asks and args.out.suffix != '.parquet':
        parser.error('--search, --plot, --cluster and --classify need --out FILE.parquet')
    if (args.images and args.split) or not (args.images or args.split or asks):
        parser.error('name IMAGES, or --split of a --config, or ask what FILE holds: --search, ...')
    if args.split and not args.config:
        parser.error('--split goes with --config')
    return args


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """Add the questions about embeddings, the fields of `embeddings.answers.Questions`."""
    group = parser.add_argument_group(
        'questions about the embeddings in FILE, new or of an earlier run'
    )
    group.add_argument('--search', metavar='IMAGE', help='its nearest neighbours: FILE.search.png')
    group.add_argument(
        '--top', type=int, default=8, metavar='K', help='number of neighbours (default: 8)'
    )
    group.add_argument(
        '--plot', choices=('pca', 'tsne', 'umap'), help='a picture of all images: FILE.tsne.png'
    )
    group.add_argument(
        '--cluster', type=int, metavar='K', help='k-means: FILE.clusters.csv, FILE.clusters.png'
    )
    group.add_argument(
        '--classify',
        metavar='CSV',
        help="cross-validated accuracy for labels in a file of 'path,label': FILE.classify.json",
    )


def closing_line(done: 'Extracted', out: Path) -> str:
    if done.seconds is None:
        return f'{out} holds these features already'
    number = done.total - len(done.unreadable)
    pieces = [
        f'{number} image{"s" * (number > 1)}, {done.what}',
        f'{done.seconds:.0f} s',
        f'{(number - done.before) / done.seconds:.1f} images/s',
        str(out),
    ]
    if done.before:
        pieces.insert(1, f'{done.before} of them from an earlier run')
    if done.unreadable:
        listed = f'{done.examples} (listed in {done.listed})'
        pieces.append(f'{len(done.unreadable)} unreadable: {listed}')
    return ' · '.join(pieces)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.config.datasets import dataset_images
    from vit_backbones.embeddings.answers import Questions, answers, check_questions
    from vit_backbones.features.job import check_same, extract
    from vit_backbones.features.request import Request, check_request, prepare
    from vit_backbones.images import find_images
    from vit_backbones.models.chosen import Choice

    request = Request(**{name: getattr(args, name) for name in Request._fields})
    questions = Questions(**{name: getattr(args, name) for name in Questions._fields})
    asks, extractor = check_questions(questions), None
    if args.images or args.split:
        check_request(request)
        if args.split:
            paths = dataset_images(args.config, args.cfg_options, args.split)
        else:
            paths = find_images(args.images)
        extractor = prepare(Choice.of(args), request)
        if done := extract(paths, extractor, request):
            print(closing_line(done, args.out))
    elif questions.search and (args.model or args.config):
        extractor = prepare(Choice.of(args), request)
        check_same(extractor, args.out)
    if asks and cli.is_first_process():
        for line in answers(questions, args.out, extractor and extractor.embed):
            print(line)
    return 0


if __name__ == '__main__':
    cli.leave(main())
