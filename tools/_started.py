"""How a tool was started: by its path, or as `python -m vit_backbones NAME`."""

import re
import sys
from pathlib import Path

_NAMES = '|'.join(path.stem for path in Path(__file__).parent.glob('[!_]*.py'))
# not inside a path or quotes, which are a user's own
_COMMAND = re.compile(rf'(?<![\w./\'"-])(?:python )?tools/({_NAMES})\.py\b')


def module() -> list[str]:
    """`['-m', 'vit_backbones', NAME]` for a tool that was started so, else nothing."""
    spec = getattr(sys.modules['__main__'], '__spec__', None)
    if spec is None or spec.name != 'vit_backbones.__main__':
        return []
    return ['-m', 'vit_backbones', sys.argv[1]]


def as_typed(text: str) -> str:
    """Name the tools in a text as the user starts them: `tools/train.py`, or by the module."""
    return _COMMAND.sub(r'python -m vit_backbones \1', text) if module() else text
