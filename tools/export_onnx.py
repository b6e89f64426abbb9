"""A backbone for other programs: `python tools/export_onnx.py --model NAME ... --out vit.onnx`."""

import argparse
import sys
from collections.abc import Sequence

import _command_line as cli


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Write a backbone as ONNX, TorchScript or torch.export. The file is compared '
        'with PyTorch on random images before it gets its name; it takes RGB images, normalised.'
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='its ending names the format: .onnx, .pt (TorchScript) or .pt2 (torch.export)',
    )
    cli.add_backbone_options(parser)
    group = parser.add_argument_group('file')
    group.add_argument(
        '--size',
        **cli.SIDES,
        help='size of the images; positions are resampled to it (default: as the model is built)',
    )
    cli.add_flag(
        group, '--dynamic', 'images of any size and any batch; with --size only the batch is free'
    )
    cli.add_flag(
        group, '--with-normalization', 'take RGB images on 0-255: the file holds mean and std'
    )
    cli.add_flag(group, '--with-neck', "add the config's neck behind the backbone")
    group.add_argument('--out-type', help='featmap, cls, raw or avg_featmap (default: featmap)')
    group.add_argument('--pool', help='embeddings instead: cls, avg, max, cls+avg, gem or attn')
    group.add_argument(
        '--opset', type=int, default=18, help='version of ONNX operators, 17 to 20 (default: 18)'
    )
    args = parser.parse_args(argv)
    if args.with_neck and (args.layers or args.out_type or args.pool):
        parser.error('--with-neck takes the maps of the config: no --layers, --out-type or --pool')
    if args.opset != parser.get_default('opset') and not args.out.endswith('.onnx'):
        parser.error(f'--opset is only for .onnx files, and --out is {args.out}')
    return args


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from vit_backbones.export import Graph, check_target, export
    from vit_backbones.models.chosen import Choice, load_backbone, load_neck

    check_target(args.out, args.opset)
    choice = Choice.of(args)
    neck = load_neck(choice) if args.with_neck else None
    outputs = {k: v for k, v in (('out_type', args.out_type), ('pool', args.pool)) if v}
    graph = Graph(load_backbone(choice, **outputs), neck, normalises=args.with_normalization)
    size = args.size or (None if args.dynamic else args.img_size)
    print(export(graph, args.out, size=size, dynamic=args.dynamic, opset=args.opset))


if __name__ == '__main__':
    sys.exit(main())
