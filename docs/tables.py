"""Write the result tables of the README from docs/results/*.json: `python docs/tables.py`.

Each file is one run: `config`, `data`, `metric`, `value`, `minutes` (training, wall), `hardware`,
`date` and `command`.
"""

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / 'README.md'
START, END = (
    '<!-- results: written by docs/tables.py from docs/results/*.json -->',
    '<!-- end of results -->',
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


def with_table(readme: str, rows: str) -> str:
    """The README's text with the rows between its two marks."""
    head, rest = readme.split(START)
    return f'{head}{START}\n{rows}\n{END}{rest.split(END)[1]}'


if __name__ == '__main__':
    README.write_text(with_table(README.read_text(), table()))
