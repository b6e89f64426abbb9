"""Features of images in one file or a data set: `python tools/extract_features.py IMAGES ...`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _command_line as cli

if TYPE_CHECKING:
    from vit_backbones.features.extractor import Extractor
    from vit_backbones.features.job import Extracted
    from vit_backbones.features.request import Request
    from vit_backbones.features.shard_job import Shared


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Write the features that a backbone makes of images: embeddings into a '
        '.parquet file (path, height, width, embedding), maps and tokens into .npz or .safetensors '
        '(one array per image, PATH, or PATH:LAYER with several layers), or embeddings into a '
        'folder, a .parquet file for each shard. A killed run goes on when the command is '
        'repeated; processes of torchrun share the work, and those of a folder also that of srun '
        'and of SLURM arrays. The exit code is 0 if at least one image could be read; '
        'FILE.unreadable.txt or DIR/_unreadable lists the others.'
    )
    cli.add_images(parser, nargs='*', also='.tar and .parquet shards for a folder')
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        help="the images of the --config's dataset instead",
    )
    parser.add_argument('--out', required=True, type=Path, metavar='FILE_OR_DIR')
    parser.add_argument(
        '--image-key',
        metavar='NAME',
        help="the images of shards: a column of .parquet (default: 'image'), or an extension in "
        '.tar (default: that of any image)',
    )
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
    cli.add_flag(
        parser,
        '--overwrite',
        'replace FILE, the unfinished run of another command, or what other options wrote into DIR',
    )
    cli.add_backbone_options(parser)
    add_embedding_options(parser)
    args = parser.parse_args(argv)
    check_together(args, parser)
    return args


def check_together(args: argparse.Namespace, parser: cli.Parser) -> None:
    """Refuse arguments that do not go together."""
    asks = args.search or args.plot or args.cluster is not None or args.classify
    if asks and args.out.suffix in ('.npz', '.safetensors'):
        parser.error('--search, --plot, --cluster and --classify need --out FILE.parquet or DIR')
    if (args.images and args.split) or not (args.images or args.split or asks):
        parser.error('name IMAGES, or --split of a --config, or ask what FILE holds: --search, ...')
    if args.split and not args.config:
        parser.error('--split goes with --config')


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """Add the questions about embeddings, the fields of `embeddings.answers.Questions`."""
    group = parser.add_argument_group(
        'questions about the embeddings in FILE or DIR, new or of an earlier run'
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


def folder_line(done: 'Shared', out: Path, total: int) -> str:
    from vit_backbones.errors import counted

    read = done.mine - len(done.damaged)
    images, shards = counted(done.counts['images'], 'image'), counted(read, 'shard')
    pieces = [f'process {done.worker.number} of {done.worker.count}'] * (done.worker.count > 1)
    pieces.append(f'{images} of {shards}, {done.what}')
    if done.before:
        pieces.append(f'{counted(done.before, "shard")} from an earlier run')
    if done.computed:
        pieces += [f'{done.seconds:.0f} s', f'{done.computed / done.seconds:.1f} images/s']
    pieces.append(f'{out} has {done.present} of {counted(total, "shard")}')
    if deep := done.counts['deep']:
        pieces.append(f'{counted(deep, "image")} of more than 8 bits read as 8-bit')
    if unreadable := done.counts['unreadable']:
        pieces.append(f'{counted(unreadable, "image")} unreadable (listed in {done.listed})')
    for name, why in done.damaged.items():
        pieces.append(f'left out {name}: {why}')
    return ' · '.join(pieces)


def run_file(args: argparse.Namespace, request: 'Request') -> 'Extractor':
    """Write one file; its processes talk to each other."""
    from vit_backbones.config.datasets import dataset_images
    from vit_backbones.features.job import extract
    from vit_backbones.features.request import prepare
    from vit_backbones.models.chosen import Choice
    from vit_backbones.shards.found import find_shards

    if args.split:
        paths = dataset_images(args.config, args.cfg_options, args.split)
    else:
        shards = find_shards(args.images)
        if kept := [shard.source for shard in shards if shard.source]:
            raise ValueError(f'{kept[0]}: the features of shards go to a folder: --out DIR')
        paths = [path for shard in shards for path in shard.paths]
    extractor = prepare(Choice.of(args), request)
    if done := extract(paths, extractor, request):
        print(closing_line(done, args.out))
    return extractor


def run_folder(args: argparse.Namespace, request: 'Request') -> 'Extractor':
    """Write the files of this process's shards."""
    from vit_backbones.config.datasets import dataset_images
    from vit_backbones.features.request import prepare
    from vit_backbones.features.shard_job import extract_shards
    from vit_backbones.features.sharing import this_worker
    from vit_backbones.models.chosen import Choice
    from vit_backbones.shards.found import find_shards, groups

    worker = this_worker()
    if args.split:
        shards = groups(dataset_images(args.config, args.cfg_options, args.split))
    else:
        shards = find_shards(args.images)
    extractor = prepare(Choice.of(args), request)
    try:
        done = extract_shards(shards, extractor, request, worker)
    except (OSError, RuntimeError, ValueError) as error:
        error.of_any_process = True
        raise
    print(folder_line(done, args.out, len(shards)), flush=True)
    return extractor


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.embeddings.answers import Questions, answers, check_questions
    from vit_backbones.features.job import check_same
    from vit_backbones.features.request import Request, check_request, prepare
    from vit_backbones.features.sharing import this_worker
    from vit_backbones.models.chosen import Choice

    request = Request(**{name: getattr(args, name) for name in Request._fields})
    questions = Questions(**{name: getattr(args, name) for name in Questions._fields})
    asks, extractor = check_questions(questions), None
    if asks and request.is_folder and this_worker().count > 1:
        raise ValueError('ask --search, --plot, --cluster, --classify when all processes are done')
    if args.images or args.split:
        check_request(request)
        extractor = (run_folder if request.is_folder else run_file)(args, request)
    elif questions.search and (args.model or args.config):
        extractor = prepare(Choice.of(args), request)
        check_same(extractor, args.out)
    if asks and cli.is_first_process():
        for line in answers(questions, args.out, extractor and extractor.embed):
            print(line)
    return 0


if __name__ == '__main__':
    cli.leave(main())
