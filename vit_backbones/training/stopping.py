"""Ctrl-C and SIGTERM while a model trains: first the iteration ends and is saved, then it stops."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import is_distributed, is_main_process
from torch import distributed
from torch.utils.data import DataLoader

_LINE = b'stopping: this iteration ends and is saved first; once more stops at once\n'
_ONCE = 2.0  # seconds in which torchrun may pass on a signal that came already
_AT_MOST = 25.0  # seconds after which a process that waits for others ends; torchrun kills after 30
_LOOKS = 1.0  # seconds between two looks of a worker for its parent


class Stopped(KeyboardInterrupt):
    """A training was stopped by a signal, of which the exit code shows the number.

    `at_once` if it was the second one, after which nothing is saved.
    """

    def __init__(self, number: int, *, at_once: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.at_once = at_once
        self.exit_code = 128 + number


class Stop:
    """Notes the first Ctrl-C or SIGTERM while it is entered; the second raises `Stopped`."""

    def __init__(self) -> None:
        self.signal = 0
        self._noted_at = 0.0
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> 'Stop':
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *args: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal:
            if is_distributed() and now - self._noted_at < _ONCE:
                return
            raise Stopped(number, at_once=True)
        self.signal, self._noted_at = number, now
        if is_main_process():
            os.write(2, _LINE)  # a print may be under way
        if is_distributed():  # others may have ended, for whom PyTorch would wait
            self._timer = threading.Timer(_AT_MOST, os._exit, (128 + number,))
            self._timer.daemon = True
            self._timer.start()

    def heed(self) -> None:
        """Raise `Stopped` if this process was asked to stop."""
        if self.signal:
            raise Stopped(self.signal)

    def anywhere(self) -> int:
        """The signal that any process got, 0 without; all processes call it together.

        They agree on the CPU, so that no GPU is waited for.
        """
        if not is_distributed():
            return self.signal
        if self._group is None:
            nccl = distributed.get_backend() != 'gloo'
            self._group = distributed.new_group(backend='gloo') if nccl else distributed.group.WORLD
        number = torch.tensor(self.signal)
        distributed.all_reduce(number, distributed.ReduceOp.MAX, self._group)
        if self._timer and number:
            self._timer.cancel()  # they live, and saving takes its time
        return int(number)


def shield_workers(loader: DataLoader) -> DataLoader:
    """Let only this process end the workers of a dataloader.

    A terminal sends Ctrl-C, and a cluster SIGTERM, to all processes; a batch could not be finished
    without them. They end with this process in any case.
    """
    loader.worker_init_fn = functools.partial(_start, loader.worker_init_fn)
    return loader


def _start(init: Callable[[int], None] | None, worker_id: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigtimedwait'):  # macOS lacks it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if init is not None:
        init(worker_id)


def _end_with(parent: int) -> None:
    """End once the parent sends SIGTERM or is gone.

    PyTorch's workers look for the latter themselves, and then wait for ever to hand over a batch
    that is larger than a pipe holds.
    """
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, _LOOKS)
        if sent is not None and sent.si_pid == parent:
            break
    os._exit(0)
