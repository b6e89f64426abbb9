"""MMEngine's runners with a calm terminal; the log file holds everything."""

import contextlib
import logging
import re
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine._strategy import BaseStrategy, FSDPStrategy
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger, print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import nn
from torch.utils.data import DataLoader

from vit_backbones.arguments import choice
from vit_backbones.checks.placed_schedules import Length, placed
from vit_backbones.checks.schedules import COME_DOWN, fitted, misfits
from vit_backbones.checks.wiring import bare
from vit_backbones.own_data.rewriting import FIRST_PART
from vit_backbones.terminal import quiet_prints
from vit_backbones.training.joining import join, shares_cpu
from vit_backbones.training.kept_checkpoint_hook import share_gradients, whole_file
from vit_backbones.training.last_checkpoint import position
from vit_backbones.training.machine import keep_own_way
from vit_backbones.training.resumable_loops import RESUMABLE
from vit_backbones.training.seeded_data import can_seed, seed_samples
from vit_backbones.training.stopping import Stop, Stopped, shield_workers

# Lines that MMEngine logs at each start or epoch and nobody needs
_NOISE = (
    'Exp name:',
    'Distributed training is not used',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'The `end` of',  # a schedule that ends with the training, as meant
    'paramwise_options -- ',  # one line a parameter
    'The prefix is not set in metric class',
    'per class results:',  # the table itself has many lines
    'Failed to search registry with scope',  # and finds it in MMEngine's own
    'Resumed iteration number is not divisible',  # `KeptCheckpointHook` keeps the gradients
)
_NOISE_AT_END = 'is skipped since its requires_grad=False'  # one line a frozen parameter


class TerminalFormatter(logging.Formatter):
    """Time and text, without the losses of auxiliary decoder layers; the log file has them all."""

    _AUXILIARY = re.compile(r'  (?:\w+\.)*d\d+\.\w+: [-\w.]+')

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        level = '' if record.levelno <= logging.INFO else f'{record.levelname.lower()}: '
        clock = self.formatTime(record, '%H:%M:%S')
        return f'{clock} {level}{self._AUXILIARY.sub("", record.getMessage())}'


def _fits_terminal(record: logging.LogRecord) -> bool:
    """Whether to show a record; dumps of many lines are only for the log file."""
    text = record.getMessage()
    noise = text.startswith(_NOISE) or text.endswith(_NOISE_AT_END)
    return not noise and (record.levelno > logging.INFO or '\n' not in text)


class _Quiet:
    """Calms the terminal of both runners of MMEngine, and lets them stop and go on."""

    is_running = False  # while set-up lasts; later errors are crashes
    is_validating = False  # between the hooks before and after
    stop = Stop()  # of nobody, unless it is entered

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """Build the evaluator; its prints go to the log file."""
        with quiet_prints():
            built = super().build_evaluator(evaluator)
        built.evaluate = quiet_prints()(built.evaluate)
        return built

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """Build a dataloader; the prints of its dataset go to the log file."""
        with quiet_prints():
            return shield_workers(Runner.build_dataloader(*args, **kwargs))

    def loader(self, split: str) -> DataLoader | None:
        """The dataloader of a split, which its loop will use; `None` where there is none."""
        if getattr(self, f'_{split}_dataloader') is None:
            return None
        if split != 'train':
            return getattr(self, f'{split}_loop').dataloader
        self._build_train_dataloader()
        return self._train_dataloader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop, one that resumes exactly; its dataloader exists already."""
        self._build_train_dataloader()
        if isinstance(loop, dict):
            kind = 'EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop'
            kind, loop = loop.get('type', kind), {k: v for k, v in loop.items() if k != 'by_epoch'}
            loop['type'] = RESUMABLE.get(kind, kind)
        return super().build_train_loop(loop)

    def _build_train_dataloader(self) -> None:
        """Build it once; hooks see it first, before an iteration-based loop starts."""
        if isinstance(self._train_dataloader, dict):
            self._train_dataloader = self.build_dataloader(
                self._train_dataloader,
                seed=self.seed,
                diff_rank_seed=self._randomness_cfg.get('diff_rank_seed', False),
            )
            if can_seed(self._train_dataloader):
                seed_samples(self._train_dataloader, self.seed, *self._position())
            self.call_hook('after_build_train_dataloader', dataloader=self._train_dataloader)
            is_sized = hasattr(self._train_dataloader.dataset, '__len__')
            length = len(self._train_dataloader) if is_sized else None
            wrapper = self.cfg.get('optim_wrapper')
            self._fit_to(Length.of(self.cfg.get('train_cfg'), length, wrapper))

    def _position(self) -> tuple[int, int]:
        """Epoch, and batches of it that are trained, where the training starts."""
        if not (self._resume and self._load_from):
            return 0, 0
        loop = self._train_loop if isinstance(self._train_loop, dict) else {}
        by_epoch = loop.get('by_epoch', 'Epoch' in str(loop.get('type')))
        return position(self._load_from, self._train_dataloader, by_epoch=by_epoch)

    def _fit_to(self, length: Length) -> None:
        """Let warm-ups, and the first part without a head, end within the training."""
        self.param_schedulers, lines = fitted(self.param_schedulers, length)
        if length.epochs is not None:  # what counts iterations was not comparable before
            counted = [n for _, n in placed(self.param_schedulers) if not n.get('by_epoch', True)]
            lines += [each.text for each in misfits(counted, length)]
        model, iters = bare(self.model), length.iters
        if iters is not None and getattr(model, 'auxiliary_iters', 0) >= iters:
            lines.append(
                f'model.auxiliary_iters={model.auxiliary_iters}: the training is no longer '
                f'({length}), and its head would not learn; it is shortened to '
                f'{iters // FIRST_PART}'
            )
            model.auxiliary_iters = iters // FIRST_PART
        for line in lines:
            print_log(line, logger='current', level=logging.WARNING)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a hook's method, and notice when set-up is over and when a validation lasts."""
        self.is_validating &= fn_name != 'after_val_epoch'
        super().call_hook(fn_name, **kwargs)
        self.is_validating |= fn_name == 'before_val_epoch'
        self.is_running |= fn_name in ('before_train', 'before_val', 'before_test')
        if fn_name == 'after_val_iter':
            self._heed_stop()

    def _heed_stop(self) -> None:
        self.stop.heed()

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, whole or not at all; sharded ones in their own way."""
        share_gradients(self)
        strategy = getattr(self, 'strategy', None)
        is_file = strategy is None or 'FULL' in str(getattr(strategy, 'state_dict_type', ''))
        whole = whole_file(Path(out_dir), filename) if is_file else contextlib.nullcontext(filename)
        with whole as draft:
            super().save_checkpoint(out_dir, draft, *args, **kwargs)


class QuietRunner(_Quiet, Runner):
    """MMEngine's runner with a calm terminal; its log file holds everything."""

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes, also without a GPU."""
        join(self.launcher, env_cfg.get('dist_cfg'))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model; without a GPU on the CPU."""
        if shares_cpu(self.launcher):
            unused = self.cfg.get('find_unused_parameters', False)
            default = dict(broadcast_buffers=False, find_unused_parameters=unused)
            model_wrapper_cfg = (model_wrapper_cfg or default) | {'device_ids': None}
        return super().wrap_model(model_wrapper_cfg, model)

    def build_optim_wrapper(self, *args: Any, **kwargs: Any) -> OptimWrapper:
        """Build the optimizer, which a checkpoint of another machine does not slow down."""
        wrapper = super().build_optim_wrapper(*args, **kwargs)
        keep_own_way(wrapper)
        return wrapper

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint, whose schedules go on as they were."""
        planned = _ends(self.param_schedulers)
        super().resume(*args, **kwargs)
        for (name, end), (_, kept) in zip(planned, _ends(self.param_schedulers), strict=False):
            if kept != end:
                print_log(
                    f'{name} of the checkpoint ends at step {kept}, and with the config it would '
                    f'at {end}: it goes on as it was, and the rate does not follow the length of '
                    f'the training; for another length start from the weights by load_from',
                    logger='current',
                    level=logging.WARNING,
                )

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; the terminal gets the short lines only."""
        return _calm(super().build_logger(*args, **kwargs))


