"""Predict for images without labels: `python tools/predict.py CONFIG CHECKPOINT IMAGES`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _command_line as cli

if TYPE_CHECKING:
    from vit_backbones.evaluation.prediction_files import ResultWriter
    from vit_backbones.images import ImageWalk


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Run a trained config on images without labels and write the results of the '
        'model: masks/ (each pixel the number of its class), predictions.json (COCO), panoptic/ '
        'with panoptic.json, and pictures/. A rerun writes all of them again.'
    )
    parser.add_argument('config', **cli.CONFIG)
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    cli.add_images(parser, nargs='+')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the results')
    cli.add_score_option(parser)
    parser.add_argument(
        '--slide',
        nargs=2,
        type=int,
        metavar=('CROP', 'STRIDE'),
        help='large images: windows of CROP x CROP pixels, STRIDE apart, whose scores (segmenters) '
        'are averaged or whose objects (detectors) are merged',
    )
    parser.add_argument(
        '--merge-thr',
        type=float,
        metavar='SHARE',
        help='with --slide: objects of two windows are one if they share this part of the smaller '
        'one (default: 0.5)',
    )
    cli.add_flag(parser, '--flip', 'average with the mirrored image')
    cli.add_flag(parser, '--no-pictures', 'write only the results')
    parser.add_argument('--batch-size', **cli.COUNT, default=1, help='(default: 1)')
    cli.add_device_option(parser)
    cli.add_config_options(parser, 'model.test_cfg.rcnn.max_per_img=200')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from vit_backbones.checks.coco_files import predicted_label_findings
    from vit_backbones.errors import counted
    from vit_backbones.evaluation.predicting import Predictor, predict
    from vit_backbones.evaluation.prediction_files import ResultWriter, without_results
    from vit_backbones.evaluation.sliding import Slide, count_tiles
    from vit_backbones.files import check_writable
    from vit_backbones.images import ImageWalk, find_images
    from vit_backbones.loaders import deep_line, reader_of
    from vit_backbones.models.trained import load_trained
    from vit_backbones.terminal import quiet_warnings

    out = Path(args.out)
    check_writable(out, folder=True)
    with quiet_warnings():
        found = find_images(args.images)
        paths = without_results(found, out)
        if own := len(found) - len(paths):
            cli.say(f'left out {counted(own, "image")} of earlier results in {out}')
        slide = Slide.given(args.slide, args.merge_thr, args.score_thr)
        trained = load_trained(args.config, args.checkpoint, args.cfg_options, device=args.device)
        for finding in predicted_label_findings(trained.config):
            cli.say(str(finding), error=True)
        reader = reader_of(trained.config)
        predictor = Predictor(trained, flip=args.flip, slide=slide)
        if slide:
            predictor.check_slide(paths, reader.size, reader.item)
        if slide and not trained.segments:
            tiles = counted(count_tiles(paths, reader.size, slide), 'tile')
            cli.say(f'{counted(len(paths), "image")}: {tiles} of up to {slide.crop}x{slide.crop}')
        walk = ImageWalk(paths, 'predicting', reader.read)
        if line := deep_line(paths, reader):
            print(line)
        pictures = not args.no_pictures
        writer = ResultWriter(out, trained, score_thr=args.score_thr, pictures=pictures)
        try:
            for prediction in predict(predictor, walk, args.batch_size):
                writer.add(prediction)
        except BaseException:
            if writer.written:
                cli.say(f'stopped after {closing_line(writer, walk)}', error=True)
            raise
        line = closing_line(writer, walk)
    print(line)


def closing_line(writer: 'ResultWriter', walk: 'ImageWalk') -> str:
    """Write what is left to write, and say what there is."""
    names, unreadable = writer.close(), walk.close(writer.out)
    return f'{writer.count}: {", ".join(str(writer.out / name) for name in names)}{unreadable}'


if __name__ == '__main__':
    sys.exit(main())
