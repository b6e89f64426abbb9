"""Two warm-ups, first of the new parameters, then of the ViT, and a polynomial decay of both.

Source: https://github.com/tue-mps/eomt (MIT), `training/two_stage_warmup_poly_schedule.py`.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from vit_backbones.arguments import positive

IN_VIT = 'in_vit'  # the mark of a parameter group


@PARAM_SCHEDULERS.register_module()
class TwoStageWarmupPolyLR(LRSchedulerMixin, _ParamScheduler):
    """Learning rates of EoMT: two warm-ups, then a polynomial decay to 0 with the last update.

    New parameters rise linearly from 0 in the first warm-up. Those of the ViT stay at 0 during it
    and rise in the second one. Each group then decays over all updates that it has left. Steps are
    updates of the optimizer: `accumulative_counts` iterations each.

    Examples:
        >>> param_scheduler = [
        ...     dict(type='TwoStageWarmupPolyLR', by_epoch=False, warmup=(500, 1000)),
        ... ]

    Args:
        optimizer: With groups of `EoMTOptimWrapperConstructor`.
        warmup: Lengths of both warm-ups, in updates; in epochs with `convert_to_iter_based=True`.
        warmup_ratio: In its place, the parts of the training that they take.
        power: Of the polynomial.
        begin, end, last_step, by_epoch, verbose: As MMEngine's. `end` is that of the training.

    Raises:
        ValueError: Without one of `warmup` and `warmup_ratio`, without an `end`, and for groups
            that do not say whether they are of a ViT.
    """

    def __init__(
        self,
        optimizer: Any,
        warmup: Sequence[float] | None = None,
        warmup_ratio: Sequence[float] | None = None,
        power: float = 0.9,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not any(IN_VIT in group for group in optimizer.param_groups):
            raise ValueError(
                "TwoStageWarmupPolyLR needs optim_wrapper.constructor='EoMTOptimWrapperConstructor'"
                ', which marks the groups of the ViT'
            )
        if end == INF:
            raise ValueError('TwoStageWarmupPolyLR needs an end, in iterations of the training')
        self.power = positive('power', power)
        self.accumulated = 1 if by_epoch else getattr(optimizer, '_accumulative_counts', 1)
        self.total = max(1, (end - begin) // self.accumulated)
        self.warmup = _lengths(warmup, warmup_ratio, self.total)
        # The last group of MMEngine's wrapper is no group, but holds the base rate
        self.is_in_vit = [group.get(IN_VIT, False) for group in optimizer.param_groups]
        super().__init__(optimizer, begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: Any,
        *,
        epoch_length: int,
        warmup: Sequence[float] | None = None,
        begin: float = 0,
        end: float = INF,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> 'TwoStageWarmupPolyLR':
        """Build it from lengths in epochs."""
        if not by_epoch:
            raise ValueError('convert_to_iter_based=True needs by_epoch=True')
        if warmup is not None:
            each = getattr(optimizer, '_accumulative_counts', 1)
            warmup = [int(length * epoch_length) // each for length in warmup]
        end = end if end == INF else int(end * epoch_length)
        begin = int(begin * epoch_length)
        return cls(optimizer, warmup, begin=begin, end=end, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        update = self.last_step // self.accumulated
        factors = {of_vit: self._factor(update, of_vit) for of_vit in (False, True)}
        pairs = zip(self.base_values, self.is_in_vit, strict=True)
        return [value * factors[of_vit] for value, of_vit in pairs]

    def _factor(self, update: int, of_vit: bool) -> float:
        """What an update multiplies the rates by."""
        first, second = self.warmup
        start, length = (first, second) if of_vit else (0, first)
        if update < start:
            return 0.0
        if update < start + length:
            return (update - start) / length
        done = update - start - length
        left = max(1, self.total - start - length)
        return max(0.0, 1 - done / left) ** self.power


def _lengths(
    warmup: Sequence[float] | None, ratio: Sequence[float] | None, total: int
) -> tuple[float, float]:
    """Both warm-ups in updates."""
    if (warmup is None) == (ratio is None):
        raise ValueError(
            f'TwoStageWarmupPolyLR takes one of warmup and warmup_ratio, got {warmup} and {ratio}'
        )
    name, given = ('warmup', warmup) if ratio is None else ('warmup_ratio', ratio)
    is_numbers = isinstance(given, Sequence) and all(isinstance(e, (int, float)) for e in given)
    if not is_numbers or len(given) != 2 or min(given) < 0 or (ratio and sum(ratio) >= 1):
        below = ', below 1 together' if ratio else ''
        raise ValueError(f'{name} is two numbers of at least 0{below}, got {given!r}')
    first, second = (e if ratio is None else int(e * total) for e in given)
    return first, second
