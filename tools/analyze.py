"""Look at trained runs: `python tools/analyze.py work_dirs/a work_dirs/b`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _command_line as cli

if TYPE_CHECKING:
    from vit_backbones.evaluation.runs import Run
    from vit_backbones.evaluation.testing import Predictions


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description='Draw the curves of runs in one picture; run each model once over its images '
        'for a table of classes, confusion matrices and the worst images.'
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help=f'folder of tools/train.py with its config; {cli.TRUST}',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='folder for the results (default: analysis in the work dir; for several runs, here)',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='weights of a single run (default: the best, else the last)',
    )
    parser.add_argument('--split', choices=['val', 'test'], default='val', help='(default: val)')
    parser.add_argument(
        '--num-worst',
        type=cli.not_negative,
        default=8,
        metavar='N',
        help='images to draw (default: 8)',
    )
    cli.add_device_option(parser)
    cli.add_flag(parser, '--curves-only', 'predict nothing: needs no data and no weights')
    cli.add_config_options(parser, 'val_dataloader.dataset.data_root=data/camvid')
    args = parser.parse_args(argv)
    for name in ('checkpoint', 'split', 'num_worst', 'device', 'cfg_options'):
        if args.curves_only and getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} is for predictions: leave out --curves-only')
    return args


@cli.one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from vit_backbones.checks import preflight
    from vit_backbones.evaluation.runs import checkpoint_of, config_of, find_runs
    from vit_backbones.files import check_writable

    preflight.check_environment()
    runs = find_runs(args.work_dirs, lambda reason: print(f'left out: {reason}', file=sys.stderr))
    folder = Path(args.out or (runs[0].path / 'analysis' if len(runs) == 1 else 'analysis'))
    check_writable(folder, folder=True)
    if args.checkpoint is not None and len(runs) > 1:
        raise ValueError(f'--checkpoint goes with one WORK_DIR, got {len(runs)}')
    if args.curves_only:
        write_curves(runs, folder)
        return
    found = {
        run.name: (config_of(run), Path(args.checkpoint or checkpoint_of(run))) for run in runs
    }
    write_curves(runs, folder)
    write_tables(predict_all(found, folder, args), folder)


def write_curves(runs: Sequence['Run'], folder: Path) -> None:
    from vit_backbones.evaluation.runs import read_history
    from vit_backbones.pictures.canvas import png
    from vit_backbones.pictures.curves import compare_curves

    histories = {run.name: read_history(run) for run in runs}
    for name, each in histories.items():
        if not len(each.steps) and not each.validations:
            raise ValueError(f'{name}: no training was logged (TIMESTAMP/vis_data/scalars.json)')
    write(folder / 'curves.png', png(compare_curves(histories)))


def predict_all(
    found: dict[str, tuple[Path, Path]], folder: Path, args: argparse.Namespace
) -> dict[str, 'Predictions']:
    """Predict for the config and checkpoint of each run, and write its pictures."""
    from vit_backbones.config.loading import load_config
    from vit_backbones.evaluation.testing import predict_split
    from vit_backbones.terminal import quiet_warnings

    results = {}
    for name, (path, weights) in found.items():
        print(f'{name}: {weights.name} on {args.split}')
        asked = dict(split=args.split, num_worst=args.num_worst, device=args.device)
        with quiet_warnings():
            config = load_config(str(path), args.cfg_options)
            results[name] = predict_split(config, weights, **asked)
            place = folder / name if len(found) > 1 else folder
            write_pictures(results[name], place, f'{name}, {args.split}')
    return results


def write_pictures(result: 'Predictions', folder: Path, title: str) -> None:
    from vit_backbones.evaluation.confusion import IOU_THR, SCORE_THR
    from vit_backbones.evaluation.worst import write_worst
    from vit_backbones.pictures.canvas import png
    from vit_backbones.pictures.matrix import draw_confusion

    instances = f'instances, score from {SCORE_THR}, matched from IoU {IOU_THR}'
    counted = 'pixels' if result.is_pixels else instances
    matrix = draw_confusion(result.confusion, result.classes, f'{title}\n{counted}')
    write(folder / 'confusion.png', png(matrix))
    score = 'mean IoU' if result.is_pixels else 'panoptic quality'
    for file in write_worst(result, folder, f'{title}: lowest {score}')[-1:]:
        print(f'wrote {file}')


def write_tables(results: dict[str, 'Predictions'], folder: Path) -> None:
    from vit_backbones.evaluation.tables import as_csv, as_markdown, per_class_table

    table = per_class_table(results)
    if not table:
        print("no table of classes: of mmdet's metrics, only CocoMetric gives values by class")
        return
    write(folder / 'per_class.csv', as_csv(table).encode())
    text = as_markdown(per_class_table({str(i): r for i, r in enumerate(results.values(), 1)}))
    if len(results) > 1:
        text = ''.join(f'{i}. {name}\n' for i, name in enumerate(results, 1)) + '\n' + text
    write(folder / 'per_class.md', text.encode())
    print(f'\n{text}', end='')


def write(path: Path, content: bytes) -> None:
    from vit_backbones.files import write_whole

    print(f'wrote {write_whole(path, content)}')


if __name__ == '__main__':
    sys.exit(main())
