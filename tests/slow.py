"""Which cases of a test run in the suite, and which with `-m slow` only."""

import pytest


def few(cases, *kept):
    """The cases; those that are not `kept` are slow. Tuples are kept by their first value."""

    def is_kept(case):
        return (case[0] if isinstance(case, tuple) else case) in kept

    cases = list(cases)
    missing = set(kept) - {case[0] if isinstance(case, tuple) else case for case in cases}
    assert not missing, missing
    return [each if is_kept(each) else _slow(each) for each in cases]


def _slow(case):
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
