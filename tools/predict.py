"""A trained config on images without labels: `python tools/predict.py CONFIG CHECKPOINT IMAGES`."""

import argparse
import sys
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_config_options,
    add_device_option,
    add_images,
    add_score_option,
    one_line_errors,
    positive,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Run a trained config on images without labels: masks/ (each pixel the number '
        'of its class), predictions.json (COCO), panoptic/ with panoptic.json, and pictures/, '
        'as the model has them. A rerun writes all of them again.'
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    add_images(parser, nargs='+')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the results')
    add_score_option(parser)
    parser.add_argument(
        '--slide',
        nargs=2,
        type=int,
        metavar=('CROP', 'STRIDE'),
        help='segmenters of mmseg: windows of CROP x CROP pixels, STRIDE apart, averaged',
    )
    parser.add_argument('--flip', action='store_true', help='average with the mirrored image')
    parser.add_argument('--no-pictures', action='store_true', help='results alone')
    parser.add_argument('--batch-size', type=positive, default=1, metavar='N', help='(default: 1)')
    add_device_option(parser)
    add_config_options(parser, 'model.test_cfg.rcnn.max_per_img=200')
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.evaluation.predict_command import predict_images

    print(
        predict_images(
            args.config,
            args.checkpoint,
            args.images,
            args.out,
            options=args.cfg_options,
            score_thr=args.score_thr,
            slide=args.slide,
            flip=args.flip,
            pictures=not args.no_pictures,
            batch_size=args.batch_size,
            device=args.device,
        )
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
