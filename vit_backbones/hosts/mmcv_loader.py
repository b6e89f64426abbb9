"""Put a module of our own in the place of mmcv's compiled extension where mmcv has none.

Every module of `mmcv.ops` asks `mmcv._ext` for its functions by name while it is imported, and
mmcv-lite ships without that extension. The layers of mmcv, their registration and their autograd
functions stay mmcv's own: `vit_backbones.hosts.mmcv_ops` serves only the leaf functions. The one
exception is deformable attention, whose function would round the places on CUDA.
"""

import importlib.abc
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import NoReturn

from vit_backbones.hosts import at_import
from vit_backbones.hosts.mmcv_ops import SERVED, attend_as_mmcv, refuse

_LOGGER = logging.getLogger(__name__)
_SWITCH = 'VIT_BACKBONES_MMCV_OPS'
_EXTENSION = 'mmcv._ext'


def install() -> str:
    """Make `mmcv.ops` importable where mmcv has no compiled extension.

    Call it before anything imports `mmcv.ops`, mmdet or mmseg. Calling it again changes nothing.
    A compiled `mmcv._ext` is left untouched, an mmcv that is not installed too, and the
    environment variable `VIT_BACKBONES_MMCV_OPS=off` switches the stand-in off. mmcv itself is
    not imported. Returns one line on the outcome, which is logged too, at level INFO.

    Raises:
        ValueError: `VIT_BACKBONES_MMCV_OPS` is neither `on` (the default) nor `off`.
    """
    loaded = sys.modules.get(_EXTENSION)
    if isinstance(loaded, _StandIn):
        return _describe_stand_in()
    switch = os.environ.get(_SWITCH, 'on')
    if switch not in ('on', 'off'):
        raise ValueError(f"{_SWITCH} must be 'on' or 'off', got {switch!r}; unset it for 'on'.")
    mmcv = importlib.util.find_spec('mmcv')
    if switch == 'off':
        line = f'mmcv ops: nothing changed ({_SWITCH}=off).'
    elif mmcv is None:
        line = 'mmcv ops: nothing changed (mmcv is not installed).'
    elif loaded or PathFinder.find_spec(_EXTENSION, mmcv.submodule_search_locations):
        line = "mmcv ops: mmcv's own compiled extension, left untouched."
    else:
        _put_stand_in()
        line = _describe_stand_in()
    _LOGGER.info(line)
    return line


def _put_stand_in() -> None:
    spec = ModuleSpec(_EXTENSION, _StandInLoader(), origin=__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_EXTENSION] = module
    at_import.mend(_MENDS)


def _keep_places(module: types.ModuleType) -> None:
    module.MultiScaleDeformableAttnFunction.apply = staticmethod(attend_as_mmcv)


_MENDS: at_import.Mends = {'mmcv.ops.multi_scale_deform_attn': _keep_places}


def _describe_stand_in() -> str:
    return (
        f'mmcv ops: {_EXTENSION} is missing; {len(SERVED)} of its functions are served through '
        f'torchvision and PyTorch ({_SWITCH}=off turns this off).'
    )


class _StandIn(types.ModuleType):
    """The module `mmcv._ext`; names that it does not serve exist and raise when called.

    mmcv checks by `hasattr` for every function of every operator at import, so a name must not
    be refused before it is used.
    """

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing(*args: object, **kwargs: object) -> NoReturn:
            refuse(f'the operator {name!r}')

        return missing


class _StandInLoader(importlib.abc.Loader):
    """Loader of the stand-in: mmcv's `check_ops_exist` wants a spec that has one."""

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(SERVED)
