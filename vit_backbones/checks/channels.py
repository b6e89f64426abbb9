"""Whether images have the channels that the model takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from vit_backbones.checks.data import loaded_by, loaders_of
from vit_backbones.checks.findings import Finding, error
from vit_backbones.checks.validating import same_randomness
from vit_backbones.checks.wiring import bare, vit_of
from vit_backbones.config.datasets import leaf_datasets
from vit_backbones.errors import counted


def channel_findings(model: nn.Module, dataset: Any, split: str) -> Iterator[Finding]:
    """Whether the first image of a built dataset has the channels that a ViT takes."""
    model = bare(model)
    vit = vit_of(model)
    for leaf in leaf_datasets(dataset) if vit else ():
        loaders = loaders_of(leaf)
        if not loaders or not hasattr(leaf, 'get_data_info') or not len(leaf):
            continue
        try:
            loaded = loaded_by(loaders, leaf.get_data_info(0))
        except Exception:  # image_findings reports it
            continue
        given = shape[2] if len(shape := np.shape(loaded.get('img'))) == 3 else 1
        if _differs(given, leaf, model, vit.in_channels):
            yield error(
                f'{split}_dataloader.dataset gives images of {counted(given, "channel")} '
                f'({loaded.get("img_path")}, by {type(loaders[0]).__name__}), and the backbone '
                f'takes {vit.in_channels}: {_advice(given, vit.in_channels)}'
            )
            return


def _differs(given: int, dataset: Any, model: nn.Module, taken: int) -> bool:
    """Whether channels are others after the whole pipeline too, which runs only if they seem so."""
    if given == taken:
        return False
    try:
        with same_randomness():
            inputs = dataset[0]['inputs']
    except Exception:  # the training step reports it
        return False
    # MMEngine's own keeps three channels where it turns their order
    turns = getattr(getattr(model, 'data_preprocessor', None), '_channel_conversion', False)
    kept = min(len(inputs), 3) if turns else len(inputs)
    return getattr(inputs, 'ndim', 0) == 3 and kept != taken


def _advice(given: int, taken: int) -> str:
    if given == 3 and taken > 3:
        return "load all bands by color_type='unchanged', or set model.backbone.in_channels=3"
    if taken == 3:
        other = "by color_type='color'" if given in (1, 4) else 'with three channels'
        return f'load them {other}, or set model.backbone.in_channels={given}'
    return f'set model.backbone.in_channels={given}, or load other channels'
