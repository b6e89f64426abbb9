"""Send losses and metrics of a training to other programs too, by MMEngine's backends."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

# Our name, the module that must be there, and MMEngine's backend
BACKENDS = {
    'tensorboard': ('tensorboard', 'TensorboardVisBackend'),
    'wandb': ('wandb', 'WandbVisBackend'),
    'mlflow': ('mlflow', 'MLflowVisBackend'),
}


def follow(config: Config, names: Sequence[str]) -> None:
    """Send losses and metrics to these backends of MMEngine too, beside the files of the work dir.

    Args:
        config: Changed in place.
        names: `'tensorboard'`, `'wandb'`, `'mlflow'`.

    Raises:
        ImportError: If the library of one is not installed.
    """
    for name in names:
        module, kind = BACKENDS[name]
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'{name}=True needs {name}: pip install vit_backbones[{name}]')
        visualizer = dict(config.get('visualizer') or dict(type='Visualizer'))
        backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
        if all(each.get('type') != kind for each in backends):
            backends.append(dict(type=kind) | (_mlflow(config) if name == 'mlflow' else {}))
        config.visualizer = visualizer | dict(vis_backends=backends)


def _mlflow(config: Config) -> dict[str, Any]:
    """Send to the server of `MLFLOW_TRACKING_URI`, else to a database in the work dir.

    MMEngine takes neither by default: it ignores the variable, and writes a folder of files that
    MLflow 3 refuses.
    """
    folder = Path(config.work_dir).absolute()
    named = dict(exp_name=os.environ.get('MLFLOW_EXPERIMENT_NAME') or folder.name)
    if server := os.environ.get('MLFLOW_TRACKING_URI'):
        return named | dict(tracking_uri=server)
    files = dict(artifact_location=(folder / 'mlflow').as_uri())
    return named | files | dict(tracking_uri=f'sqlite:///{folder / "mlflow.db"}')
