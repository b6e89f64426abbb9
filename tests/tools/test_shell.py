"""Each tool through the shell, from another folder: what it prints last, and what it leaves."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from slow import few
from trained_models import write_images, write_segmenter

RANDOM = ['--model', 'test_vit', '--random-weights', '0']
# Tool or module, arguments, the last line of what it prints, files it writes
RUNS = [
    (
        'extract_features',
        ['images', *RANDOM, '--out', 'out/f.parquet', '--device', 'cpu'],
        r'3 images, 64 numbers each \(pool=model, layer 5\) · .* · out/f.parquet',
        ['out/f.parquet'],
    ),
    (
        'visualize',
        ['images', *RANDOM, '--out', 'pca', '--size', '64', '--device', 'cpu'],
        r'3 pictures: pca/\*_pca\.png, pca/contact_sheet\.png.*',
        ['pca/a_pca.png', 'pca/b_pca.png', 'pca/c_pca.png', 'pca/contact_sheet.png'],
    ),
    (
        'predict',
        ['seg.py', 'seg.pth', 'images', '--out', 'predicted', '--device', 'cpu'],
        r'3 images: predicted/masks, predicted/pictures',
        [f'predicted/{kind}/{name}.png' for kind in ('masks', 'pictures') for name in 'abc'],
    ),
    (
        'analyze',
        ['run', '--curves-only', '--out', 'analysis'],
        r'wrote analysis/curves\.png',
        ['analysis/curves.png'],
    ),
    (
        'benchmark',
        'speed test_vit --sizes 64x96 --repeats 1 --peers --device cpu --out s.json'.split(),
        r'wrote s\.json',
        ['s.json'],
    ),
    (
        'benchmark',
        ['quality', 'own', '--models', 'test_vit', '--random-weights', '0', '--out', 'q.json'],
        r'wrote q\.json',
        ['q.json'],
    ),
    (
        'benchmark',
        ['table', *map(str, (REPOSITORY / 'docs/results').glob('*.json')), '--plot', 't.png'],
        r'wrote t\.png',
        ['t.png'],
    ),
    (
        'export_onnx',
        [*RANDOM, '--size', '64', '96', '--out', 'v.onnx'],
        r'largest difference from PyTorch \S+; \S+ of the largest value of .*, 1e-04 allowed',
        ['v.onnx'],
    ),
    ('-m', ['list', 'vit_tiny_patch16_224.augreg_in21k'], r'vit_tiny\S+ +5\.5 M .*', []),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with images, a trained config, the log of a training and labelled images."""
    root = tmp_path_factory.mktemp('elsewhere')
    write_images(root / 'images', (64, 96), (50, 33), (64, 96))
    write_segmenter(root)
    log = root / 'run/20260101_000000/vis_data'
    log.mkdir(parents=True)
    lines = [{'loss': 1 / step, 'epoch': step, 'iter': step, 'step': step} for step in (1, 2, 3)]
    (log / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    (root / 'run/seg.py').write_text((root / 'seg.py').read_text())
    for split in ('train', 'val'):
        write_images(root / f'own/images/{split}', *[(64, 96)] * 5)
        (root / f'own/masks/{split}').mkdir(parents=True)
        for name in 'abcde':
            mask = np.repeat(np.uint8([0, 1]), 48)[None].repeat(64, 0)
            Image.fromarray(mask).save(root / f'own/masks/{split}/{name}.png')
    return root


@pytest.mark.parametrize(
    ('tool', 'arguments', 'last', 'files'),
    few(RUNS, 'extract_features'),
    ids=[f'{run[0]} {run[1][0]}' for run in RUNS],
)
def test_tool_works_from_another_folder(tool, arguments, last, files, folder):
    start = ['-m', 'vit_backbones'] if tool == '-m' else [REPOSITORY / f'tools/{tool}.py']
    run = subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.fullmatch(last, run.stdout.splitlines()[-1]), run.stdout + run.stderr
    assert 'Traceback' not in run.stderr
    assert all((folder / file).stat().st_size for file in files)
