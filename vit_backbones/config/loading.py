"""Read a config file and change it, with errors that name the fix."""

import ast
import difflib
import itertools
import math
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings

from vit_backbones.config.facts import nodes
from vit_backbones.config.options import check_option
from vit_backbones.errors import one_line, shown

CONFIGS = ('.py', '.yaml', '.yml', '.json')  # files that MMEngine reads
_LONG, _DEEP = 200, 50  # characters and levels of an option
_NESTING = dict.fromkeys('([{', 1) | dict.fromkeys(')]}', -1)
# Modules that `custom_imports` named before there was one per toolbox
_MOVED = {
    'vit_backbones.training.padding.detection': 'vit_backbones.mmdet',
    'vit_backbones.training.padding.segmentation': 'vit_backbones.mmseg',
    'vit_backbones.training.auxiliary.mask2former': 'vit_backbones.mmdet',
    'vit_backbones.training.auxiliary.encoder_decoder': 'vit_backbones.mmseg',
    'vit_backbones.heads.located_mask2former': 'vit_backbones.mmdet',
}


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file (`CONFIGS`) and apply `key=value` changes.

    `path` is a file, or one of a package as in `_base_`: `'vit_backbones::upernet/x.py'`.
    Changes are as `'model.backbone.out_indices=[2,5]'`, with list items by their number. Dicts are
    as in a config: `"custom_hooks=[dict(type='EMAHook')]"`.

    Raises:
        FileNotFoundError: If there is no such file; the closest existing ones are named.
        ValueError: If the config cannot be read, or nothing would read an option.
    """
    config = _read(Path(path))
    changes = dict(map(_parse, options))
    for key in changes:
        check_option(config, key, changes)
    try:
        config.merge_from_dict(changes)
    except Exception as error:  # MMEngine has one of its own for each mismatch
        raise ValueError(f'options={", ".join(changes)}: {one_line(error)}') from error
    return config


def config_file(path: str | Path) -> Path:
    """The file of a config, which `PACKAGE::FOLDER/FILE.py` names as `_base_` does.

    Raises:
        FileNotFoundError: If there is no such package, or it ships no configs.
    """
    package, colons, name = str(path).partition('::')
    if not colons or Path(path).exists():
        return Path(path)
    spec = find_spec(package) if package.isidentifier() else None
    folders = (
        Path(place) / '.mim/configs' for place in (spec and spec.submodule_search_locations) or ()
    )
    found = next((each for each in folders if each.is_dir()), None)
    if found is None:
        reason = 'ships no configs' if spec else 'is not installed'
        raise FileNotFoundError(f'config {str(path)!r}: the package {package!r} {reason}')
    return found / name.lstrip('/')


def _read(given: Path) -> Config:
    path = config_file(given)
    if not path.is_file():
        wrong = _no_file(path)
        if path != given:  # name all files of the package in the same way
            package, _, name = str(given).partition('::')
            folder = str(path).removesuffix(name.lstrip('/')).removesuffix('/')
            wrong = wrong.replace(f'{folder}/', f'{package}::').replace(folder, f'{package}::')
        raise FileNotFoundError(wrong)
    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
        _drop_scope(config)
        imports = config.get('custom_imports') or dict(imports=[])
        moved = sorted(_MOVED.keys() & set(imports.get('imports') or ()))
        if not moved:
            import_modules_from_strings(**imports)
            return config
    except Exception as error:  # a config is a program: anything may happen in it
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(f'config {str(path)!r} cannot be read ({text})') from error
    fixes = ', '.join(f'{each!r} is now {_MOVED[each]!r}' for each in moved)
    raise ValueError(f'config {str(path)!r}: custom_imports names a module that moved: {fixes}')


def _drop_scope(config: Config) -> None:
    """Leave out the mark of MMEngine on bases from this package, which has no registries.

    They are built in the scope of the config that inherits them.
    """
    for _, node, _ in nodes(config):
        if node.get('_scope_') == 'vit_backbones':
            del node['_scope_']


def use_scope(config: Config) -> None:
    """Let types be looked up first where a config means them, as MMEngine's runner does."""
    scope = config.get('default_scope') or 'mmengine'
    current = DefaultScope.get_current_instance()
    if current is None or current.scope_name != scope:
        DefaultScope.get_instance(f'{scope}-{time.monotonic_ns()}', scope_name=scope)


def _parse(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition('=')
    if not equals or not key or not key.isprintable():
        raise ValueError(f'options=... takes KEY=VALUE, got {option[:_LONG]!r}')
    if max(itertools.accumulate(map(_NESTING.get, value, itertools.repeat(0))), default=0) > _DEEP:
        raise ValueError(f'options={key}: takes at most {_DEEP} levels, got {_shown(value)}')
    try:
        if 'dict(' not in value and '{' not in value:
            parsed = DictAction._parse_iterable(value)
            if isinstance(parsed, float) and math.isinf(parsed) and 'inf' not in value.lower():
                raise ValueError('a number that Python cannot hold')
            return key, parsed
        # MMEngine's parser has no dicts
        return key, ast.literal_eval(_Dicts().visit(ast.parse(value.strip(), mode='eval')))
    except Exception:  # parsers have many, such as AssertionError for a missing bracket
        reason = "takes literals, strings in quotes, as [dict(type='EMAHook')], got"
        raise ValueError(f'options={key}: {reason} {_shown(value)}') from None


def _shown(text: str) -> str:
    return shown(text if len(text) <= _LONG else f'{text[:_LONG]}...')


class _Dicts(ast.NodeTransformer):
    """Write `dict(a=1)` as `{'a': 1}`."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if ast.unparse(node.func) != 'dict' or node.args or not all(k.arg for k in node.keywords):
            return node
        keys = [ast.Constant(keyword.arg) for keyword in node.keywords]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def _no_file(path: Path) -> str:
    if not path.is_dir():
        return f'config {str(path)!r} does not exist{_closest_files(path)}'
    inside = ', '.join(sorted(str(each) for each in path.glob('*.py'))[:3])
    hint = f'; name a file in it: {inside}' if inside else ', and no config is in it'
    return f'config {str(path)!r} is a folder{hint}'


def _closest_files(path: Path) -> str:
    """A hint with config files of a similar name around where `path` points to."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    files = [str(file) for file in sorted(folder.glob('**/*.py'))[:5000]]
    by_stem = {Path(file).stem: file for file in files if '_base_' not in file}
    stems = difflib.get_close_matches(path.stem, by_stem, n=3, cutoff=0.4)
    close = [by_stem[stem] for stem in stems]
    return f'; did you mean {" or ".join(close)}?' if close else f' (looked from {Path.cwd()})'
