"""The weights of a backbone: from one place, loaded once, and kept."""

import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn

from vit_backbones.arguments import flag
from vit_backbones.checkpoints import PositionTable, Report, match, updates
from vit_backbones.checkpoints.eomt_keys import vit_of_published
from vit_backbones.checkpoints.fit_report import first_ten
from vit_backbones.checkpoints.fitting import GRID_KEY, LAYOUT_KEY, PREFIXES, RECORDS, refit
from vit_backbones.checkpoints.layouts import recognised
from vit_backbones.checkpoints.origin import UNKNOWN, encode, without_record
from vit_backbones.checkpoints.reading import read_content
from vit_backbones.errors import counted, one_line
from vit_backbones.readout import PoolingError
from vit_backbones.sources.base import Source, first_line
from vit_backbones.sources.build_options import POSITION_INTERPOLATIONS
from vit_backbones.sources.published import missing_with_fix


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
        *,
        adapts: bool = False,
        library: object = None,
    ) -> None:
        self.came: bool = False
        self.report: str | None = None  # summary of the loaded checkpoint in one line
        self.remark: str | None = None  # a warning on weights that fit, but may belong elsewhere
        self._source, self._model_name, self._library = source, model_name, library
        self._built = frozenset(vit.state_dict())
        self._pool, self._allow_partial = pool, flag('allow_partial', allow_partial)
        self._adapts = adapts  # the model gets updates by LoRA
        self._updates: tuple[str, dict[str, Tensor]] | None = None  # a file and its tensors

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
                _initialize(backbone, config)
        self.came = True

    def load(
        self, vit: nn.Module, checkpoint: str | Path, pos_interp: str, prefix: str | None = None
    ) -> None:
        """Load a checkpoint, or its part below `prefix`; a `ValueError` if it does not fit."""
        with missing_with_fix(self._library, self._model_name, checkpoint):
            tensors, copy = read_content(checkpoint)
        if prefix is not None:
            tensors = _below(tensors, prefix.removesuffix('.') + '.')
        tensors, recorded = without_record(tensors)
        try:
            if updates.are_in(tensors):
                tensors = self._without_updates(tensors, str(checkpoint))
            tensors = vit_of_published(tensors)
            self._source.follow_layout(vit, _layout(tensors) if recorded is None else recorded)
            keys = frozenset(tensors)
            report = self._translated(vit, tensors, pos_interp)
        except ValueError as error:
            raise ValueError(f'checkpoint {str(checkpoint)!r} {error}') from None
        report.copy = '; '.join(filter(None, (copy, report.copy))) or None
        self._check(vit, report, str(checkpoint), tensors)
        vit.load_state_dict(report.matched, strict=False)
        self._note(report, checkpoint)
        self._warn(vit, checkpoint, keys)

    def of_published(
        self, backbone: BaseModule, tensors: dict[str, Tensor], name: str, *, is_delta: bool
    ) -> dict[str, Tensor]:
        """The ViT's tensors of a published whole model, by their names below the backbone.

        Differences are added to the weights that the backbone has; a `ValueError` without any.
        """
        vit = backbone.vit
        if not is_delta:
            self._source.follow_layout(vit, _layout(tensors))
        elif not (self.came or backbone.init_cfg):
            raise ValueError(
                f'the file holds differences to the weights of DINOv3, and the backbone '
                f'{self._model_name!r} has none to add them to: build it with checkpoint=FILE of '
                f"Meta's weights, or pretrained=True"
            )
        report = self._translated(vit, tensors, backbone.pos_interp)
        self._check(vit, report, name, tensors)
        self.report, own = str(report), updates.without(vit.state_dict())
        found = {f'vit.{name}': tensor for name, tensor in report.matched.items()}
        if is_delta:
            found = {n: _added(own[n.removeprefix('vit.')], each) for n, each in found.items()}
        return found | {LAYOUT_KEY: encode(getattr(vit, 'layout', ''))}

    def _translated(self, vit: nn.Module, tensors: dict[str, Tensor], pos_interp: str) -> Report:
        try:
            tensors, layout = self._source.translate(vit, tensors)
            return self._match(vit, tensors, pos_interp, layout)
        except ValueError:
            raise
        except Exception as error:  # a reshape, a product or an index that the shapes do not allow
            raise ValueError(
                f'holds a tensor of another shape than its key says, or damaged: '
                f'{first_line(error)}'
            ) from error

    def _note(self, report: Report, checkpoint: str | Path) -> None:
        """Keep and log the report, and what stays random."""
        self.report = str(report)
        print_log(f'{checkpoint}: {report}', logger='current')
        if report.missing:
            self.report += f'; missing: {", ".join(report.missing)}'
            print_log(
                f'{checkpoint}: allow_partial=True leaves {counted(len(report.missing), "tensor")} '
                f'of {report.total} random, which the file lacks or holds otherwise: '
                f'{first_ten(report.missing)}',
                logger='current',
                level=logging.WARNING,
            )

    def fit_state_dict(
        self, vit: nn.Module, state_dict: dict[str, Tensor], prefix: str, pos_interp: str
    ) -> None:
        """Fit the tensors below `prefix` + `'vit.'`, saved at another `img_size`, in place."""
        inside, grid = f'{prefix}vit.', prefix + GRID_KEY
        spelled = {updates.plain(name): name for name in vit.state_dict()}
        saved = {n.removeprefix(inside): t for n, t in state_dict.items() if n.startswith(inside)}
        saved, own = updates.without(saved), updates.without(vit.state_dict())
        recorded = {GRID_KEY: state_dict[grid]} if grid in state_dict else {}
        try:
            fitted = refit(saved, own, self._match(vit, saved | recorded, pos_interp))
            state_dict.update({inside + spelled[name]: each for name, each in fitted.items()})
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

    def load_updates(self, vit: nn.Module, alpha: int) -> None:
        """Load LoRA's updates of the checkpoint, if it has any, into a model that now has some."""
        if self._updates is None:
            return
        path, tensors, own = *self._updates, updates.only(vit.state_dict())
        prefix = max(PREFIXES, key=lambda p: sum(p + name in tensors for name in own))
        below = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        given = updates.only(below)
        try:
            updates.compare(given, updates.alpha_in(tensors), own, alpha)
        except ValueError as error:
            raise ValueError(f'checkpoint {path!r} {error}') from None
        vit.load_state_dict(given, strict=False)
        self.report, self._updates = f'{self.report}, with LoRA updates', None

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

    def _without_updates(self, tensors: dict[str, Tensor], path: str) -> dict[str, Tensor]:
        """Weights of a file with LoRA's updates, which are added, or kept for `load_updates`."""
        if not self._adapts:
            print_log(f'{path}: its LoRA updates are added to their weights', logger='current')
            return updates.merged(tensors, updates.alpha_in(tensors))
        self._updates = path, tensors
        return updates.without(tensors)

    def _match(
        self, vit: nn.Module, tensors: dict[str, Tensor], pos_interp: str, layout: str | None = None
    ) -> Report:
        return match(
            tensors,
            updates.without(vit.state_dict()),
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

    def _check(self, vit: nn.Module, report: Report, path: str, tensors: dict[str, Tensor]) -> None:
        """Refuse a file that does not fit, or lacks the parameters of a pooling."""
        pools = self._pool in ('attn', 'model') and not self._allow_partial
        if pools and report.matched and all(self._is_pooling(vit, n) for n in report.missing):
            for name in report.missing:
                raise PoolingError(
                    f'pool={self._pool!r}: checkpoint {path!r} has no such pooling: {name} is '
                    f'missing'
                )
        remark = ''
        if width := report.sizes.width:
            other = self._source.of_width(self._model_name, width[0])
            remark = other and f'; model_name={other!r} is as wide as the file'
        elif not report.matched and (layout := recognised(tensors)):
            remark = f'; it has {layout} keys, which plain ViTs of source timm read'
        elif '_dinov3' in self._model_name and 'blocks.0.attn.qkv.bias' in report.leftover:
            biased = self._model_name.replace('_dinov3', '_dinov3_qkvb')
            remark = f'; model_name={biased!r} has biases of queries and values, as the file'
        report.check(path, partial=self._allow_partial, remark=remark or '')

    def _is_pooling(self, vit: nn.Module, name: str) -> bool:
        """Whether a tensor is of the model's own pooling, behind its blocks."""
        if self._pool == 'attn':
            return 'attn_pool' in name
        depth = self._source.depth(vit)
        return self._source.layer_of(name, depth) > depth


def _initialize(backbone: BaseModule, config: dict[str, object]) -> None:
    try:
        initialize(backbone, config)
    except Exception as error:  # each initializer refuses in its own way
        raise ValueError(f'init_cfg={config!r}: {one_line(error)}') from error


def _layout(tensors: dict[str, Tensor]) -> str:
    return recognised(tensors) or UNKNOWN


def _added(base: Tensor, difference: Tensor) -> Tensor:
    """Their sum; a base without values, as checks have it, gives the difference."""
    return difference if base.is_meta else base + difference.to(base)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, and the records beside the `vit.` at its end."""
    beside = prefix.removesuffix('vit.')
    records = {name: tensors[beside + name] for name in RECORDS if beside + name in tensors}
    return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)} | records
