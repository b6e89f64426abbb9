"""The weights of a backbone: from one place, loaded once, and kept."""

import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn

from vit_backbones.arguments import flag
from vit_backbones.checkpoints import PositionTable, Report, match, read_checkpoint
from vit_backbones.checkpoints.fitting import GRID_KEY, RECORDS, refit
from vit_backbones.checkpoints.layouts import recognised
from vit_backbones.checkpoints.origin import UNKNOWN, without_record
from vit_backbones.lora import respell
from vit_backbones.readout import PoolingError
from vit_backbones.sources.base import POSITION_INTERPOLATIONS, Source


class Weights:
    """Loads the weights of a library's model, and knows whether it has them (`came`).

    Like an adapter it holds no tensors: methods take the library's module, which wrappers (EMA
    copies, FSDP) may replace. It is made before anything is removed from the module.
    """

    def __init__(
        self,
        source: Source,
        model_name: str,
        vit: nn.Module,
        pool: str | None = None,
        allow_partial: bool = False,
    ) -> None:
        self.came: bool = False
        self.report: str | None = None  # summary of the loaded checkpoint in one line
        self.remark: str | None = None  # a warning on weights that fit, but may belong elsewhere
        self._source, self._model_name = source, model_name
        self._built = frozenset(vit.state_dict())
        self._pool, self._allow_partial = pool, flag('allow_partial', allow_partial)

    def start(
        self, vit: nn.Module, checkpoint: str | Path | None, pos_interp: str, *, came: bool
    ) -> None:
        """Load the checkpoint of the arguments, if any; `came` if the module has weights."""
        if checkpoint is not None:
            self.load(vit, checkpoint, pos_interp)
        elif came:
            self._warn(vit, None)
        self._check_interpolation(vit, pos_interp)
        self.came = came or checkpoint is not None

    def initialise(self, backbone: BaseModule, vit: nn.Module, pos_interp: str) -> None:
        """Apply the `init_cfg` of the backbone once, unless weights were loaded."""
        if self.came or not backbone.init_cfg:
            return
        configs = backbone.init_cfg if isinstance(backbone.init_cfg, list) else [backbone.init_cfg]
        for config in configs:
            if config['type'] == 'Pretrained':
                self.load(vit, config['checkpoint'], pos_interp, config.get('prefix'))
            else:
                initialize(backbone, config)
        self.came = True

    def load(
        self, vit: nn.Module, checkpoint: str | Path, pos_interp: str, prefix: str | None = None
    ) -> None:
        """Load a checkpoint, or its part below `prefix`; a `ValueError` if it does not fit."""
        tensors = read_checkpoint(checkpoint)
        if prefix is not None:
            prefix = prefix.removesuffix('.') + '.'
            size, beside = len(prefix), prefix.removesuffix('vit.')
            records = {n: tensors[beside + n] for n in RECORDS if beside + n in tensors}
            tensors = {n[size:]: t for n, t in tensors.items() if n.startswith(prefix)} | records
        tensors, recorded = without_record(tensors)
        layout = (recognised(tensors) or UNKNOWN) if recorded is None else recorded
        self._source.follow_layout(vit, layout)
        keys = frozenset(tensors)
        try:
            tensors, layout = self._source.translate(vit, tensors)
            report = self._match(vit, tensors, pos_interp, layout)
        except ValueError as error:
            raise ValueError(f'checkpoint {str(checkpoint)!r} {error}') from None
        if not self._allow_partial:
            self._check(report, str(checkpoint), tensors)
        vit.load_state_dict(report.matched, strict=False)
        missing = f'; missing: {", ".join(report.missing)}' if report.missing else ''
        self.report = f'{report}{missing}'
        level = logging.INFO if report.matched else logging.WARNING
        print_log(f'{checkpoint}: {self.report}', logger='current', level=level)
        self._warn(vit, checkpoint, keys)

    def fit_state_dict(
        self, vit: nn.Module, state_dict: dict[str, Tensor], prefix: str, pos_interp: str
    ) -> None:
        """Fit the tensors below `prefix` + `'vit.'`, saved at another `img_size`, in place."""
        inside, grid, own = f'{prefix}vit.', prefix + GRID_KEY, vit.state_dict()
        # a file without LoRA's updates, for a model that has them
        respell(state_dict, {inside + name for name in own})
        saved = {n.removeprefix(inside): t for n, t in state_dict.items() if n.startswith(inside)}
        recorded = {GRID_KEY: state_dict[grid]} if grid in state_dict else {}
        try:
            fitted = refit(saved, own, self._match(vit, saved | recorded, pos_interp))
            state_dict.update({inside + name: tensor for name, tensor in fitted.items()})
        except ValueError as error:
            if (fixed := self._source.fixed_size(vit)) is not None:
                raise ValueError(
                    f'{self._model_name!r} is built for images of {fixed[0]}x{fixed[1]}, and '
                    f'{error}: build it with the img_size of the file'
                ) from None

    def _warn(
        self, vit: nn.Module, path: str | Path | None, names: Collection[str] = frozenset()
    ) -> None:
        """Log where weights fit, but may belong to another model."""
        self.remark = self._source.remark(vit, self._model_name, path, names)
        if self.remark is not None:
            where = f'checkpoint {str(path)!r}' if path else f'{self._model_name}, pretrained'
            self.remark = f'{where}: {self.remark}'
            print_log(self.remark, logger='current', level=logging.WARNING)

    def note_no_record(self, vit: nn.Module, pos_interp: str) -> None:
        """Log that positions of a file without a record are resampled as the name says."""
        if pos_interp == 'original' and self._source.position_name(vit) is not None:
            print_log(
                f'the file does not record whose weights it started from: pos_interp='
                f'{pos_interp!r} resamples positions as the authors do whom {self._model_name!r} '
                f'stands for; the checkpoint of its start, named by checkpoint=..., shows others',
                logger='current',
                level=logging.WARNING,
            )

    def _check_interpolation(self, vit: nn.Module, pos_interp: str) -> None:
        """Log where `pos_interp` has no effect."""
        if pos_interp == 'timm':
            return
        reason = 'resamples no table of positions here'
        if self._source.position_name(vit) is not None:
            ways = [self._source.interpolation(vit, way) for way in POSITION_INTERPOLATIONS]
            if ways[0] != ways[1]:
                return
            reason = 'resamples positions in one way only'
        print_log(
            f'{self._model_name} {reason}: pos_interp={pos_interp!r} changes nothing',
            logger='current',
        )

    def _match(
        self, vit: nn.Module, tensors: dict[str, Tensor], pos_interp: str, layout: str | None = None
    ) -> Report:
        return match(
            tensors,
            vit.state_dict(),
            patch_embed=self._source.patch_embed_name(),
            positions=self._positions(vit, pos_interp),
            built=self._built,
            convert=partial(self._source.convert, vit),
            dialect=layout,
        )

    def _positions(self, vit: nn.Module, pos_interp: str) -> PositionTable | None:
        name = self._source.position_name(vit)
        if name is None:
            return None
        return PositionTable(
            name=name,
            shape=tuple(vit.get_parameter(name).shape),
            grid=self._source.grid(vit),
            num_prefix=self._source.num_position_prefix(vit),
            lacks_cls=not self._source.has_cls_token(vit),
            native_size=self._source.native_size(vit),
            interpolation=self._source.interpolation(vit, pos_interp),
        )

    def _check(self, report: Report, path: str, tensors: dict[str, Tensor]) -> None:
        """Refuse a file that fits badly, or lacks the parameters of a pooling."""
        pools, remark = self._pool in ('attn', 'model'), ''
        if not report.matched and (layout := recognised(tensors)):
            remark = f'; it has {layout} keys, which plain ViTs of source timm read'
        try:
            report.check(path, remark)
        except ValueError as error:  # without its pooling a file may hold too little
            raise (PoolingError if pools else ValueError)(str(error)) from None
        lacks = [n for n in report.missing if self._pool == 'model' or 'attn_pool' in n]
        if pools and lacks:
            raise PoolingError(
                f'pool={self._pool!r}: checkpoint {path!r} has no such pooling: {lacks[0]} is '
                f'missing'
            )
