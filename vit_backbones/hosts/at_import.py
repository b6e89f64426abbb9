"""Change modules of others right after they are imported."""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

Mends = dict[str, Callable[[ModuleType], None]]


def mend(mends: Mends) -> None:
    """Mend the modules named as they are imported, or now; again with the same changes nothing."""
    if any(isinstance(finder, _Mender) and finder.mends is mends for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Mender(mends))
    for name, change in mends.items():
        if name in sys.modules:
            change(sys.modules[name])


class _Mender(importlib.abc.MetaPathFinder):
    """Runs the mend of a module after the module."""

    def __init__(self, mends: Mends) -> None:
        self.mends = mends

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        change = self.mends.get(name)
        spec = PathFinder.find_spec(name, path, target) if change else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_mend(module: ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = run_and_mend
        return spec
