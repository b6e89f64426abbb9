"""Models for other programs: `python tools/export_onnx.py --model NAME ... --out vit.onnx`."""

import argparse
import sys
from collections.abc import Sequence

import _command_line as cli


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Write a backbone, or a whole trained model, as ONNX, TorchScript or '
        'torch.export. The file is compared with PyTorch before it gets its name: on random '
        'images, and a whole model by its metric too. It takes RGB images, normalised.'
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
    cli.add_flag(
        group,
        '--whole',
        'the whole trained model, head included, of --work-dir, or of --config and --checkpoint',
    )
    group.add_argument(
        '--work-dir',
        metavar='DIR',
        help=f'folder of tools/train.py with its config, for --whole; {cli.TRUST}',
    )
    group.add_argument('--out-type', help='featmap, cls, raw or avg_featmap (default: featmap)')
    group.add_argument('--pool', help='embeddings instead: cls, avg, max, cls+avg, gem or attn')
    group.add_argument(
        '--opset', type=int, default=18, help='version of ONNX operators, 17 to 20 (default: 18)'
    )
    args = parser.parse_args(argv)
    if args.with_neck and (args.layers or args.out_type or args.pool):
        parser.error('--with-neck takes the maps of the config: no --layers, --out-type or --pool')
    _check_whole(parser, args)
    if args.opset != parser.get_default('opset') and not args.out.endswith('.onnx'):
        parser.error(f'--opset is only for .onnx files, and --out is {args.out}')
    return args


def _check_whole(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    given = args.config is not None and args.checkpoint is not None
    if not args.whole:
        if args.work_dir is not None:
            parser.error('--work-dir goes with --whole')
        return
    if (args.work_dir is None) != given or (args.work_dir and args.config):
        parser.error('--whole takes --work-dir, or --config and --checkpoint of a training')
    used = ('work_dir', 'config', 'checkpoint', 'cfg_options', 'size', 'dynamic', 'opset')
    used += ('with_normalization', 'out', 'whole')
    for name, value in vars(args).items():
        if name not in used and value != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} is for backbones: leave it or --whole out')


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.whole:
        export_whole(args)
        return
    from vit_backbones.export import Graph, check_target, export
    from vit_backbones.models.chosen import Choice, load_backbone, load_neck

    check_target(args.out, args.opset)
    choice = Choice.of(args)
    neck = load_neck(choice) if args.with_neck else None
    outputs = {k: v for k, v in (('out_type', args.out_type), ('pool', args.pool)) if v}
    graph = Graph(load_backbone(choice, **outputs), neck, normalises=args.with_normalization)
    size = args.size or (None if args.dynamic else args.img_size)
    print(export(graph, args.out, size=size, dynamic=args.dynamic, opset=args.opset))


def export_whole(args: argparse.Namespace) -> None:
    """Write a trained model, and print how its metric compares."""
    from vit_backbones.evaluation.file_check import FileCheck
    from vit_backbones.evaluation.runs import checkpoint_of, config_of, find_runs
    from vit_backbones.export import WholeGraph, check_target, export
    from vit_backbones.models.trained import load_trained
    from vit_backbones.terminal import quiet_warnings

    check_target(args.out, args.opset)
    config, checkpoint = args.config, args.checkpoint
    if args.work_dir is not None:
        (run,) = find_runs([args.work_dir])
        config, checkpoint = str(config_of(run)), checkpoint or str(checkpoint_of(run))
    with quiet_warnings():
        trained = load_trained(config, checkpoint, args.cfg_options, device='cpu')
        graph = WholeGraph(trained, config, checkpoint, normalises=args.with_normalization)
        check = FileCheck(trained, graph.loaded, args.with_normalization)
        asked = dict(size=args.size, dynamic=args.dynamic, opset=args.opset)
        exported = export(graph, args.out, accept=check, **asked)
    print(exported)


if __name__ == '__main__':
    sys.exit(main())
