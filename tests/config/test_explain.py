"""Exceptions of the libraries in one line."""

import importlib

import pytest

from vit_backbones.config.explain import describe

TOOLBOXES = ['mmdet', 'mmseg']


@pytest.mark.parametrize('toolbox', TOOLBOXES)
def test_what_only_one_of_our_modules_registers_names_that_module(toolbox):
    module = f'vit_backbones.{toolbox}'
    for name in importlib.import_module(module).__all__:
        raised = KeyError(f'{name} is not in the mmengine::model registry. Please check')
        line = f"'{name}' is not in the mmengine::model registry; add '{module}' to custom_imports"
        assert describe(raised) == line
