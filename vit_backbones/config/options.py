"""Which keys MMEngine and its classes read at a place of a config."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from vit_backbones.config.facts import nodes
from vit_backbones.config.registries import arguments_of, find_registered

# Keys that MMEngine and we read at the top, beside arguments of the runner
_TOP = set(
    'activation_checkpointing builtin_data compile custom_imports efficient_conv_bn_eval '
    'find_unused_parameters model_wrapper_cfg runner_type strategy'.split()
)
# Keys that MMEngine's optimizer constructor and ours read
_PARAMWISE = set(
    'bias_lr_mult bias_decay_mult norm_decay_mult flat_decay_mult dwconv_decay_mult '
    'dcn_offset_lr_mult bypass_duplicate custom_keys decay_rate layer_decay_rate num_layers '
    'decay_type'.split()
)
# Dicts without a `type`: place, classes that take them, further keys that it reads there
_UNTYPED: tuple[tuple[str, tuple[Callable[..., Any], ...], set[str]], ...] = (
    ('train_cfg', (EpochBasedTrainLoop, IterBasedTrainLoop), {'by_epoch'}),
    ('val_cfg', (ValLoop,), set()),
    ('test_cfg', (TestLoop,), set()),
    (r'\w+_dataloader', (DataLoader,), {'num_batch_per_epoch'}),
    ('optim_wrapper', (OptimWrapper,), {'constructor', 'paramwise_cfg'}),
    (r'optim_wrapper\.paramwise_cfg', (), _PARAMWISE),
    (r'optim_wrapper\.paramwise_cfg\.custom_keys\.\w+', (), {'lr_mult', 'decay_mult'}),
    (r'param_scheduler(\.\d+)?', (), {'convert_to_iter_based'}),
    ('log_processor', (LogProcessor,), set()),
    ('randomness', (Runner.set_randomness,), set()),
    ('auto_scale_lr', (), {'enable', 'base_batch_size'}),
    ('env_cfg', (), {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}),
    (r'env_cfg\.mp_cfg', (set_multi_processing,), set()),
    (r'.*norm_cfg', (), {'requires_grad'}),
    (
        'default_hooks',
        (),
        {
            *('curves', 'data_wait', 'loss_watch', 'non_finite', 'pictures', 'progress', 'record'),
            *('sanity_check', 'skip_unreadable', 'unmasked_best', 'visualization'),
        },
    ),
    ('', (Runner,), _TOP),
)
_ALWAYS = {'type', '_delete_', '_scope_'}
_POINTS = 'num_points oversample_ratio importance_sample_ratio assigner sampler'.split()
# Keys that models, by type or scope, read in dicts without a `type`, where recipes have but some
_READ = {
    ('mmseg', 'model.test_cfg'): 'mode crop_size stride window_batch'.split(),
    ('EoMT', 'model.test_cfg'): (
        'object_mask_thr iou_thr filter_low_score max_per_image instance_on panoptic_on'.split()
    ),
    ('EoMT', 'model.train_cfg'): _POINTS,
    ('SegEoMT', 'model.train_cfg'): _POINTS,
}


def check_option(config: Config, key: str, changes: dict[str, Any] | None = None) -> None:
    """Refuse an option that nothing would read; `key` is its dotted place in the unchanged config.

    A `type` among all `changes` is the class at its place.
    """
    if reason := _reason(config, key, changes or {}):
        raise ValueError(f'options={key}: {reason}')


def _reason(config: Config, key: str, changes: dict[str, Any]) -> str | None:
    """Why nothing would read an option."""
    parts = key.split('.')
    if parts[0] in config and parts[0] not in _arguments_at('', None, None)[0]:
        found = [f'{place}.{parts[-1]}' for place, node, _ in nodes(config) if parts[-1] in node]
        places = [each for each in found if each not in (key, f'.{parts[-1]}')]
        return f'{parts[0]!r} is a variable of the config file, which nothing reads any more' + (
            f'; set {" and ".join(places[:4])}' if places else ''
        )
    node: Any = config._cfg_dict
    scope, model = config.get('default_scope'), str((config.get('model') or {}).get('type'))
    for i, part in enumerate(parts):
        place = '.'.join(parts[:i])
        if isinstance(node, dict) and part not in node:
            kind = changes.get(f'{place}.type', node.get('type'))
            read = [_READ.get((each, place), []) for each in (scope, model.split('.')[-1])]
            return refusal(part, place, kind, scope, others=[*node, *read[0], *read[1]])[0]
        if not isinstance(node, (dict, list)):
            return f'{place!r} is {node!r}, which has no {part!r}; set it as a whole'
        if isinstance(node, list) and not (_is_index(part) and int(part) < len(node)):
            return (
                f'{place!r} is a list of {len(node)}, so an index from 0 to {len(node) - 1} must '
                f'follow, got {part!r}'
            )
        node = node[int(part) if isinstance(node, list) else part]
    if isinstance(node, list) and isinstance(changes.get(key), dict):
        return f'it is a list of {len(node)}, got a dict: give a list, or an item as {key}.0'
    return None


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 10


def refusal(
    part: str,
    place: str,
    kind: Any,
    scope: str | None,
    *,
    others: Iterable[str] = (),
    lenient: bool = False,
) -> tuple[str | None, bool]:
    """Why nothing would read a key (`part`), `None` if it is fine; and whether that is certain.

    Args:
        part: The key.
        place: Dotted place of the dict that has it.
        kind: The `type` of that dict, if any, a name in `scope` or a class.
        scope: That of the config, or of the dict.
        others: Keys that are read there as well.
        lenient: Allow unknown names there and refuse only likely typos.
    """
    names, takes_more = _arguments_at(place, kind, scope)
    if part in names.union(others, _ALWAYS) or not (names or takes_more or others):
        return None, True
    allowed = sorted(names.union(others))
    # where a class takes any keyword, only near misses are refused
    cutoff = 0.9 if lenient else 0.8 if takes_more else 0.6
    closest = difflib.get_close_matches(part, allowed, n=1, cutoff=cutoff)
    takes_more |= lenient
    if takes_more and not closest:
        return None, False
    owner = f' nor an argument of {getattr(kind, "__name__", kind)}' if kind else ''
    neither = 'neither' if owner else 'not'
    reason = f'{part!r} is {neither} a key of {place or "the config"!r}{owner}' + (
        f'; did you mean {closest[0]!r}?' if closest else f'; allowed: {", ".join(allowed)}'
    )
    return reason, not takes_more


def _arguments_at(place: str, kind: Any, scope: str | None) -> tuple[set[str], bool]:
    """Arguments that are read at a place of the config, and whether others are too."""
    names: set[str] = set()
    takers = find_registered(kind, scope)
    for pattern, defaults, extra in _UNTYPED:
        if re.fullmatch(pattern, place):
            names |= extra
            takers = takers or list(defaults)
    found = [arguments_of(taker) for taker in takers]
    return names.union(*(each for each, _ in found)), any(more for _, more in found)
