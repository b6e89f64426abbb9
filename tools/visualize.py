"""Look at a ViT: `python tools/visualize.py IMAGES --model NAME --pretrained --out DIR`."""

import argparse
import sys
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_backbone_options,
    add_device_option,
    add_images,
    add_score_option,
    add_size_option,
    one_line_errors,
    positive,
)

# Options that not every kind of picture has
_KINDS = {
    **dict.fromkeys(('split', 'num', 'score_thr'), ('predictions',)),
    **dict.fromkeys(('model', 'source', 'pretrained', 'random_weights'), ('pca', 'attention')),
    **dict.fromkeys(('img_size', 'layers', 'size'), ('pca', 'attention')),
    'joint': ('pca',),
    'heads': ('attention',),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Draw the PCA of patch features as colours, attention to the patches, or '
        'predictions beside ground truth: a PNG an image, and contact_sheet.png.'
    )
    add_images(parser, nargs='*')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the pictures')
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        '--pca', action='store_true', help='features of --layers (default: even4) as colours'
    )
    kinds.add_argument(
        '--attention',
        action='store_true',
        help='where the CLS token looks, or else the mean patch, in --layers (default: -1)',
    )
    kinds.add_argument(
        '--predictions',
        action='store_true',
        help="image, ground truth, prediction of the config's own data, without IMAGES",
    )
    add_size_option(parser, 'the longer side to 512')
    parser.add_argument('--joint', action='store_true', help='PCA: one set of colours for all')
    parser.add_argument(
        '--heads', nargs='+', type=int, metavar='I', help='attention: 0-based (default: up to 6)'
    )
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='val')
    parser.add_argument(
        '--num', type=positive, default=8, metavar='N', help='predictions: images, evenly spread'
    )
    add_score_option(parser)
    add_device_option(parser)
    add_backbone_options(parser)
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


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.features import visualize_command as command
    from vit_backbones.models.chosen import Choice

    shared = dict(out=args.out, device=args.device)
    if args.predictions:
        line = command.picture_predictions(
            args.config,
            args.checkpoint,
            options=args.cfg_options,
            split=args.split,
            num=args.num,
            score_thr=args.score_thr,
            **shared,
        )
    elif args.attention:
        line = command.picture_attention(
            Choice.of(args), args.images, size=args.size, heads=args.heads, **shared
        )
    else:
        line = command.picture_features(
            Choice.of(args), args.images, size=args.size, joint=args.joint, **shared
        )
    print(line)
    return 0


if __name__ == '__main__':
    sys.exit(main())
