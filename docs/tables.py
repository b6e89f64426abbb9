r"""Tables of the README and of the manual, from the records of runs in docs/results.

The table of weights is written from the files of configs/_base_/backbones.

    python docs/tables.py          # write the tables
    python docs/tables.py check    # name the files whose tables are old, exit code 1 then
    python docs/tables.py add work_dirs/mine --config configs/upernet/upernet_vit-ti_camvid.py \
        --data 'CamVid val' --metric mIoU --hardware '1 core of an AMD EPYC'

`add` makes a file of docs/results from the work dir's `record.json` and, where there is one, its
`test.json` (the speed of a test that had the machine for itself), and writes the tables. Keys of a
result: `config`, `data`, `metric`, `value` (0 to 1, of the last validation), `parameters`,
`minutes` (of training, wall-clock), `peak_memory_mib`, `images_per_second` (of inference),
`hardware`, `date` and `command`. `tools/check_models.py` writes docs/results/models/timm.json; the
`--out` of `tools/benchmark.py targets` writes docs/results/speed/targets.json, and on a GPU a file
of docs/results/speed/gpu; that of `quality` writes the files of docs/results/quality and the rows
of docs/results/distillation, that of `scale` the files of docs/results/scale, and `.ci/matrix`
docs/results/versions/matrix.json. A table stands between its two marks, in whichever file has them.
"""

import argparse
import contextlib
import functools
import io
import json
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from vit_backbones import ViTFeatBackbone
from vit_backbones.benchmark.projection import extraction_figures, state_figures, training_figures
from vit_backbones.benchmark.results import (
    Row,
    heading,
    markdown,
    of_work_dir,
    ordered,
    table_head,
    table_row,
)
from vit_backbones.benchmark.scale import step_table
from vit_backbones.config.loading import load_config
from vit_backbones.errors import counted
from vit_backbones.sources.published import published

DOCS = Path(__file__).resolve().parent
sys.path.append(str(DOCS.parent / 'tools'))
from _targets import HEADING, goal_row  # noqa: E402

FILES = (DOCS.parent / 'README.md', *sorted(DOCS.glob('*.md')))
# What the configs read their data and weights from
_VARIABLES = {
    'camvid': 'CAMVID_ROOT=... ',
    'nuclei': 'NUCLEI_ROOT=... ',
    'vit-ti': 'VIT_TINY=... ',
    'vit-adapter-ti': 'VIT_TINY=... ',
    's-dinov2_': 'DINOV2_SMALL=... ',
}
# Files of docs/results/reliability, and what their tables are about
_FAULTS = {
    'kills': 'Kills, signals, full disks',
    'numbers': 'Numbers that go wrong',
    'data': 'Bad data',
    'hostile': 'Hostile files',
    'fuzz': 'Random input',
    'long_run': 'Long runs',
    'processes': 'Several processes',
    'stacks': 'Versions',
}
# Other ways to compute the same, in files of docs/results/speed/gpu
_COMPARED = ('explicit softmax', 'written out', 'grid_sample', 'floor', 'mmdet', 'transformers')


def result(work_dir: Path, options: str = '', **noted: Any) -> dict[str, Any]:
    """A run's entry in docs/results.

    Args:
        work_dir: Where `tools/train.py` trained, and `tools/test.py` tested if it did.
        options: What its command had besides the config, such as `--amp`.
        **noted: `config`, `data`, `metric` as the evaluator spells it, and `hardware`.
    """
    record = json.loads((work_dir / 'record.json').read_text())
    if Path(record['config']).stem != Path(noted['config']).stem:
        raise SystemExit(f'{work_dir} is of {record["config"]}, not of {noted["config"]}')
    run = next(run for run in of_work_dir(work_dir) if run['metric'] == noted['metric'])
    variables = ''.join(v for part, v in _VARIABLES.items() if part in noted['config'])
    command = f'{variables}python tools/train.py {noted["config"]} {options}'.rstrip()
    return run | noted | dict(command=command)


def table(results: Path = DOCS / 'results') -> str:
    """All runs by data and metric, with their commands."""
    runs = _runs(results)
    commands = [run['command'] for run in ordered(runs)]
    return '\n'.join([markdown(runs), '', '```bash', *dict.fromkeys(commands), '```'])


