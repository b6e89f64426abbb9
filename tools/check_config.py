"""What would break or spoil a training: `python tools/check_config.py configs/x.py`."""

import argparse
import sys
import tempfile
from collections.abc import Sequence

from _command_line import (
    Parser,
    add_config_options,
    add_dataset_options,
    one_line_errors,
    parse_dataset_options,
    with_flags,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Show what would break or spoil a training before it starts, a line each. '
        'Exit code 1 with errors, 0 with warnings only, 2 for a wrong path or option.'
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
    from vit_backbones.checks.preflight import check_environment
    from vit_backbones.checks.report import check_config
    from vit_backbones.config import load_config
    from vit_backbones.own_data import use_own_data
    from vit_backbones.terminal import silence

    count = {'error': 0, 'warning': 0}
    with silence(), tempfile.TemporaryDirectory() as folder:
        check_environment()
        config = load_config(args.config, args.cfg_options)
        if args.dataset is not None:
            own = dict(val_data=args.val_dataset, images=args.images, folder=folder)
            print(use_own_data(config, args.dataset, **own))
        for finding in check_config(config, reads_data=args.data):
            print(with_flags(str(finding), Parser.flags), flush=True)
            count[finding.level] += 1
    counted = ', '.join(f'{n or "no"} {level}{"s" * (n > 1)}' for level, n in count.items())
    print(f'{args.config}: {counted}')
    return 1 if count['error'] else 0


if __name__ == '__main__':
    sys.exit(main())
