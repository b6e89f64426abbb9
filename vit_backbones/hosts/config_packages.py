"""Where MMEngine looks for `vit_backbones::`, `mmseg::` and their like in a config."""

import functools
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from mmengine import fileio
from mmengine.config import utils
from mmengine.config.utils import MODULE2PACKAGE


def install() -> None:
    """Let configs be inherited from any package that can be imported.

    MMEngine looks a distribution up, by a name of its own. It fails where that one is installed
    editable, as ours may be, and where a fork with another name brings the module: mmseg of
    onedl-mmsegmentation. A module's name leads it to the folder that is imported.

    It also reads all descriptions of a package's models, a hundred of YAML, for each config that
    is inherited; they are kept.
    """
    utils.load = _loaded
    for module, package in MODULE2PACKAGE.items():
        if module != package and not _is_installed(package) and find_spec(module):
            MODULE2PACKAGE[module] = module
    MODULE2PACKAGE['vit_backbones'] = 'vit_backbones.backbone'


@functools.cache
def _loaded(path: str) -> dict[str, Any]:
    return fileio.load(path)


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
