"""Configs are inherited from packages whose distribution has another name than MMEngine knows."""

from importlib import metadata

import pytest
from mmengine import fileio
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from vit_backbones.hosts import config_packages

BASES = [
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py',
]


@pytest.fixture
def names(monkeypatch):
    """MMEngine's names of distributions, none of which is installed."""

    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'version', version)
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setitem(MODULE2PACKAGE, 'mmaction', 'mmaction2')
    return MODULE2PACKAGE


def test_a_module_of_a_fork_is_looked_up_by_its_own_name(names):
    config_packages.install()
    assert names['mmseg'] == 'mmseg'
    assert names['vit_backbones'] == 'vit_backbones.backbone'
    assert names['mmaction'] == 'mmaction2'  # not here at all: the message names what to install


@pytest.mark.parametrize('base', BASES)
def test_its_configs_are_read(names, base, tmp_path):
    config_packages.install()
    (tmp_path / 'mine.py').write_text(f'_base_ = {base!r}')
    assert Config.fromfile(tmp_path / 'mine.py').model.backbone.depth == 50


def test_descriptions_of_models_are_read_once(monkeypatch, tmp_path):
    config_packages._loaded.cache_clear()
    read = []
    load = fileio.load
    monkeypatch.setattr(fileio, 'load', lambda path: read.append(path) or load(path))
    (tmp_path / 'mine.py').write_text(f'_base_ = {BASES[1]!r}')
    first, second = (Config.fromfile(tmp_path / 'mine.py') for _ in range(2))
    assert first.pretty_text == second.pretty_text
    assert len(read) == len(set(read)) > 50
