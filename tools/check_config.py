"""Errors and warnings before a training: `python tools/check_config.py configs/x.py`."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain

import _command_line as cli


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Show all that would break or spoil a training before it starts, a line each. '
        'Exit code 1 with errors, 0 with warnings only, 2 for a wrong path or option.'
    )
    parser.add_argument('config', **cli.CONFIG)
    cli.add_flag(parser, '--data', 'read the data too: missing ones are an error then')
    cli.add_dataset_options(parser)
    cli.add_config_options(parser, 'model.backbone.out_stride=16')
    return cli.parse_dataset_options(parser, argv)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from vit_backbones.checks.findings import beside_own_data, warning
    from vit_backbones.checks.preflight import check_environment
    from vit_backbones.checks.report import check_config
    from vit_backbones.config import load_config
    from vit_backbones.own_data import use_own_data
    from vit_backbones.terminal import silence

    count, found, own = {'error': 0, 'warning': 0, 'note': 0}, [], None
    with silence(), tempfile.TemporaryDirectory() as folder:
        check_environment()
        config = load_config(args.config, args.cfg_options)
        if args.dataset is not None:
            given = dict(val_data=args.val_dataset, images=args.images, folder=folder)
            own = use_own_data(config, args.dataset, **given, options=args.cfg_options)
            print(own.summary)
            found = map(warning, own.warnings)
        others = beside_own_data(check_config(config, reads_data=args.data), own and own.folder)
        for finding in chain(found, others):
            print(cli.as_flags(str(finding)), flush=True)
            count[finding.level] += 1
    del count['note']
    counted = ', '.join(f'{n or "no"} {level}{"s" * (n > 1)}' for level, n in count.items())
    print(f'{args.config}: {counted}')
    return 1 if count['error'] else 0


if __name__ == '__main__':
    sys.exit(main())
