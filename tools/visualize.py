"""Look at a ViT: `python tools/visualize.py IMAGES --model NAME --pretrained --out DIR`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _command_line as cli

if TYPE_CHECKING:
    from vit_backbones.features.views import Picture

MOST_TILES = 40  # on a contact sheet
SHEET_WIDTH = 2400
TILE = (1188, 240)  # the largest; two of them fit beside each other

# Options that not every kind of picture has
_KINDS = {
    **dict.fromkeys(('split', 'num', 'score_thr'), ('predictions',)),
    **dict.fromkeys(('model', 'source', 'pretrained', 'random_weights'), ('pca', 'attention')),
    **dict.fromkeys(('img_size', 'layers', 'size'), ('pca', 'attention')),
    'joint': ('pca',),
    'heads': ('attention',),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Draw the PCA of patch features as colours, attention to the patches, or '
        'predictions beside ground truth: one PNG per image, and contact_sheet.png.'
    )
    cli.add_images(parser, nargs='*')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the pictures')
    kinds = parser.add_mutually_exclusive_group()
    cli.add_flag(kinds, '--pca', 'features of --layers (default: even4) as colours')
    cli.add_flag(
        kinds, '--attention', 'of the CLS token, else of the mean patch, in --layers (default: -1)'
    )
    cli.add_flag(
        kinds,
        '--predictions',
        "the config's own dataset: image, ground truth, prediction; no IMAGES",
    )
    cli.add_size_option(parser, 'the longer side to 512')
    cli.add_flag(parser, '--joint', 'PCA: the same colours for all images')
    parser.add_argument(
        '--heads',
        nargs='+',
        type=int,
        metavar='I',
        help='attention: 0-based (default: the first 6)',
    )
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='val')
    parser.add_argument(
        '--num', **cli.COUNT, default=8, help='predictions: images, evenly spread (default: 8)'
    )
    cli.add_score_option(parser)
    cli.add_device_option(parser)
    cli.add_backbone_options(parser)
    args = parser.parse_args(argv)
    if args.predictions and (args.images or not (args.config and args.checkpoint)):
        parser.error('--predictions goes with --config and --checkpoint, without IMAGES')
    if not args.predictions and not args.images:
        parser.error('name IMAGES to draw')
    drawn = next((kind for kind in ('predictions', 'attention') if getattr(args, kind)), 'pca')
    for name, kinds in _KINDS.items():
        if drawn not in kinds and getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} goes with --{" or --".join(kinds)}')
    return args


def draw_features(args: argparse.Namespace) -> str:
    """Draw PCA or attention; gives the closing line."""
    from vit_backbones.devices import choose_device
    from vit_backbones.features.attention_maps import reader
    from vit_backbones.features.views import draw_attention, draw_pca, viewer
    from vit_backbones.images import ImageWalk, find_images
    from vit_backbones.loaders import deep_line
    from vit_backbones.models.chosen import Choice, load_backbone

    choice, options = Choice.of(args), dict(out_type='featmap')
    if choice.layers is None:
        choice = choice._replace(layers=[-1] if args.attention else 'even4')
    paths = find_images(args.images)
    if not args.attention:
        options['norm'] = 'all'
    loaded = load_backbone(choice, **options)
    walk = ImageWalk(paths, 'drawing', loaded.read)
    if line := deep_line(paths, loaded.reader):
        print(line)
    extractor = viewer(loaded, args.size, choose_device(args.device))
    if args.attention:
        line = save(draw_attention(extractor, walk, args.heads), args.out, 'attention')
        line += f' · attention of the {reader(loaded.backbone)}'
    else:
        line = save(draw_pca(extractor, walk, joint=args.joint), args.out, 'pca')
    return line + walk.close(args.out)


def draw_predictions(args: argparse.Namespace) -> str:
    """Draw predictions beside ground truth; gives the closing line."""
    from vit_backbones.evaluation import side_by_side
    from vit_backbones.models.trained import load_trained
    from vit_backbones.terminal import quiet_warnings

    with quiet_warnings():
        trained = load_trained(args.config, args.checkpoint, args.cfg_options, device=args.device)
        drawn = side_by_side.draw_predictions(
            trained, split=args.split, num=args.num, score_thr=args.score_thr
        )
        return save(drawn, args.out, 'predictions')


def save(pictures: 'Iterable[Picture]', out: Path, kind: str) -> str:
    """Write pictures as they come, and the sheet; gives the words for it."""
    from vit_backbones.files import write_whole
    from vit_backbones.pictures.canvas import Tile, draw_sheet, in_rows, png, thumbnail

    count, tiles = 0, []
    for count, (name, picture) in enumerate(pictures, start=1):
        write_whole(out / f'{name}_{kind}.png', png(picture))
        if count <= MOST_TILES:
            small = thumbnail(picture, TILE[0], min(picture.height, TILE[1]))
            tiles.append(Tile(small, name))
    if not tiles:
        return 'no pictures'
    write_whole(out / 'contact_sheet.png', png(draw_sheet(in_rows(tiles, SHEET_WIDTH))))
    which = f' of the first {MOST_TILES}' if count > MOST_TILES else ''
    number = f'{count} picture{"s" * (count > 1)}'
    return f'{number}: {out}/*_{kind}.png, {out}/contact_sheet.png{which}'


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.files import check_writable

    args.out = Path(args.out)
    check_writable(args.out, folder=True)
    print(draw_predictions(args) if args.predictions else draw_features(args))
    return 0


if __name__ == '__main__':
    sys.exit(main())
