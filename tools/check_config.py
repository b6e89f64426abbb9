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
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='change the config, e.g. model.backbone.out_stride=16',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        # Here, so that --help is instant and packages that do not fit together are one line.
        from vit_backbones.checks.report import check_config
    except (ImportError, RuntimeError) as error:
        print(f'error: {error}; install the pinned set of requirements.txt', file=sys.stderr)
        return 2
    return check_config(args.config, data=args.data, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
