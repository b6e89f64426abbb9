"""Weights in timm's keys: `python tools/convert_checkpoint.py IN OUT.safetensors --model NAME`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write the checkpoint of a ViT, in the keys of any known project, under those '
        'of the timm model NAME. Classifiers and parts of pre-training are left out.'
    )
    parser.add_argument('checkpoint', metavar='IN', type=Path)
    parser.add_argument('out', metavar='OUT.safetensors', type=Path)
    parser.add_argument('--model', required=True, metavar='NAME', help="timm's name")
    parser.add_argument(
        '--img-size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="for which positions are written; default: the model's own",
    )
    parser.add_argument(
        '--without-cls-token', action='store_true', help='leave the CLS token out, e.g. for Sapiens'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.out.suffix != '.safetensors' or args.out.is_dir():
        print(f'error: OUT must be a .safetensors file, got {str(args.out)!r}', file=sys.stderr)
        return 2
    if args.out.exists() and args.checkpoint.exists() and args.out.samefile(args.checkpoint):
        print(f'error: OUT is IN, {str(args.out)!r}: name another file', file=sys.stderr)
        return 2
    try:
        # Here, so that --help is instant and packages that do not fit together are one line.
        from safetensors.torch import save

        from vit_backbones import ViTFeatBackbone
        from vit_backbones.checkpoints.fitting import GRID_KEY
        from vit_backbones.files import write_whole
    except (ImportError, RuntimeError) as error:
        print(f'error: {error}; install the pinned set of requirements.txt', file=sys.stderr)
        return 2
    logging.disable(logging.INFO)  # the report is printed below
    try:
        backbone = ViTFeatBackbone(
            args.model,
            checkpoint=args.checkpoint,
            img_size=args.img_size,
            with_cls_token=False if args.without_cls_token else None,
        )
        tensors = {n: t.contiguous() for n, t in backbone.vit.state_dict().items()}
        metadata = {'format': 'pt'}
        if hasattr(backbone, GRID_KEY):  # which no number of rows tells
            metadata[GRID_KEY] = json.dumps(backbone.position_grid.tolist())
        write_whole(args.out, save(tensors, metadata=metadata))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        logging.disable(logging.NOTSET)
    print(f'{args.checkpoint}: {backbone.load_report}\nwrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
