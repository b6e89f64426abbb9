"""Where the weights of a backbone come from, and that they stay."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn

from vit_backbones.checkpoints import PositionTable, Report, match, read_checkpoint
from vit_backbones.checkpoints.fitting import GRID_KEY, refit
from vit_backbones.checkpoints.layouts import recognised
from vit_backbones.lora import inject, respell
from vit_backbones.sources.base import PoolingError, Source

POSITION_INTERPOLATIONS = ('timm', 'original')


class KeptWeights(BaseModule):
    """A library's model whose weights come once, from one place, and stay.

    Attributes:
        source: Adapter of the library.
        vit: The library's module.
        load_report: What was loaded from a checkpoint, in one line; `None` without one.
    """

    source: Source
    vit: nn.Module
    load_report: str | None = None
    _is_init = False

    @property
    def holds_weights(self) -> bool:
        """Whether weights were loaded, or came with the module given."""
        return self._is_init

    def apply(self, fn: Callable[[nn.Module], None]) -> 'KeptWeights':
        """Call `fn` on every module, unless it would initialise weights that were loaded.

        By this call the `init_cfg` of a parent reaches all layers below it.
        """
        initialises = getattr(fn, '__module__', None) == initialize.__module__
        return self if self._is_init and initialises else super().apply(fn)

    def init_weights(self) -> None:
        """Apply `init_cfg` once; weights that were loaded stay as they are.

        MMEngine would go on to the library's module and re-randomise it with its own
        `init_weights`; here it never does.
        """
        if self._is_init or not self.init_cfg:
            return
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        for config in configs:
            if config['type'] == 'Pretrained':
                self._load(config['checkpoint'], prefix=config.get('prefix'))
            else:
                initialize(self, config)
        self._is_init = True

    def _start(
        self,
        checkpoint: str | Path | None,
        holds_weights: bool,
        lora: Mapping[str, object] | None,
    ) -> None:
        """Load a checkpoint, if any, into the pruned model; then come the updates of LoRA."""
        if checkpoint is not None:
            self._load(checkpoint)
        self._check_interpolation()
        self._is_init = holds_weights or checkpoint is not None
        if lora is not None:
            self.init_weights()  # while layers have the names that files know
            inject(self.vit, lora)

    def _check_interpolation(self) -> None:
        """Tell where `pos_interp` has no effect."""
        if self.pos_interp == 'timm':
            return
        reason = 'resamples no table of positions here'
        if self.source.position_name(self.vit) is not None:
            ways = [self.source.interpolation(self.vit, way) for way in POSITION_INTERPOLATIONS]
            if ways[0] != ways[1]:
                return
            reason = 'resamples positions in one way only'
        print_log(
            f'{self.model_name} {reason}: pos_interp={self.pos_interp!r} changes nothing',
            logger='current',
        )

    def _positions(self) -> PositionTable | None:
        name = self.source.position_name(self.vit)
        if name is None:
            return None
        return PositionTable(
            name=name,
            shape=tuple(self.vit.get_parameter(name).shape),
            grid=self.source.grid(self.vit),
            num_prefix=self.source.num_position_prefix(self.vit),
            lacks_cls=not self.has_cls_token,
            native_size=self.source.native_size(self.vit),
            interpolation=self.source.interpolation(self.vit, self.pos_interp),
        )

    def _load(self, checkpoint: str | Path, prefix: str | None = None) -> None:
        tensors = read_checkpoint(checkpoint)
        if prefix is not None:
            prefix = prefix.removesuffix('.') + '.'
            tensors = {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
        try:
            tensors, dialect = self.source.translate(self.vit, tensors)
            report = self._match(tensors, dialect)
        except ValueError as error:
            raise ValueError(f'checkpoint {str(checkpoint)!r} {error}') from None
        if not self.allow_partial:
            try:
                report.check(str(checkpoint), '' if report.matched else self._foreign(tensors))
            except ValueError as error:  # without its pooling a file may hold too little
                kind = PoolingError if self.pool in ('attn', 'model') else ValueError
                raise kind(str(error)) from None
            lacks = [n for n in report.missing if self.pool == 'model' or 'attn_pool' in n]
            if self.pool in ('attn', 'model') and lacks:
                raise PoolingError(
                    f'pool={self.pool!r}: checkpoint {str(checkpoint)!r} has no such pooling: '
                    f'{lacks[0]} is missing'
                )
        self.vit.load_state_dict(report.matched, strict=False)
        missing = f'; missing: {", ".join(report.missing)}' if report.missing else ''
        self.load_report = f'{report}{missing}'
        level = logging.INFO if report.matched else logging.WARNING
        print_log(f'{checkpoint}: {self.load_report}', logger='current', level=level)

    def _foreign(self, tensors: dict[str, Tensor]) -> str:
        """Why nothing of a file may have matched, for sources that read their own keys alone."""
        name = recognised(tensors)
        return f'; it has {name} keys, which plain ViTs of source timm read' if name else ''

    def _match(self, tensors: dict[str, Tensor], dialect: str | None = None) -> Report:
        """Fit a checkpoint's tensors to the model; nothing is loaded yet."""
        return match(
            tensors,
            self.vit.state_dict(),
            patch_embed=self.source.patch_embed_name(),
            positions=self._positions(),
            built=self._built_names,
            convert=partial(self.source.convert, self.vit),
            dialect=dialect,
        )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Fit what depends on `img_size` in a whole model's checkpoint saved at another one.

        Raises:
            ValueError: If that cannot be done for a model of fixed size.
        """
        inside, grid = f'{prefix}vit.', prefix + GRID_KEY
        # a file without LoRA's updates, for a model that has them
        respell(state_dict, {inside + name for name in self.vit.state_dict()})
        saved = {n.removeprefix(inside): t for n, t in state_dict.items() if n.startswith(inside)}
        recorded = {GRID_KEY: state_dict[grid]} if grid in state_dict else {}
        try:
            fitted = refit(saved, self.vit.state_dict(), self._match(saved | recorded))
            state_dict.update({inside + name: tensor for name, tensor in fitted.items()})
        except ValueError as error:
            if (fixed := self.source.fixed_size(self.vit)) is not None:
                raise ValueError(
                    f'{self.model_name!r} is built for images of {fixed[0]}x{fixed[1]}, and '
                    f'{error}: build it with the img_size of the file'
                ) from None
        if hasattr(self, GRID_KEY):
            state_dict[grid] = self.position_grid
        super()._load_from_state_dict(state_dict, prefix, *args)
