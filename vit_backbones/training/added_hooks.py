"""The hooks that a training gets beside those of its config."""

from collections.abc import Iterable

from mmengine.config import Config

ADDED = {
    'curves': 'CurvesHook',
    'data_wait': 'DataWaitHook',
    'loss_watch': 'LossWatchHook',
    'non_finite': 'NonFiniteHook',
    'pictures': 'PredictionPicturesHook',
    'progress': 'ProgressHook',
    'record': 'RecordHook',
    'sanity_check': 'SanityCheckHook',
    'skip_unreadable': 'SkipUnreadableImagesHook',
    'unmasked_best': 'UnmaskedBestHook',
}
# MMEngine's hooks, and ours that do the same in less time or with less risk
_BETTER = {
    'runtime_info': ('RuntimeInfoHook', 'DeferredRuntimeInfoHook'),
    'checkpoint': ('CheckpointHook', 'KeptCheckpointHook'),
}


def add_hooks(cfg: Config, names: Iterable[str]) -> None:
    """Add our hooks of these names where a config has not got them; `None` leaves one out."""
    cfg.default_hooks = cfg.get('default_hooks') or {}  # `setdefault` would give a copy
    hooks = cfg.default_hooks
    present = {hook.get('type') for hook in [*hooks.values(), *cfg.get('custom_hooks', [])] if hook}
    for name, kind in ADDED.items():
        if name in hooks and hooks[name] is None:
            del hooks[name]
        elif name in names and kind not in present:
            hooks[name] = dict(type=kind) | (hooks.get(name) or {})
    for name, (stock, ours) in _BETTER.items():
        if (given := hooks.get(name, dict(type=stock))) and given.get('type') == stock:
            hooks[name] = dict(given) | dict(type=ours)