def study(results: Path = DOCS / 'results') -> str:
    """The rows of the study's plan, a head each, with a column for each backbone.

    Values are those of the study, else of a single run in docs/results, else `not run`.
    """
    plan = json.loads((results / 'study/plan.json').read_text())
    done = results / 'study/results.json'
    found = json.loads(done.read_text())['rows'] if done.exists() else []
    singles = {run['config']: run for run in _runs(results)}
    backbones = list(dict.fromkeys(row['backbone'] for row in plan))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in plan:
        single = None if row.get('test_options') else singles.get(row['config'])
        known = next((each for each in found if _same(each, row)), single)
        place = tuple(row[key] for key in ('data', 'head', 'metric'))
        cells.setdefault(place, {})[row['backbone']] = _value(known)
    lines = [*table_head(['data', 'head', 'metric', *backbones])]
    for place, each in cells.items():
        lines.append(table_row([*place, *(each.get(name, '') for name in backbones)]))
    return '\n'.join(lines)


def _same(found: Row, planned: Row) -> bool:
    keys = ('options', 'test_options')
    options = [shlex.join(planned.get(key, [])) for key in keys]
    return [found['config'], *(found[key] for key in keys)] == [planned['config'], *options]


def _value(run: Row | None) -> str:
    """A value with half of its interval and the number of seeds, as far as they are known."""
    if run is None:
        return 'not run'
    if not run.get('interval'):
        return f'{run["value"]:.3f}'
    low, high = run['interval']
    return f'{run["value"]:.3f} ± {(high - low) / 2:.3f} ({counted(run["seeds"], "seed")})'


def study_details(path: Path = DOCS / 'results/study/results.json') -> str:
    """What the study trained, with all its columns."""
    return markdown(json.loads(path.read_text())['rows'])


def _runs(results: Path) -> list[Row]:
    return [json.loads(path.read_text()) for path in sorted(results.glob('*.json'))]


def targets(folder: Path = DOCS / 'results/speed') -> str:
    """The speed and memory that the package promises, and what `make bench` measured.

    Cases that a run on a GPU measured stand only in the tables of `on_gpus`.
    """
    elsewhere = {goal['case'] for run in _runs(folder / 'gpu') for goal in run['goals']}
    return _judged(json.loads((folder / 'targets.json').read_text()), elsewhere)


def on_gpus(folder: Path = DOCS / 'results/speed/gpu') -> str:
    """What runs of `tools/benchmark.py targets CASE ...` on GPUs measured, a table each."""
    return '\n\n'.join(map(_judged, _runs(folder)))


def gpu_costs(folder: Path = DOCS / 'results/speed/gpu') -> str:
    """Milliseconds and memory of what the same runs measured, without what was only compared."""
    lines = ['| what | variant | ms | GiB | GPU | date |', '| --- | --- | --- | --- | --- | --- |']
    for run in _runs(folder):
        where = f'{run["environment"]["gpu"]} | {run["environment"]["date"]}'
        for what, figures in {goal['what']: goal['figures'] for goal in run['goals']}.items():
            for name in (name for name in figures.get('time', ()) if name not in _COMPARED):
                used = figures.get('memory', {}).get(name)
                cells = what, name, f'{figures["time"][name]:.0f}', used and f'{used / 1024:.1f}'
                lines.append(f'| {" | ".join(cell or "" for cell in cells)} | {where} |')
    return '\n'.join(lines)


def _judged(noted: dict[str, Any], elsewhere: Collection[str] = ()) -> str:
    """A run with its environment, without the cases that stand elsewhere."""
    where = noted['environment']
    versions = ', '.join(f'{name} {version}' for name, version in where['versions'].items())
    device = where.get('gpu', where['device'])
    source = f'{device}, {where["threads"]} threads, {versions}, {where["date"]}:'
    rows = [goal_row(goal) for goal in noted['goals'] if goal['case'] not in elsewhere]
    return '\n'.join([source, '', *HEADING, *rows])


def quality(results: Path = DOCS / 'results/quality') -> str:
    """What `tools/benchmark.py quality` measured."""
    return markdown(row for noted in _runs(results) for row in noted['rows'])


def distillation(results: Path = DOCS / 'results/distillation') -> str:
    """The probe of a student before and after, beside its teacher's, with the commands."""
    parts = []
    for noted in _runs(results):
        parts += [noted['note'], '', markdown(noted['rows']), '', '```bash', *noted['commands']]
        parts += ['```', '']
    return '\n'.join(parts[:-1])


