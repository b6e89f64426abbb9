"""Findings of checks: errors, which stop a training, warnings, and notes; a line each.

A check takes the facts of a config, a built model or a built dataset, and yields findings.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vit_backbones.config.explain import describe


class Finding(NamedTuple):
    """One line: a mistake with its fix (level `'error'` or `'warning'`), or a fact (`'note'`)."""

    level: str
    text: str

    def __str__(self) -> str:
        return f'{self.level}: {self.text}'


def error(text: str) -> Finding:
    """Something that breaks or spoils the training."""
    return Finding('error', text)


def warning(text: str) -> Finding:
    """Something that may harm the training, or does in some setups."""
    return Finding('warning', text)


def note(text: str) -> Finding:
    """No mistake, but what a check has found or left out."""
    return Finding('note', text)


def beside_own_data(findings: Iterable[Finding], folder: str | Path | None) -> Iterator[Finding]:
    """Findings without notes, and without warnings on files in `folder`: own data gave these.

    Without a folder there are no own data, and all findings stay.
    """
    for each in findings:
        given = each.level == 'note' or (each.level == 'warning' and str(folder) in each.text)
        if folder is None or not given:
            yield each


def caught(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings; an exception of a check, as of a value of a wrong type, is the last one."""
    try:
        yield from findings
    except Exception as raised:  # each library has its own
        yield error(describe(raised))
