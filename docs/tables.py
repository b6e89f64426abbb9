r"""Tables of the README, from the records of runs: `python docs/tables.py` writes them.

    python docs/tables.py add work_dirs/mine --config configs/upernet/upernet_vit-ti_camvid.py \
        --data 'CamVid val' --metric mIoU --hardware '1 core of an AMD EPYC'

makes a file of docs/results out of the work dir's `record.json`, and `test.json` where there is one
(the speed of a test that had the machine for itself), and writes the tables anew. Keys of a result:
`config`, `data`, `metric`, `value` (0 to 1, of the last validation), `parameters`, `minutes` (of
training, wall), `peak_memory_mib`, `images_per_second` (of inference), `hardware`, `date` and
`command`. `docs/results/models/timm.json` is the walk of `tools/check_models.py`,
`docs/results/speed/targets.json` and the files of `docs/results/quality` are the `--out` of
`tools/benchmark.py targets` and `quality`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vit_backbones.benchmark.results import markdown, of_work_dir, ordered

DOCS = Path(__file__).resolve().parent
sys.path.append(str(DOCS.parent / 'tools'))
from _targets import HEADING, goal_row  # noqa: E402

README = DOCS.parent / 'README.md'
RESULTS = (
    '<!-- results: written by docs/tables.py from docs/results/*.json -->',
    '<!-- end of results -->',
)
TARGETS = (
    '<!-- targets: written by docs/tables.py from docs/results/speed/targets.json -->',
    '<!-- end of targets -->',
)
QUALITY = (
    '<!-- quality: written by docs/tables.py from docs/results/quality/*.json -->',
    '<!-- end of quality -->',
)
MODELS = (
    '<!-- models: written by docs/tables.py from docs/results/models/timm.json -->',
    '<!-- end of models -->',
)
# What the configs read their data and weights from
_VARIABLES = {'camvid': 'CAMVID_ROOT=... VIT_TINY=... ', 'nuclei': 'NUCLEI_ROOT=... VIT_TINY=... '}


def result(work_dir: Path, **told: Any) -> dict[str, Any]:
    """A run's entry in docs/results.

    Args:
        work_dir: Where `tools/train.py` trained, and `tools/test.py` tested if it did.
        **told: `config`, `data`, `metric` as the evaluator spells it, and `hardware`.
    """
    record = json.loads((work_dir / 'record.json').read_text())
    if Path(record['config']).stem != Path(told['config']).stem:
        raise SystemExit(f'{work_dir} is of {record["config"]}, not of {told["config"]}')
    run = next(run for run in of_work_dir(work_dir) if run['metric'] == told['metric'])
    variables = next((v for data, v in _VARIABLES.items() if data in told['config']), '')
    return run | told | dict(command=f'{variables}python tools/train.py {told["config"]}')


def table(results: Path = DOCS / 'results') -> str:
    """The rows of all runs as Markdown, by data and metric."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob('*.json'))]
    commands = [run['command'] for run in ordered(runs)]
    return '\n'.join([markdown(runs), '', '```bash', *dict.fromkeys(commands), '```'])


def targets(file: Path = DOCS / 'results/speed/targets.json') -> str:
    """What the package promises of its speed, and what `make bench` measured."""
    told = json.loads(file.read_text())
    where = told['environment']
    versions = ', '.join(f'{name} {version}' for name, version in where['versions'].items())
    source = f'{where["device"]}, {where["threads"]} threads, {versions}, {where["date"]}:'
    return '\n'.join([source, '', *HEADING, *map(goal_row, told['goals'])])


def quality(results: Path = DOCS / 'results/quality') -> str:
    """What `tools/benchmark.py quality` measured."""
    files = [json.loads(path.read_text()) for path in sorted(results.glob('*.json'))]
    return markdown(row for told in files for row in told['rows'])


def totals(walk: Path = DOCS / 'results/models/timm.json') -> str:
    """How many of timm's architectures work, in a sentence."""
    rows = json.loads(walk.read_text())
    works = [row for row in rows if row['status'] == 'works']
    any_size = sum(row['how'] == 'any size' for row in works)
    fails = sum(row['status'] == 'fails' for row in rows)
    share = f'{len(works) / len(rows):.1%}'
    refuses = len(rows) - len(works) - fails
    return (
        f'Of {len(rows)} transformers of timm, built small and with redrawn weights, {len(works)} '
        f'({share}) give its own features\non a rectangle and an odd size, {any_size} of them at '
        f'any size, the others built at `img_size`; {refuses} have\none size and say so, {fails} '
        f'fail: [table](docs/results/models/timm.md).'
    )


def with_tables(readme: str) -> str:
    """The README's text with what belongs between its marks."""
    blocks = (RESULTS, table()), (MODELS, totals()), (TARGETS, targets()), (QUALITY, quality())
    for (start, end), text in blocks:
        head, rest = readme.split(start)
        readme = f'{head}{start}\n{text}\n{end}{rest.split(end)[1]}'
    return readme


def main() -> None:
    """Read the command line, add a run if one is given, write the tables."""
    parser = argparse.ArgumentParser(description='Write the tables of the README.')
    adding = parser.add_subparsers(dest='action').add_parser('add', help='a run, first')
    adding.add_argument('work_dir', type=Path)
    for name in ('config', 'data', 'metric', 'hardware'):
        adding.add_argument(f'--{name}', required=True)
    told = vars(parser.parse_args())
    if told.pop('action') == 'add':
        run = result(told.pop('work_dir'), **told)
        path = DOCS / f'results/{Path(run["config"]).stem}.json'
        path.write_text(json.dumps(run, indent=2) + '\n')
    README.write_text(with_tables(README.read_text()))


if __name__ == '__main__':
    main()
