"""Write the result tables of the README from docs/results: `python docs/tables.py`.

Each file `docs/results/*.json` is one run: `config`, `data`, `metric`, `value`, `minutes`
(training, wall), `hardware`, `date` and `command`. `docs/results/models/timm.json` is the walk of
`tools/check_models.py`.
"""

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / 'README.md'
RESULTS = (
    '<!-- results: written by docs/tables.py from docs/results/*.json -->',
    '<!-- end of results -->',
)
MODELS = (
    '<!-- models: written by docs/tables.py from docs/results/models/timm.json -->',
    '<!-- end of models -->',
)


def table(results: Path = DOCS / 'results') -> str:
    """The rows of all runs as Markdown, by data and metric."""
    runs = [json.loads(path.read_text()) for path in sorted(results.glob('*.json'))]
    runs.sort(key=lambda run: (run['data'], run['metric'], run['value']))
    lines = ['| config | data | metric | value | minutes | hardware | date |', '|' + '---|' * 7]
    lines += [
        f'| `{run["config"]}` | {run["data"]} | {run["metric"]} | {run["value"]:.3f} '
        f'| {run["minutes"]:.0f} | {run["hardware"]} | {run["date"]} |'
        for run in runs
    ]
    commands = [f'{run["command"]}' for run in runs]
    return '\n'.join([*lines, '', '```bash', *dict.fromkeys(commands), '```'])


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
    for (start, end), text in ((RESULTS, table()), (MODELS, totals())):
        head, rest = readme.split(start)
        readme = f'{head}{start}\n{text}\n{end}{rest.split(end)[1]}'
    return readme


if __name__ == '__main__':
    README.write_text(with_tables(README.read_text()))