def reliability(results: Path = DOCS / 'results/reliability') -> str:
    """Each fault, what is promised, the command that shows it, and what was seen."""
    parts = []
    for name, title in _FAULTS.items():
        rows = json.loads((results / f'{name}.json').read_text())
        cells = (
            [each['fault'], each['promise'], f'`{each["command"]}`', each['seen']] for each in rows
        )
        lines = [f'| {" | ".join(row)} |' for row in cells]
        parts += [f'## {title}', '', '| fault | promise | command | seen |', '|---|---|---|---|']
        parts += [*lines, '']
    return '\n'.join(parts[:-1])


def totals(walk: Path = DOCS / 'results/models/timm.json') -> str:
    """How many of timm's architectures work, in two sentences; the link is for a file of docs."""
    rows = json.loads(walk.read_text())
    works = [row for row in rows if row['status'] == 'works']
    any_size = sum(row['how'] == 'any size' for row in works)
    fails = sum(row['status'] == 'fails' for row in rows)
    share = f'{len(works) / len(rows):.1%}'
    refuses = len(rows) - len(works) - fails
    return (
        f'Of {len(rows)} transformers of timm, built small and with redrawn weights, {len(works)} '
        f"({share}) give timm's own\nfeatures on a rectangle and on an odd size: {any_size} at "
        f'any size, the others when built at `img_size`. {refuses} have\none size and say so, '
        f'{fails} fail: [table](results/models/timm.md).'
    )


def weights(backbones: Path = DOCS.parent / 'configs/_base_/backbones') -> str:
    """Where the weights of the files in configs/_base_/backbones come from, the smallest first."""
    found = (weights_of(path) for path in backbones.glob('*.py'))
    rows = sorted(found, key=lambda row: (row['parameters'], row['file']))
    heading = '| `_base_` | weights | parameters | file | licence | command |'
    return '\n'.join([heading, '|---' * 6 + '|', *map(_weights_row, rows)])


@functools.cache
def weights_of(path: Path) -> dict[str, Any]:
    """What is known of the weights of a file in configs/_base_/backbones.

    The size of a file is that of timm's whole model in float32, as timm publishes it.
    """
    with contextlib.redirect_stdout(io.StringIO()), torch.device('meta'):
        backbone = load_config(path).backbone
        name, source = backbone.model_name, backbone.get('source', 'timm')
        parameters = ViTFeatBackbone(name, source=source).parameters()
        whole = timm.create_model(name).state_dict().values() if source == 'timm' else ()
    found = published(source, name)
    return dict(
        base=path.stem,
        found=found,
        own=Path(backbone.get('checkpoint') or f'{name}{Path(found.file).suffix}').name,
        parameters=sum(each.numel() for each in parameters),
        file=f'{sum(4 * each.numel() for each in whole) / 1e6:.0f} MB' if whole else '',
    )


def _weights_row(row: dict[str, Any]) -> str:
    found = row['found']
    link = f'[`{found.repository}`]({found.page})'
    command = f'`{found.command(name=row["own"])}`'
    parameters = f'{row["parameters"] / 1e6:.1f} M'
    cells = (f'`{row["base"]}`', link, parameters, row['file'], found.licence, command)
    return f'| {" | ".join(cells)} |'


def versions(walk: Path = DOCS / 'results/versions/matrix.json') -> str:
    """What `.ci/matrix` tried, with the releases in which a row differs from the lock."""
    noted = json.loads(walk.read_text())
    lock = next(row['versions'] for row in noted['rows'] if row['name'] == 'as locked')
    heading = ('row', 'Python', 'instead of the lock', 'passed', 'failed', 'skipped', 'note')
    lines = [heading, ['---'] * len(heading)]
    for row in noted['rows']:
        others = [f'{k} {v}' for k, v in row['versions'].items() if v != lock[k]]
        counts = [str(row[kind]) for kind in ('passed', 'failed', 'skipped')]
        lines.append([row['name'], row['python'], ', '.join(others) or '-', *counts, row['note']])
    table = [f'| {" | ".join(cells)} |' for cells in lines]
    return '\n'.join([f'Tried on {noted["date"]}:', '', *table])


def scale(folder: Path = DOCS / 'results/scale') -> str:
    """What `tools/benchmark.py scale` measured, a table each."""
    return '\n\n'.join(map(_steps, _runs(folder)))


def _steps(noted: dict[str, Any]) -> str:
    heads = [heading(noted['environment'])]
    if 'rows' in noted:
        heads.append(f'{noted["rows"]:,} rows of {noted["dims"]} numbers')
    else:
        heads.append(f'{noted["model"]}, images of {"x".join(map(str, noted["size"]))}')
    heads.append(noted['environment']['date'])
    return '\n'.join([f'{", ".join(heads)}:', '', *step_table(noted['steps'])])


