"""What would break or spoil a training: `python tools/check_config.py configs/x.py`."""

import argparse
import sys
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_config_options,
    add_dataset_options,
    one_line_errors,
    parse_dataset_options,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Tell what would break or spoil a training before it starts, a line each. '
        'Exit code 1 with errors, 0 with warnings alone, 2 for a wrong path or option.'
    )
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument(
        '--data', action='store_true', help='read the data too: missing ones are an error then'
    )
    add_dataset_options(parser)
    add_config_options(parser, 'model.backbone.out_stride=16')
    return parse_dataset_options(parser, argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.checks.report import check_config

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