class QuietFlexibleRunner(_Quiet, FlexibleRunner):
    """MMEngine's runner for strategies such as FSDP, likewise; its model is built at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model = self.strategy.build_model(self.model)

    def build_strategy(self, *args: Any, **kwargs: Any) -> BaseStrategy:
        """Build the strategy; the terminal gets the short lines of its log only."""
        join(kwargs.get('launcher'), (self.cfg.get('env_cfg') or {}).get('dist_cfg'))
        strategy = super().build_strategy(*args, **kwargs)
        _calm(strategy.logger)
        return strategy

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint, which need not fit into a GPU."""
        super().resume(*args, **kwargs | dict(map_location='cpu'))

    def save_checkpoint(
        self, *args: Any, meta: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Save a checkpoint of the given epoch, as `Runner` does."""
        self._meta = dict(meta or {})
        super().save_checkpoint(*args, meta=meta, **kwargs)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a hook's method."""
        if fn_name == 'before_save_checkpoint':
            # MMEngine's counts anew, and after a validation one too many
            kwargs['checkpoint']['meta'].update(self._meta)
        super().call_hook(fn_name, **kwargs)

    def _heed_stop(self) -> None:
        """Stop together: processes with shards validate together."""
        if not isinstance(self.strategy, FSDPStrategy):
            super()._heed_stop()
        elif number := self.stop.anywhere():
            raise Stopped(number)


AnyRunner = QuietRunner | QuietFlexibleRunner


def build_runner(config: Config) -> AnyRunner:
    """The runner of a config's `runner_type`; a single process runs one with FSDP as without."""
    runners = {'Runner': QuietRunner, 'FlexibleRunner': QuietFlexibleRunner}
    kind = choice('runner_type', config.get('runner_type', 'Runner'), runners)
    strategy = str((config.get('strategy') or {}).get('type'))
    if kind == 'Runner' and config.get('strategy'):
        raise ValueError(
            f"strategy={strategy} needs runner_type='FlexibleRunner', which is not set: add it"
        )
    config.setdefault('env_cfg', dict(dist_cfg=dict(backend='nccl')))  # as `Runner` has it
    if config.get('launcher', 'none') == 'none' and strategy.endswith('FSDPStrategy'):
        kind = 'Runner'
    return runners[kind].from_cfg(config)


def _ends(schedules: Any) -> list[tuple[str, int]]:
    """Name and end of the built schedules that come down to their end."""
    several = chain(*schedules.values()) if isinstance(schedules, dict) else schedules or ()
    named = [(type(each).__name__, getattr(each, 'end', None)) for each in several]
    return [(name, end) for name, end in named if name.startswith(COME_DOWN)]


def _calm(logger: MMLogger) -> MMLogger:
    terminal = logger.handlers[0]
    terminal.setFormatter(TerminalFormatter())
    terminal.addFilter(_fits_terminal)
    logging.getLogger('py.warnings').handlers[:] = logger.handlers[1:]
    return logger
