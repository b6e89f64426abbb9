"""Predict for images without labels: `python tools/predict.py CONFIG CHECKPOINT IMAGES`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
        description='Run a trained config on images without labels and write the results of the '
        'model: masks/ (each pixel the number of its class), predictions.json (COCO), panoptic/ '
        'with panoptic.json, and pictures/. A rerun writes all of them again.'
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
    parser.add_argument('--no-pictures', action='store_true', help='write only the results')
    parser.add_argument('--batch-size', type=positive, default=1, metavar='N', help='(default: 1)')
    add_device_option(parser)
    add_config_options(parser, 'model.test_cfg.rcnn.max_per_img=200')
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from vit_backbones.evaluation.predicting import predict
    from vit_backbones.evaluation.prediction_files import ResultWriter
    from vit_backbones.files import check_writable
    from vit_backbones.images import ImageWalk, find_images
    from vit_backbones.models.trained import load_trained
    from vit_backbones.terminal import quiet_warnings

    out = Path(args.out)
    check_writable(out, folder=True)
    with quiet_warnings():
        walk = ImageWalk(find_images(args.images), 'predicting')
        trained = load_trained(
            args.config, args.checkpoint, args.cfg_options, device=args.device, slide=args.slide
        )
        pictures = not args.no_pictures
        writer = ResultWriter(out, trained, score_thr=args.score_thr, pictures=pictures)
        for prediction in predict(trained, walk, batch_size=args.batch_size, flip=args.flip):
            writer.add(prediction)
        unreadable = walk.close(out)
    written = ', '.join(str(out / name) for name in writer.close())
    count = len(walk) - len(walk.unreadable)
    print(f'{count} image{"s" * (count != 1)}: {written}{unreadable}')


if __name__ == '__main__':
    sys.exit(main())
