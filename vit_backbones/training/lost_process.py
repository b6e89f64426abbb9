"""Other processes that have ended, or do not answer: how it shows, and what they said last."""

import contextlib

from mmengine.dist import get_rank, is_distributed, is_main_process
from torch.distributed import DistError, Store, distributed_c10d

from vit_backbones.config.explain import describe
from vit_backbones.terminal import quiet_stream

# What gloo, NCCL and PyTorch say when another process is gone
_GONE = (
    'Connection closed by peer',
    'Connection reset by peer',
    'Broken pipe',
    'Socket closed',
    'Gloo connectFullMesh failed',
    'remote process exited',  # `ncclRemoteError`
    'NCCL communicator was aborted',
    'NCCL communicator encountered error',
)
# And when one does not answer, or answers no more because another one waited too long
_SILENT = ('Timed out waiting', 'Application timeout', 'collective operation timeout')
_WORD = 'vit_backbones/ended'  # in the store that all processes share


class LostProcessError(RuntimeError):
    """Another process of a training has ended, or does not answer."""

    of_any_process = True  # that one may have been the first, which prints


def of_others(error: BaseException) -> str | None:
    """A line, if an error only shows what happened to another process.

    The first process adds the word that the other one left, if there is one.
    """
    if not (is_distributed() and isinstance(error, RuntimeError)):
        return None
    text = str(error)
    if any(each in text for each in _GONE):
        word = _left_word()
        return 'another process has ended' + (f' ({word})' if word else '')
    if any(each in text for each in _SILENT):
        return 'another process does not answer'
    return None


def leave_word(error: BaseException) -> None:
    """Tell the others why this process ends: only the first one prints."""
    if not is_distributed() or is_main_process() or isinstance(error, LostProcessError):
        return
    word = 'interrupted' if isinstance(error, KeyboardInterrupt) else describe(error)
    # the store may be gone with the first process
    with contextlib.suppress(DistError), quiet_stream(2):
        _store().compare_set(_WORD, '', f'process {get_rank()}: {word}')


def _left_word() -> str:
    """Empty without one; the first process has the store, which is gone with it for others."""
    with contextlib.suppress(DistError):
        if is_main_process() and _store().check([_WORD]):
            return _store().get(_WORD).decode()
    return ''


def _store() -> Store:
    return distributed_c10d._get_default_store()
