"""The tools as fixtures, and what tests of all folders share."""

import gc
import importlib.util
import re
import socket
from pathlib import Path

import pytest
import torch
from checked_configs import DETECTOR, SEGMENTER
from embedding_files import colored_images, grouped_vectors, write_embeddings  # noqa: F401
from mmengine.logging import MMLogger

from vit_backbones import (  # (mmcv's operators before any test imports mmdet)
    backbone,
    joint_blocks,
    weights,
)
from vit_backbones.sources import timm_plain as timm_vit

REPOSITORY = Path(__file__).parents[1]


def load_tool(name):
    """The module of a script in tools/."""
    spec = importlib.util.spec_from_file_location(f'tools_{name}', REPOSITORY / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without a GPU, whether or not this one has some."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


@pytest.fixture
def no_loggers():
    """No logger of an earlier run: MMEngine names them by the second, and hands out an old one."""
    MMLogger._instance_dict.clear()


@pytest.fixture
def train(tmp_path, monkeypatch, no_loggers):
    """`tools/train.py`'s main, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return load_tool('train').main


@pytest.fixture
def evaluate(tmp_path, monkeypatch, no_loggers):
    """`tools/test.py`'s main, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return load_tool('test').main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with two configs, which need nothing else."""
    monkeypatch.chdir(tmp_path)
    Path('seg.py').write_text(SEGMENTER)
    Path('det.py').write_text(DETECTOR)
    return tmp_path


@pytest.fixture
def check(folder, capsys):
    """`tools/check_config.py`'s main: exit code and lines, without those of the missing data."""
    main = load_tool('check_config').main

    def run(config, *options, flags=(), missing=False):
        capsys.readouterr()
        code = main([config, *flags, *(['--cfg-options', *options] if options else [])])
        lines = capsys.readouterr().out.splitlines()
        absent = re.compile(r'warning: \w+_(dataloader|evaluator)\S* .* does not exist')
        return code, [line for line in lines if missing or not absent.match(line)]

    return run


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """`tools/convert_checkpoint.py`'s main, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return load_tool('convert_checkpoint').main


@pytest.fixture
def log(monkeypatch):
    """What a backbone logs when it is built and loaded."""
    lines = []
    for module in (backbone, joint_blocks, weights, timm_vit):
        monkeypatch.setattr(module, 'print_log', lambda message, **options: lines.append(message))
    return lines


@pytest.fixture
def no_network(monkeypatch):
    """Sockets that refuse, as on a machine without a network; gives the attempts."""
    attempts = []

    def refuse(*args, **options):
        attempts.append(args)
        raise OSError('no network')

    monkeypatch.setattr(socket, 'create_connection', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    return attempts


def pytest_collection_finish():
    """Keep the garbage collector off what was imported: MMEngine runs it for each dataset."""
    freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """And off what the tests of a file left, so that a late one takes no longer than an early."""
    if nextitem is None or nextitem.path != item.path:
        freeze()


def freeze():
    gc.collect()
    gc.freeze()