def billion(folder: Path = DOCS / 'results') -> str:
    """What a billion images would take, computed from measured figures."""
    million, extraction = (folder / f'scale/{name}.json' for name in ('million', 'extraction'))
    figures = extraction_figures(
        json.loads(million.read_text()),
        json.loads(extraction.read_text()) if extraction.exists() else None,
        _goals(folder),
    )
    return '\n'.join([*table_head(['what', 'figure', 'origin']), *map(table_row, figures)])


def training(folder: Path = DOCS / 'results') -> str:
    """How long trainings would take on several GPUs, computed from measured steps."""
    heads = ['model', 'images/s of a GPU', 'epochs of COCO', '1 GPU, h', '8, h', '16, h', '64, h']
    rows = training_figures(_goals(folder))
    return '\n'.join([*table_head([*heads, 'GPU-hours for a billion']), *map(table_row, rows)])


def sharding() -> str:
    """What FSDP divides among GPUs, computed from numbers of parameters."""
    heads = ['model', 'parameters', 'GiB on 1 GPU', 'on each of 8', 'of 16', 'of 64']
    return '\n'.join([*table_head(heads), *map(table_row, state_figures())])


def _goals(folder: Path) -> list[dict[str, Any]]:
    return [goal for run in _runs(folder / 'speed/gpu') for goal in run['goals']]


# Each table by its name in the marks: what it is written from, and by what
BLOCKS = {
    'results': ('docs/results/*.json', table),
    'study': ('docs/results/study/*.json', study),
    'study details': ('docs/results/study/results.json', study_details),
    'models': ('docs/results/models/timm.json', totals),
    'targets': ('docs/results/speed/targets.json', targets),
    'gpu': ('docs/results/speed/gpu/*.json', on_gpus),
    'gpu_costs': ('docs/results/speed/gpu/*.json', gpu_costs),
    'quality': ('docs/results/quality/*.json', quality),
    'distillation': ('docs/results/distillation/*.json', distillation),
    'weights': ('configs/_base_/backbones', weights),
    'reliability': ('docs/results/reliability/*.json', reliability),
    'scale': ('docs/results/scale/*.json', scale),
    'billion': ('docs/results/scale/*.json and docs/results/speed/gpu/*.json', billion),
    'training': ('docs/results/speed/gpu/*.json', training),
    'sharding': ('vit_backbones/benchmark/projection.py', sharding),
    'versions': ('docs/results/versions/matrix.json', versions),
}


def marks(name: str) -> tuple[str, str]:
    """The lines before and behind a table."""
    start = f'<!-- {name}: written by docs/tables.py from {BLOCKS[name][0]} -->'
    return start, f'<!-- end of {name} -->'


def with_tables(text: str) -> str:
    """A file's text with its tables written anew."""
    for name, (_, write) in BLOCKS.items():
        start, end = marks(name)
        if start in text:
            head, rest = text.split(start)
            text = f'{head}{start}\n{write()}\n{end}{rest.split(end)[1]}'
    return text


def old() -> dict[Path, str]:
    """The text with new tables of each file whose tables are old."""
    texts = {path: with_tables(path.read_text()) for path in FILES}
    return {path: text for path, text in texts.items() if text != path.read_text()}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Write the tables of the README and the manual.')
    actions = parser.add_subparsers(dest='action')
    actions.add_parser('check', help='name files with old tables')
    adding = actions.add_parser('add', help='a run, first')
    adding.add_argument('work_dir', type=Path)
    for name in ('config', 'data', 'metric', 'hardware'):
        adding.add_argument(f'--{name}', required=True)
    adding.add_argument('--options', default='', help="others of the command: --options='--amp'")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Add a run or only check if asked, else write the tables; gives the exit code."""
    noted = vars(parse_args(argv))
    action = noted.pop('action')
    if action == 'add':
        run = result(noted.pop('work_dir'), **noted)
        path = DOCS / f'results/{Path(run["config"]).stem}.json'
        path.write_text(json.dumps(run, indent=2) + '\n')
    stale = old()
    for path, text in stale.items():
        if action == 'check':
            print(f'tables are old: {path.relative_to(DOCS.parent)}; run python docs/tables.py')
        else:
            path.write_text(text)
    return int(action == 'check' and bool(stale))


if __name__ == '__main__':
    sys.exit(main())
