"""What would break or spoil a training: `python tools/check_config.py configs/x.py`."""

import argparse
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Tell what would break or spoil a training before it starts, a line each. '
        'Exit code 1 with errors, 0 with warnings alone, 2 for a wrong path or option.'
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument(
        '--data', action='store_true', help='read the data too: missing ones are an error then'
    )
    parser.add_argument(
        '--dataset',
        metavar='DATA',
        help="your own data instead of the config's: a COCO file, or a folder of images and masks",
    )
    parser.add_argument('--val-dataset', metavar='DATA', help='those to validate on')
    parser.add_argument('--images', metavar='DIR', help='where the images of COCO files lie')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='change the config, e.g. model.backbone.out_stride=16',
    )
    args = parser.parse_args(argv)
    if args.dataset is None and (args.val_dataset or args.images):
        parser.error('--val-dataset and --images go with --dataset')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        # Here, so that --help is instant and packages that do not fit together are one line.
        from vit_backbones.checks.report import check_config
    except (ImportError, RuntimeError) as error:
        print(f'error: {error}; install the pinned set of requirements.txt', file=sys.stderr)
        return 2
    return check_config(
        args.config,
        data=args.data,
        options=args.cfg_options,
        dataset=args.dataset,
        val_dataset=args.val_dataset,
        images=args.images,
    )


if __name__ == '__main__':
    sys.exit(main())
