"""Two processes of a training, started by hand: forks of this one, which has imported all."""

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from conftest import load_tool


def free_port():
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        return bound.getsockname()[1]


class TwoProcesses:
    """`tools/train.py` without `torchrun`, in a folder, as rank 0 and 1 on the CPU.

    Args:
        folder: Where they run, and write their output.
        arguments: Of the tool.
        number: 1 for a process without others.
    """

    def __init__(self, folder, *arguments, number=2):
        self.folder, self.number, port = Path(folder), number, free_port()
        # Whoever forks must not have used threads
        self.main = load_tool('train').main
        self.pids = [self._fork(rank, port, arguments) for rank in range(number)]

    def _fork(self, rank, port, arguments):
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        code = 1
        with contextlib.suppress(BaseException):
            try:
                code = self._run(rank, port, arguments)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _run(self, rank, port, arguments):
        os.chdir(self.folder)
        for name, number in (('out', 1), ('err', 2)):
            file = os.open(f'{name}{rank}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, 'w', closefd=False) for number in (1, 2))
        torch.set_num_threads(1)
        torch.cuda.is_available = lambda: False
        if self.number == 1:
            return self.main(arguments)
        given = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=self.number, MASTER_PORT=port)
        os.environ |= {name: str(value) for name, value in given.items()}
        os.environ['MASTER_ADDR'] = '127.0.0.1'
        return self.main([*arguments, '--launcher', 'pytorch'])

    def wait(self, seconds, ranks=None):
        """Exit codes once these ended, negative for signals; `None` for one that is killed then."""
        until, codes = time.monotonic() + seconds, [None] * self.number
        ranks = range(self.number) if ranks is None else ranks
        while any(codes[rank] is None for rank in ranks) and time.monotonic() < until:
            for rank, pid in enumerate(self.pids):
                if codes[rank] is None and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    codes[rank] = os.waitstatus_to_exitcode(ended[1])
            time.sleep(0.02)
        for rank, pid in enumerate(self.pids):
            if codes[rank] is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return codes

    def said(self, rank, stream='err'):
        """Lines that a process wrote."""
        return (self.folder / f'{stream}{rank}').read_text().splitlines()
