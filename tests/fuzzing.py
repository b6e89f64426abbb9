"""Many drawn inputs for a function: each works within its law, or is refused in one line.

A refusal is an exception that the package itself raises with a `raise` statement; what Python or a
library raises by itself, for a value that nobody checked, is a fault. All draws run, and all kinds
of faults are reported, each with its shortest input.
"""

import linecache
import math
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from vit_backbones.readout import PoolingError
from vit_backbones.terminal import quiet_log

HOUSE = str(Path(__file__).parents[1])
REFUSALS = {ValueError, TypeError, FileNotFoundError, PoolingError}
FEW, MANY = 100, 2000  # draws in the suite, and in the slow tests
PATIENCE = 20  # seconds of the CPU for one draw


class Fuzz:
    """Draws, their fates, and the faults among them; an attempt may name a fate of its own."""

    def __init__(self, attempt, refusals=()):
        self.attempt, self.refusals = attempt, {*REFUSALS, *refusals}
        self.fates, self.faults, self.slowest = Counter(), {}, 0.0

    def run(self, strategy, *, slow=False):
        """Draw, check, print the fates, give the faults; the same inputs unless `slow`."""
        chosen = int(os.environ.get('FUZZ_SEED', random.SystemRandom().randrange(2**32)))
        number = int(os.environ.get('FUZZ_DRAWS', MANY)) if slow else FEW
        options = dict(max_examples=number, deadline=None, derandomize=not slow)
        start, each = time.perf_counter(), given(strategy)(self._once)
        each = settings(**options, database=None, suppress_health_check=list(HealthCheck))(each)
        with quiet_log():
            (seed(chosen)(each) if slow else each)()
        seconds = time.perf_counter() - start
        drawn, worked = self.fates.total(), self.fates['worked']
        print(f'\n{drawn} draws' + (f', FUZZ_SEED={chosen}' if slow else ''), end=': ')
        print(', '.join(f'{number} {fate}' for fate, number in self.fates.most_common()), end='; ')
        print(f'{drawn / seconds:.0f} draws/s, slowest {self.slowest:.1f} s')
        few = [f'only {worked} of {drawn} draws worked'] if worked < 0.3 * drawn else []
        return [*self.faults.values(), *few]

    def _once(self, drawn):
        start = time.process_time()
        try:
            fate = self.attempt(drawn) or 'worked'
        except Exception as error:
            fate = type(error).__name__
            if complaint := self._complaint(error):
                fate = 'fault'
                self._note(complaint, drawn)
        seconds = time.process_time() - start
        self.slowest = max(self.slowest, seconds)
        if seconds > PATIENCE:
            self._note(f'{seconds:.0f} s', drawn)
        self.fates[fate] += 1

    def _note(self, complaint, drawn):
        kind = re.sub(r'[\d\W]', '', complaint[:60]) + complaint.rpartition(' at ')[2]
        shown = f'{complaint}\n    {repr(drawn)[:1000]}'
        self.faults[kind] = min(self.faults.get(kind, shown), shown, key=len)

    def _complaint(self, error):
        """Why an exception is no refusal, and where it comes from; '' for a refusal."""
        frames, trace = [], error.__traceback__
        while trace:
            frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
            trace = trace.tb_next
        inner = next(f for f in reversed(frames) if f[0].startswith(HOUSE))
        where = f' at {inner[0].removeprefix(HOUSE)}:{inner[1]}'
        text = f'{type(error).__name__}: {str(error)[:300]!r}{where}'
        raised = linecache.getline(*frames[-1]).strip().startswith('raise')
        if type(error) not in self.refusals or frames[-1] != inner or not raised:
            return text
        if '\n' in str(error).strip() or not str(error) or '/tests/' in inner[0]:
            return f'no line: {text}'
        return ''


def is_finite(tensor):
    """Whether all values are numbers."""
    return bool(torch.isfinite(tensor).all())


class Nothing:
    """A value of no type that anything takes."""

    def __repr__(self):
        return 'Nothing()'


def one(*values):
    """One of some values."""
    return st.sampled_from(values)


NONSENSE = one(
    *(None, True, False, -1, 0, 2.5, math.nan, math.inf, 10**30, -(10**30), 1e308, 3 + 0j),
    *('x', '', 'x\ny', b'8', '../no', [], [4, 'x'], (), (8, 8), [[8]], [8, None, 8, 8], [math.nan]),
    *({}, {8: 8}, dict(type='x'), Nothing(), torch.ones(2), Path('no.pth'), 'no.pth', range(2)),
)
