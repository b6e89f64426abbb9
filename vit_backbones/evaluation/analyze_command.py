"""What `tools/analyze.py` does: reads runs, predicts once for each, writes tables and pictures."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vit_backbones.checks import preflight
from vit_backbones.config.loading import load_config
from vit_backbones.evaluation.confusion import IOU_THR, SCORE_THR, draw_confusion
from vit_backbones.evaluation.runs import (
    Run,
    checkpoint_of,
    config_of,
    find_runs,
    read_history,
)
from vit_backbones.evaluation.tables import as_csv, as_markdown, per_class_table
from vit_backbones.evaluation.testing import Predictions, predict
from vit_backbones.evaluation.worst import write_worst
from vit_backbones.files import check_writable, write_whole
from vit_backbones.pictures.curves import compare_curves, png
from vit_backbones.terminal import quiet_warnings


def analyze(
    work_dirs: Sequence[str],
    *,
    out: str | None = None,
    checkpoint: str | None = None,
    split: str = 'val',
    num_worst: int = 8,
    device: str | None = None,
    options: Sequence[str] = (),
    curves_only: bool = False,
) -> None:
    """Write pictures and tables of trained runs, and print the table and the files.

    These are `curves.png`, `per_class.csv`, `per_class.md`, and `confusion.png`, `worst.png` and
    the pictures of `worst/`; of several runs the last three in a folder a run.

    Args:
        work_dirs: Folders that `tools/train.py` wrote.
        out: For the results. Defaults to `analysis` in the work dir, of several runs in the
            current folder.
        checkpoint: Weights of the only run, in place of its best or last ones.
        split: Images to predict, `'val'` or `'test'` of the config.
        num_worst: So many images are drawn.
        device: To predict on; `None` for the GPU where there is one.
        options: `key=value` changes of the configs.
        curves_only: No prediction, so that neither data nor weights are needed.

    Raises:
        ValueError: For what is no work dir or lacks a config, a checkpoint or a log, and for what
            `tools/test.py` refuses.
        OSError: If data are not there, or a result cannot be written.
    """
    preflight.check_environment()
    runs = find_runs(work_dirs)
    folder = Path(out or (runs[0].path / 'analysis' if len(runs) == 1 else 'analysis'))
    check_writable(folder, folder=True)
    if curves_only:
        _write_curves(runs, folder)
        return
    if checkpoint is not None and len(runs) > 1:
        raise ValueError(f'--checkpoint goes with one WORK_DIR, got {len(runs)}')
    known = {run.name: (config_of(run), Path(checkpoint or checkpoint_of(run))) for run in runs}
    _write_curves(runs, folder)
    results = {}
    with quiet_warnings(), tempfile.TemporaryDirectory() as logs:
        for name, (config, weights) in known.items():
            print(f'{name}: {weights.name} on {split}')
            results[name] = predict(
                load_config(str(config), options),
                weights,
                split=split,
                num_worst=num_worst,
                device=device,
                folder=f'{logs}/{len(results)}',
            )
            place = folder / name if len(runs) > 1 else folder
            _write_pictures(results[name], place, f'{name}, {split}')
    _write_tables(results, folder)


def _write_curves(runs: Sequence[Run], folder: Path) -> None:
    histories = {run.name: read_history(run) for run in runs}
    for name, each in histories.items():
        if not len(each.steps) and not each.validations:
            raise ValueError(f'{name}: no training was logged (TIMESTAMP/vis_data/scalars.json)')
    _tell(write_whole(folder / 'curves.png', png(compare_curves(histories))))


def _write_pictures(result: Predictions, folder: Path, title: str) -> None:
    instances = f'instances, score from {SCORE_THR}, matched from IoU {IOU_THR}'
    what = 'pixels' if result.is_pixels else instances
    matrix = draw_confusion(result.confusion, result.classes, f'{title}\n{what}')
    _tell(write_whole(folder / 'confusion.png', png(matrix)))
    score = 'mean IoU' if result.is_pixels else 'panoptic quality'
    for file in write_worst(result, folder, f'{title}: lowest {score}')[-1:]:
        _tell(file)


def _write_tables(results: Mapping[str, Predictions], folder: Path) -> None:
    table = per_class_table(results)
    if not table:
        print('no table of classes: mmdet gives values by class by its CocoMetric alone')
        return
    _tell(write_whole(folder / 'per_class.csv', as_csv(table).encode()))
    text = as_markdown(per_class_table({str(i): r for i, r in enumerate(results.values(), 1)}))
    if len(results) > 1:
        text = ''.join(f'{i}. {name}\n' for i, name in enumerate(results, 1)) + '\n' + text
    _tell(write_whole(folder / 'per_class.md', text.encode()))
    print(f'\n{text}', end='')


def _tell(path: Path) -> None:
    print(f'wrote {path}')
