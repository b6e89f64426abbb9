"""The command that continues a training."""

import os
import shlex
import sys
from collections.abc import Sequence

from _started import module


def resume_command(tool: str, argv: Sequence[str], resume: str | None) -> str:
    """The command that continues a training by a tool from its last checkpoint."""
    words = ['auto' if resume and word == resume else word for word in argv]
    words = ['--resume=auto' if word.startswith('--resume=') else word for word in words]
    python = [_shown(sys.executable)]
    if processes := os.environ.get('LOCAL_WORLD_SIZE'):
        python += ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
    words += [] if resume else ['--resume']
    return shlex.join([*python, *(module() or [_shown(tool)]), *words])


def _shown(program: str) -> str:
    """A path as a user types it: from the current folder, or whole where it lies elsewhere."""
    relative = os.path.relpath(program)
    return os.path.abspath(program) if relative.startswith(os.pardir) else relative
