"""A trained model, from its config and checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from vit_backbones.checkpoints import names
from vit_backbones.checkpoints.eomt_keys import holds_differences
from vit_backbones.checks import preflight
from vit_backbones.config.datasets import class_names_and_colors, metainfo_of
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import WEIGHTS, Facts, nodes
from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.devices import choose_device
from vit_backbones.terminal import quiet_log


class Trained(NamedTuple):
    """A model that is ready to run, in eval mode on its device, with its merged config."""

    model: nn.Module
    config: Config
    classes: list[str]
    palette: np.ndarray  # (256, 3) uint8 or longer, RGB by label

    @property
    def segments(self) -> bool:
        """Whether it is a segmenter of mmseg."""
        return hasattr(self.model, 'slide_inference') or hasattr(self.model, 'encode_decode')


def load_trained(
    config: str,
    checkpoint: str,
    options: Sequence[str] = (),
    *,
    device: str | None = None,
) -> Trained:
    """Build a config's model with the weights of its training.

    Args:
        config: Path of an mmdet or mmseg config.
        checkpoint: File that its training wrote. Weights that the training started from are not
            read: they need not be there any more.
        options: `key=value` changes of the config.
        device: By default the GPU if there is one.

    Raises:
        ValueError: If the config cannot be built, or the checkpoint does not suit it.
        OSError: For files that are not there.
    """
    preflight.check_environment()
    place = choose_device(device)
    cfg = load_config(config, options)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{config}: the config has no model: is it only the _base_ of others?')
    if '://' not in checkpoint:
        names(checkpoint)  # to fail before the model is built
    model, meta = _loaded(cfg, config, checkpoint)
    facts = Facts.of(cfg, ('test', 'val', 'train'))
    known = next((metainfo_of(data, facts.scope) for _, data in facts.every_dataset), {})
    known |= _checkpoint_meta(meta)
    return Trained(model.to(place).eval(), cfg, *class_names_and_colors(known))


def _loaded(cfg: Config, config: str, checkpoint: str) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and the notes of the checkpoint beside its weights."""
    use_scope(cfg)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if not holds_differences(checkpoint):  # to the weights of the start
        _without_start(cfg.model)
    with quiet_log():
        try:
            model = MODELS.build(cfg.model)
        except Exception as error:  # each library has its own
            raise ValueError(f'{config}: {describe(error)}') from error
        for each in preflight.fit_findings(model, checkpoint):
            if each.level == 'error':
                raise ValueError(each.text)
            print_log(each.text, logger='current', level=logging.WARNING)
        content = load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    return model, content.get('meta') or {}


def _without_start(model: dict[str, Any]) -> None:
    """Leave out the weights to start from, which those of the checkpoint replace."""
    for _, node, _ in nodes(model):
        node.update({key: None for key in ('init_cfg', *WEIGHTS) if key in node})


def _checkpoint_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Classes and palette; files of mmdet 2 and mmseg 0 have them at the top, in capitals."""
    found = {k.lower(): v for k, v in (meta | (meta.get('dataset_meta') or {})).items()}
    return {key: found[key] for key in ('classes', 'palette') if found.get(key) is not None}
