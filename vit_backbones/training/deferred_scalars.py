"""Losses stay on the device until someone reads them, so that logging waits for no iteration."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

_MOST_ROWS = 1000  # iterations that may wait
_LEAST = 1024  # values that a history has room for


class _Waiting:
    """Values on the device, and the buffers that they belong to: one copy brings all of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[Sequence[DeferredBuffer], Tensor]] = []

    def add(self, buffers: Sequence['DeferredBuffer'], values: Tensor) -> None:
        """Let a value, (N,) in all, wait for each of N buffers."""
        if len(self.rows) >= _MOST_ROWS or (self.rows and self.rows[0][1].device != values.device):
            self.fetch()
        self.rows.append((buffers, values))
        for buffer in buffers:
            buffer.number_waiting += 1

    def fetch(self) -> None:
        """Copy all to their buffers, in their order."""
        if not self.rows:
            return
        rows, self.rows = self.rows, []
        values = iter(torch.cat([values for _, values in rows]).tolist())
        news: dict[DeferredBuffer, list[float]] = defaultdict(list)
        for buffers, _ in rows:
            for buffer in buffers:
                news[buffer].append(next(values))
        for buffer, new in news.items():
            buffer.extend(new)


class _Growing:
    """An array to which a value is added in the same time whatever its length."""

    def __init__(self, values: np.ndarray) -> None:
        self.array = self._held = np.asarray(values)  # the first is a view of the second
        self._start = 0  # of the view

    def extend(self, values: Sequence[float], most: int) -> None:
        """Add values at the end, and leave out the oldest beyond the most."""
        new = np.asarray(values)
        stop, end = self._start + len(self.array), self._start + len(self.array) + len(new)
        kind = np.result_type(self._held, new)
        if end > len(self._held) or kind != self._held.dtype:
            held = np.empty(max(2 * (len(self.array) + len(new)), _LEAST), kind)
            held[: len(self.array)] = self.array
            self._held, self._start, stop, end = held, 0, len(self.array), end - self._start
        self._held[stop:end] = new
        self._start = max(self._start, end - most)
        self.array = self._held[self._start : end]


class DeferredBuffer(HistoryBuffer):
    """MMEngine's history of a scalar, whose newest values may still lie on the device.

    MMEngine's copies all of it for each value, which takes 4 ms after 200,000 iterations. Whoever
    reads it waits for the values, and copies and checkpoints are MMEngine's own class.
    """

    def __init__(self, waiting: _Waiting, held: HistoryBuffer | None) -> None:
        self._waiting, self.number_waiting = waiting, 0
        values, counts = held.data if held else (np.zeros(0), np.zeros(0, np.int64))
        super().__init__(values, counts, *([held.max_length] if held else []))

    @property
    def _log_history(self) -> np.ndarray:
        self._fetch()
        return self._values.array

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._values = _Growing(values)

    @property
    def _count_history(self) -> np.ndarray:
        self._fetch()
        return self._counts.array

    @_count_history.setter
    def _count_history(self, counts: np.ndarray) -> None:
        self._counts = _Growing(counts)

    def _fetch(self) -> None:
        if self.number_waiting:
            self._waiting.fetch()

    def update(self, log_val: float, count: float = 1) -> None:
        """Append a value."""
        if not (isinstance(log_val, (int, float)) and isinstance(count, (int, float))):
            super().update(log_val, count)  # which refuses it
        self._fetch()
        self._values.extend([log_val], self.max_length)
        self._counts.extend([count], self.max_length)

    def extend(self, values: Sequence[float]) -> None:
        """Append the values that waited, each counted once."""
        self.number_waiting = 0
        self._values.extend(values, self.max_length)
        self._counts.extend([1] * len(values), self.max_length)

    def __reduce_ex__(self, protocol: int) -> Any:
        plain = HistoryBuffer(self._log_history, self._count_history, self.max_length)
        return plain.__reduce_ex__(protocol)


def keep_scalars(hub: MessageHub, scalars: Mapping[str, Any]) -> None:
    """Add numbers to a message hub as `update_scalar` does, without waiting for the device."""
    waiting = _waiting(hub)
    buffers, values = [], []
    for key, value in scalars.items():
        if not _can_wait(value) or (values and values[0].device != value.device):
            hub.update_scalar(key, value)
            continue
        hub._set_resumed_keys(key, True)
        if type(hub.log_scalars.get(key)) is not DeferredBuffer:
            hub.log_scalars[key] = DeferredBuffer(waiting, hub.log_scalars.get(key))
        buffers.append(hub.log_scalars[key])
        values.append(value)
    if values:
        with torch.no_grad():
            waiting.add(
                buffers, torch.stack([each.reshape(()) if each.dim() else each for each in values])
            )


def _can_wait(value: Any) -> bool:
    """Whether a value is a number that other types of floats hold exactly."""
    return isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's `RuntimeInfoHook`, which waits for losses only when they are read.

    MMEngine's copies each loss, and the norm of the gradients, to the host in every iteration; a
    GPU then has nothing to do. Here one copy brings those of all iterations since the last one:
    for a line of the log, a checkpoint, or a hook that reads the message hub, which all get the
    same values as before. Hooks that look at the losses of each iteration, as mmdet's
    `CheckInvalidLossHook`, get them as always.
    """

    def before_train(self, runner: Runner) -> None:
        """Note the training's state, and let the norm of the gradients wait too."""
        super().before_train(runner)
        keep_norm(runner.optim_wrapper)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Note the losses."""
        scalars = {f'train/{name}': value for name, value in (outputs or {}).items()}
        keep_scalars(runner.message_hub, scalars)
        replace_histories(runner.message_hub)


def replace_histories(hub: MessageHub) -> None:
    """Let those of MMEngine's own scalars, such as the time, grow as ours do."""
    for key, held in hub.log_scalars.items():
        if type(held) is HistoryBuffer:
            hub.log_scalars[key] = DeferredBuffer(_waiting(hub), held)


def _waiting(hub: MessageHub) -> _Waiting:
    return vars(hub).setdefault('waiting', _Waiting())


def keep_norm(wrapper: OptimWrapper) -> None:
    """Let an optimizer note the norm of the gradients that it clips without waiting for it."""
    if getattr(wrapper, 'clip_func', None) is nn.utils.clip_grad_norm_:
        wrapper.clip_func = partial(_clip, wrapper)


def _clip(wrapper: OptimWrapper, parameters: Sequence[nn.Parameter], **given: Any) -> None:
    """Clip, and note the norm here: MMEngine would wait for it."""
    wrapper.clipped_norm = nn.utils.clip_grad_norm_(parameters, **given)
    keep_scalars(wrapper.message_hub, {f'train/{wrapper.grad_name}': wrapper.clipped_norm})
