"""Which backbone with which weights, as a command names it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from vit_backbones.config.loading import CONFIGS

_NO_ARGUMENTS = ('options', 'scratch')  # of every tool
_SOURCES = ('pretrained', 'random_weights', 'scratch')  # of weights that are in no file


class Choice(NamedTuple):
    """The choice of a backbone, by `model` and `source` or by `config`, and of its weights."""

    model: str | None = None
    source: str = 'timm'
    config: str | None = None  # path of an mmdet or mmseg config with the backbone
    options: Sequence[str] = ()  # `key=value` changes of that config
    checkpoint: str | None = None  # of the model, or a whole one that was trained with the config
    pretrained: bool = False
    random_weights: int | None = None  # seed
    img_size: Sequence[int] | None = None  # (H, W), in place of the model's or the config's
    layers: str | Sequence[str | int] | None = None  # in place of the last one or the config's
    scratch: bool = False  # no weights: as the library draws them, to be trained

    @classmethod
    def named(cls, text: str, **others: Any) -> 'Choice':
        """The choice in `NAME` or `CONFIG.py`, maybe with `=CHECKPOINT`.

        Of the others, the sources of weights are for choices without a checkpoint.
        """
        name, _, checkpoint = text.partition('=')
        if checkpoint and others.get('scratch'):
            raise ValueError(f'scratch=True is a start without weights, and {text} names some')
        if checkpoint:
            others = {k: v for k, v in others.items() if k not in _SOURCES}
            others['checkpoint'] = checkpoint
        return cls(**{'config' if name.endswith(CONFIGS) else 'model': name}, **others)

    @classmethod
    def of(cls, args: Any) -> 'Choice':
        """The choice in the arguments of `add_backbone_options` of the tools."""
        same = {name: getattr(args, name) for name in cls._fields if name not in _NO_ARGUMENTS}
        return cls(**same, options=args.cfg_options)
