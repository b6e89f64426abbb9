"""Convert weights to timm's keys: `python tools/convert_checkpoint.py IN OUT --model NAME`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _command_line as cli


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Convert the checkpoint of a ViT from the keys of any known project to those '
        'of the timm model NAME. Classifiers and parts of pre-training are left out.'
    )
    parser.add_argument('checkpoint', metavar='IN', type=Path)
    parser.add_argument('out', metavar='OUT.safetensors', type=Path)
    parser.add_argument('--model', required=True, metavar='NAME', help="timm's name")
    parser.add_argument(
        '--img-size', **cli.SIDES, help="size to resample positions to; default: the model's own"
    )
    parser.add_argument(
        '--pos-interp',
        choices=('timm', 'original'),
        default='timm',
        help="how --img-size resamples: as timm does, or the file's authors (default: timm)",
    )
    cli.add_flag(parser, '--without-cls-token', 'leave the CLS token out, e.g. for Sapiens')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out.suffix != '.safetensors' or args.out.is_dir():
        raise ValueError(f'OUT must be a .safetensors file, got {str(args.out)!r}')
    if args.out.exists() and args.checkpoint.exists() and args.out.samefile(args.checkpoint):
        raise ValueError(f'OUT is IN, {str(args.out)!r}: name another file')
    from vit_backbones import ViTFeatBackbone
    from vit_backbones.files import write_whole
    from vit_backbones.models.weight_files import weight_file
    from vit_backbones.terminal import quiet_log

    with quiet_log():  # the report is printed below
        backbone = ViTFeatBackbone(
            args.model,
            checkpoint=args.checkpoint,
            img_size=args.img_size,
            pos_interp=args.pos_interp,
            with_cls_token=False if args.without_cls_token else None,
        )
    write_whole(args.out, weight_file(backbone))
    print(f'{args.checkpoint}: {backbone.load_report}\nwrote {args.out}')


if __name__ == '__main__':
    sys.exit(main())
