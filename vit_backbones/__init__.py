"""Vision Transformers as backbones of MMDetection and MMSegmentation.

Importing this package makes mmcv's compiled operators available without a compiler where they are
missing, lets MMEngine's own checkpoints be resumed by today's PyTorch and format a config once,
mends some of mmseg's predictions, and registers everything.

`python -m vit_backbones` imports it first, and gets nothing of this: `--help` and the report on an
installation must not wait for it, nor fail with it. Its commands import the package again, whole.
"""

from typing import Any

from vit_backbones.environment import STARTED, explained
from vit_backbones.version import __version__

if not STARTED:
    try:
        from vit_backbones.hosts import (
            config_packages,
            config_text,
            mmcv_loader,
            mmseg_mends,
            panoptic_api,
        )
        from vit_backbones.hosts.mmengine_pickles import allow_mmengine_checkpoints

        config_packages.install()
        config_text.install()
        mmcv_loader.install()
        panoptic_api.install()
        mmseg_mends.install()
        allow_mmengine_checkpoints()

        from vit_backbones import training, transforms
        from vit_backbones.backbone import ViTFeatBackbone
        from vit_backbones.necks import SimpleFeaturePyramid, ViTAdapter
    except Exception as error:  # of any library that does not fit the others
        raise ImportError(explained(error)) from error

__all__ = [
    'SimpleFeaturePyramid',
    'ViTAdapter',
    'ViTFeatBackbone',
    '__version__',
    'load_model',
    'training',
    'transforms',
]


def __getattr__(name: str) -> Any:
    """Import `load_model` when it is asked for: importing the package stays as fast."""
    if name == 'load_model':
        from vit_backbones.evaluation.loaded_model import load_model

        return load_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
