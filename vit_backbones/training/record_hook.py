"""Record time, memory and metrics of a training in one JSON file, the source of all tables."""

import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from vit_backbones.checks.resuming import RECORD, described_optimizer
from vit_backbones.files import write_whole
from vit_backbones.training.curves_hook import validations

# Keys in the message hub, and so in every checkpoint
_SECONDS, _PEAK, _RESUMED = 'trained_seconds', 'peak_memory', 'resumed_at'
_TOGETHER = 20  # iterations, as many as between two lines of the recipes' logs
_PACKAGES = ('vit_backbones', 'torch', 'timm', 'mmengine', 'mmdet', 'mmseg')


@HOOKS.register_module()
class RecordHook(Hook):
    """Write `record.json` into the work dir at the end of a training, `test.json` after a test.

    Both have `config`, `date`, `device`, `versions`, `parameters`, `trained_parameters` and
    `peak_memory_mib` (allocated on the GPU, else of the process without its workers). A training
    adds `minutes`, validations included, `train_images_per_second`, `val_images_per_second`,
    `validations`, as `training.curves_hook.validations` gives them, and `resumed_at`, the
    iterations after which it was resumed; a test adds `test_images_per_second` and `metrics`.
    Images per second are those of the median iteration (on a GPU of the median 20), with data
    loading, in all processes. Minutes, memory and validations include those before a resume.
    Checkpoints get the names of the parameters that learn, which a resume compares.
    """

    def __init__(self) -> None:
        self._peak = 0

    def before_train(self, runner: Runner) -> None:
        """Start the clock where a resumed training left it."""
        hub = runner.message_hub
        self._start = time.monotonic() - hub.get_info(_SECONDS, 0.0)
        self._peak = hub.get_info(_PEAK, 0)
        if runner.iter > 0:
            hub.update_info(_RESUMED, [*hub.get_info(_RESUMED, []), runner.iter])

    def _after_iter(self, runner: Runner, *args: Any, mode: str = 'train', **kwargs: Any) -> None:
        """Note the memory, and in a training the time, for the next checkpoint."""
        self._peak = max(self._peak, _memory())  # MMEngine starts a GPU's anew at each line it logs
        if mode == 'train':
            seconds = time.monotonic() - self._start
            runner.message_hub.update_info_dict({_SECONDS: seconds, _PEAK: self._peak})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note the optimizer's parameters, which its state only numbers."""
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        if optimizer is not None:  # several have none
            checkpoint['meta'][RECORD] = described_optimizer(runner.model, optimizer)

    def after_train(self, runner: Runner) -> None:
        """Write `record.json`."""
        minutes = round((time.monotonic() - self._start) / 60, 2)
        speeds = _speed(runner, 'train') | _speed(runner, 'val')
        more = dict(validations=validations(runner))
        more['resumed_at'] = runner.message_hub.get_info(_RESUMED, [])
        self._write(runner, 'record.json', minutes=minutes, **speeds, **more)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write `test.json`."""
        self._write(runner, 'test.json', **_speed(runner, 'test'), metrics=metrics)

    def _write(self, runner: Runner, name: str, **more: Any) -> None:
        if not is_main_process():
            return
        every, trained = num_parameters(runner.model)
        record = dict(
            config=runner.cfg.filename,
            date=datetime.now(UTC).date().isoformat(),
            device=device_name(),
            versions={e: sys.modules[e].__version__ for e in _PACKAGES if e in sys.modules},
            parameters=every,
            trained_parameters=trained,
            peak_memory_mib=round(max(self._peak, _memory()) / 2**20),
            **more,
        )
        content = json.dumps(_plain(record), indent=2, allow_nan=False) + '\n'
        write_whole(Path(runner.work_dir) / name, content.encode())


def _plain(value: Any) -> Any:
    """The value in types of JSON; a number that JSON lacks, such as NaN, becomes `None`."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    try:
        return float(value) if math.isfinite(value) else None
    except (TypeError, ValueError):  # arrays, objects
        return str(value)


def _speed(runner: Runner, split: str) -> dict[str, float]:
    """Images per second in the median iteration, if there was one."""
    times = runner.message_hub.log_scalars.get(f'{split}/time')
    loader = getattr(getattr(runner, f'{split}_loop'), 'dataloader', None)
    batch = getattr(getattr(loader, 'batch_sampler', None), 'batch_size', None)
    if times is None or batch is None:
        return {}
    images = batch * get_world_size()
    return {f'{split}_images_per_second': round(images / _iteration_time(times.data[0]), 3)}


def _iteration_time(times: Sequence[float]) -> float:
    """The median; on a GPU that of 20 iterations, since Python does not wait for each."""
    length = _TOGETHER if torch.cuda.is_available() and len(times) >= 2 * _TOGETHER else 1
    starts = range(0, len(times) - length + 1, length)
    return statistics.median(sum(times[i : i + length]) / length for i in starts)


def _memory() -> int:
    """Peak in bytes: allocated on the GPU, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == 'darwin' else 2**10  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """How many a model has, and how many of them are trained."""
    # Shards of FSDP know the whole shape
    sizes = [
        (getattr(each, 'whole_shape', each.shape).numel(), each.requires_grad)
        for each in model.parameters()
    ]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def device_name() -> str:
    """Name of the GPU or the CPU, with the number of processes and threads."""
    processes = get_world_size()
    if torch.cuda.is_available():
        return f'{processes} x {torch.cuda.get_device_name()}'
    return f'{cpu_name()}, {processes} x {torch.get_num_threads()} threads'


def cpu_name() -> str:
    """Model of the CPU, or its architecture if the system does not name it."""
    cpu = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.is_file():
        lines = info.read_text().splitlines()
        cpu = next((each.split(': ')[1] for each in lines if each.startswith('model name')), cpu)
    return cpu
