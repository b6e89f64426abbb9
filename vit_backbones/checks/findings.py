"""Findings of checks: errors, which stop a training, and warnings; a line each.

A check takes the facts of a config, a built model or a built dataset, and yields findings.
"""

from typing import NamedTuple


class Finding(NamedTuple):
    """One mistake with its fix, in one line; its level is `'error'` or `'warning'`."""

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
