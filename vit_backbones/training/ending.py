"""How a training or test ends that does not finish: one line, with the command to go on."""

import errno
import os
import shlex
import time
from dataclasses import dataclass, field

from vit_backbones.checks.validating import ValidationError
from vit_backbones.config.explain import describe
from vit_backbones.files import short_path
from vit_backbones.training.compiling import CompileError, compiler_line
from vit_backbones.training.feature_store import FeatureCacheError
from vit_backbones.training.last_checkpoint import find_last_checkpoint
from vit_backbones.training.lost_process import LostProcessError, leave_word, of_others
from vit_backbones.training.non_finite import NonFiniteError
from vit_backbones.training.runner import AnyRunner
from vit_backbones.training.skip_unreadable_hook import UnreadableDataError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Ending:
    """Describes what ended a training or test.

    Attributes:
        command: Continues a training; empty if it is not known, `None` for a test.
        began: Checkpoints before this time are of another training.
    """

    command: str | None
    began: float = field(default_factory=time.time)

    def described(self, error: BaseException, runner: AnyRunner | None) -> BaseException:
        """The error as users read it; a crash stays as it is, with `while_running` set."""
        described = self._described(error, runner)
        leave_word(described)
        return described

    def _described(self, error: BaseException, runner: AnyRunner | None) -> BaseException:
        if stop := _interrupt(error):
            return self._interrupted(stop, runner)
        if isinstance(error, (UnreadableDataError, NonFiniteError)):
            return error
        if runner is not None and (line := compiler_line(error, runner.model)):
            return CompileError(line)
        if runner is not None and runner.is_running:
            return self._while_running(error, runner)
        if line := of_others(error):
            return LostProcessError(f'{line} before the start')
        described = isinstance(error, (OSError, ValidationError))
        if described and not isinstance(error, BrokenPipeError):
            return error
        return ValueError(describe(error))

    def _while_running(self, error: BaseException, runner: AnyRunner) -> BaseException:
        if isinstance(error, FeatureCacheError):
            return ValueError(describe(error))
        if line := of_others(error):
            end = '' if self.command is None else f'; {self._how_to_go_on(runner)}'
            return LostProcessError(f'{line}{end}')
        if self.command is not None and isinstance(error, OSError) and error.errno in _NO_ROOM:
            place = short_path(error.filename or runner.work_dir)
            return OSError(f'{error.strerror}: {place}; {self._how_to_go_on(runner)}')
        error.while_running = True
        return error

    def _interrupted(self, stop: KeyboardInterrupt, runner: AnyRunner | None) -> KeyboardInterrupt:
        line = 'interrupted'
        if runner is None:
            line += ' before the start'
        elif self.command is not None:
            line += f'; {self._how_to_go_on(runner)}'
        described = KeyboardInterrupt(line)
        described.exit_code = getattr(stop, 'exit_code', 130)
        return described

    def _how_to_go_on(self, runner: AnyRunner) -> str:
        """The last checkpoint of this training, and the command that continues from it."""
        last = find_last_checkpoint(runner.work_dir)
        if last is None or last.stat().st_mtime < self.began:
            return 'there is no checkpoint yet: start again with the same command'
        line = f'the last checkpoint is {short_path(last)}'
        used = [name for name in runner.cfg.env_variables if name in os.environ]
        words = [*(f'{name}={shlex.quote(os.environ[name])}' for name in used), self.command]
        return f'{line}, continue with: {" ".join(words)}' if self.command else line


def _interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an exception: a bare `except` on the way may have replaced it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
