"""Reading a config and the changes given on the command line, with errors that say what to do."""

import difflib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils import import_modules_from_strings
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from vit_backbones.config.registries import arguments_of, find_registered

CONFIGS = ('.py', '.yaml', '.yml', '.json')  # what MMEngine reads, by suffix
# What MMEngine's optimizer constructor and ours read
_PARAMWISE = set(
    'bias_lr_mult bias_decay_mult norm_decay_mult flat_decay_mult dwconv_decay_mult '
    'dcn_offset_lr_mult bypass_duplicate custom_keys decay_rate layer_decay_rate num_layers '
    'decay_type'.split()
)
# Dicts that need no `type`: what MMEngine makes of them, and keys it reads beside its arguments.
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
    ('default_hooks', (), {'curves', 'pictures', 'record', 'skip_unreadable', 'visualization'}),
    (
        '',
        (Runner,),
        {
            'activation_checkpointing',
            'builtin_data',
            'compile',
            'custom_imports',
            'efficient_conv_bn_eval',
            'find_unused_parameters',
            'model_wrapper_cfg',
            'runner_type',
            'strategy',
        },
    ),
)
_ALWAYS = {'type', '_delete_', '_scope_'}
# Modules that configs named in `custom_imports` before there was one a toolbox
_MOVED = {
    'vit_backbones.training.padding.detection': 'vit_backbones.mmdet',
    'vit_backbones.training.padding.segmentation': 'vit_backbones.mmseg',
    'vit_backbones.training.auxiliary.mask2former': 'vit_backbones.mmdet',
    'vit_backbones.training.auxiliary.encoder_decoder': 'vit_backbones.mmseg',
    'vit_backbones.heads.located_mask2former': 'vit_backbones.mmdet',
}


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file and apply `key=value` changes.

    Args:
        path: A `.py`, `.yaml` or `.json` config.
        options: Changes such as `'model.backbone.out_indices=[2,5]'`; list items by their number.

    Returns:
        The merged config.

    Raises:
        FileNotFoundError: If there is no such file; the closest existing ones are named.
        ValueError: If the config cannot be read, or an option names neither an existing key nor an
            argument of the class at that place.
    """
    path = Path(path)
    if path.is_dir():
        inside = ', '.join(sorted(str(each) for each in path.glob('*.py'))[:3])
        hint = f'; name a file in it: {inside}' if inside else ', and no config is in it'
        raise FileNotFoundError(f'config {str(path)!r} is a folder{hint}')
    if not path.is_file():
        raise FileNotFoundError(f'config {str(path)!r} does not exist{_closest_files(path)}')
    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
        _drop_scope(config._cfg_dict)
        imports = config.get('custom_imports') or dict(imports=[])
        moved = _MOVED.keys() & set(imports.get('imports') or ())
        if not moved:
            import_modules_from_strings(**imports)
    except Exception as error:  # a config is a program: anything may happen in it
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(f'config {str(path)!r} cannot be read ({text})') from error
    if moved:
        fixes = ', '.join(f'{each!r} is now {_MOVED[each]!r}' for each in sorted(moved))
        raise ValueError(f'config {str(path)!r}: custom_imports names a module that moved: {fixes}')
    changes = dict(map(_parse, options))
    for key in changes:
        check_option(config, key, changes)
    config.merge_from_dict(changes)
    return config


def use_scope(config: Config) -> None:
    """Let types be looked up first where a config means them, as MMEngine's runner does."""
    scope = config.get('default_scope') or 'mmengine'
    current = DefaultScope.get_current_instance()
    if current is None or current.scope_name != scope:
        DefaultScope.get_instance(f'{scope}-{time.monotonic_ns()}', scope_name=scope)


def _drop_scope(node: Any) -> None:
    """Leave out what MMEngine adds to bases from this package, which has no registries of its own.

    What is from `vit_backbones::...` is built in the scope of the config that inherits it.
    """
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, (dict, list, tuple)):
            _drop_scope(value)
    if isinstance(node, dict) and node.get('_scope_') == 'vit_backbones':
        del node['_scope_']


def check_option(config: Config, key: str, changes: dict[str, Any] | None = None) -> None:
    """Refuse an option that would change nothing that anybody reads.

    Args:
        config: The config before the change.
        key: Dotted place, e.g. `'model.backbone.out_indices'`.
        changes: All options by key: a `type` among them counts as the class at its place.

    Raises:
        ValueError: If `key` names neither an existing key nor an argument of the class there.
    """
    node: Any = config._cfg_dict
    parts = key.split('.')
    _check_is_read(config, key, parts)
    for i, part in enumerate(parts):
        place = '.'.join(parts[:i])
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ValueError(
                    f'--cfg-options {key}: {place!r} is a list of {len(node)}, so an index from 0 '
                    f'to {len(node) - 1} must follow, got {part!r}'
                )
            node = node[int(part)]
        elif not isinstance(node, dict):
            raise ValueError(
                f'--cfg-options {key}: {place!r} is {node!r}, which has no {part!r}; '
                f'set it as a whole'
            )
        elif part in node:
            node = node[part]
        else:
            kind = (changes or {}).get(f'{place}.type', node.get('type'))
            _check_new_key(key, part, place, node, kind, config.get('default_scope'))
            return


def _check_is_read(config: Config, key: str, parts: list[str]) -> None:
    """Refuse variables of a config file: their value was used when the file was read."""
    if parts[0] not in config or parts[0] in _arguments_at('', None, None)[0]:
        return
    places = [each for each in _places(config._cfg_dict, parts[-1]) if each != key]
    raise ValueError(
        f'--cfg-options {key}: {parts[0]!r} is a variable of the config file, which nothing reads '
        f'any more' + (f'; set {" and ".join(places[:4])}' if places else '')
    )


def _places(node: Any, name: str, place: str = '') -> Iterator[str]:
    """Dotted places below `node` that end with `name`."""
    items = node.items() if isinstance(node, dict) else ()
    for key, value in items:
        if key == name:
            yield place + key
        yield from _places(value, name, f'{place}{key}.')


def _check_new_key(
    key: str, part: str, place: str, node: dict, kind: Any, scope: str | None
) -> None:
    reason, _ = refusal(part, place, kind, scope, others=node)
    if reason:
        raise ValueError(f'--cfg-options {key}: {reason}')


def refusal(
    part: str,
    place: str,
    kind: Any,
    scope: str | None,
    *,
    others: Iterable[str] = (),
    lenient: bool = False,
) -> tuple[str | None, bool]:
    """Why nothing would read a key at a place of the config.

    Args:
        part: The key.
        place: Dotted place of the dict that has it.
        kind: The `type` of that dict, if any.
        scope: The config's `default_scope`.
        others: Keys that are read there, whatever the class says.
        lenient: Whether names of one's own are welcome there, so that only near misses count.

    Returns:
        The reason, `None` if the key is fine; and whether that is certain.
    """
    names, takes_more = _arguments_at(place, kind, scope)
    if part in names | _ALWAYS or not (names or takes_more or others):
        return None, True
    allowed = sorted(names.union(others))
    # A class that takes any keyword gets the benefit of the doubt, unless this is a near miss.
    cutoff = 0.9 if lenient else 0.8 if takes_more else 0.6
    closest = difflib.get_close_matches(part, allowed, n=1, cutoff=cutoff)
    takes_more |= lenient
    if takes_more and not closest:
        return None, False
    owner = f' nor an argument of {getattr(kind, "__name__", kind)}' if kind else ''
    reason = f'{part!r} is neither a key of {place or "the config"!r}{owner}' + (
        f'; did you mean {closest[0]!r}?' if closest else f'; allowed: {", ".join(allowed)}'
    )
    return reason, not takes_more


def _arguments_at(place: str, kind: Any, scope: str | None) -> tuple[set[str], bool]:
    """Arguments at a place of the config, and whether any other is taken too."""
    names: set[str] = set()
    takers = [kind] if callable(kind) else find_registered(kind, scope) if kind else []
    for pattern, defaults, extra in _UNTYPED:
        if re.fullmatch(pattern, place):
            names |= extra
            takers = takers or list(defaults)
    found = [arguments_of(taker) for taker in takers]
    return names.union(*(each for each, _ in found)), any(more for _, more in found)


def _parse(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition('=')
    if not equals or not key:
        raise ValueError(f'--cfg-options takes KEY=VALUE, got {option!r}')
    return key, DictAction._parse_iterable(value)


def _closest_files(path: Path) -> str:
    """A hint with config files of a similar name around where `path` points to."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    files = [str(file) for file in sorted(folder.glob('**/*.py'))[:5000]]
    by_stem = {Path(file).stem: file for file in files if '_base_' not in file}
    close = [
        by_stem[stem] for stem in difflib.get_close_matches(path.stem, by_stem, n=3, cutoff=0.4)
    ]
    return f'; did you mean {" or ".join(close)}?' if close else f' (looked from {Path.cwd()})'
