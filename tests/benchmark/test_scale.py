"""What many images cost: drawn embeddings and shards, measured; and the arithmetic beyond."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image

from vit_backbones.benchmark.projection import extraction_figures, state_figures, training_figures
from vit_backbones.embeddings.store import open_store

pytest.importorskip('pyarrow')


@pytest.fixture
def main(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_tool('benchmark').main


def steps(file):
    return {step['step']: step for step in json.loads(Path(file).read_text())['steps']}


def test_drawn_embeddings_are_written_indexed_and_searched(main, monkeypatch, capsys):
    pytest.importorskip('faiss', reason='FAISS is not installed: requirements-optional.txt')
    monkeypatch.setattr('vit_backbones.benchmark.scale._ROWS', 600)
    words = ['scale', '--rows', '2000', '--dims', '48', '--folder', 'data', '--out', 'a.json']
    assert main(words) == 0
    store = open_store('data')
    assert (store.counts, store.length) == ([600, 600, 600, 200], 48)
    found = steps('a.json')
    assert [*found] == ['write', 'build the index', 'scan for one query', 'search the index']
    assert found['write']['number'] == 2000
    assert found['write']['bytes'] > 2000 * 48 * 2
    assert found['search the index']['recall'] > 0.85
    row = capsys.readouterr().out.splitlines()[3]
    assert row.startswith('| write | 2,000 | ')
    assert main(words) == 2
    assert capsys.readouterr().err == 'error: data is not empty: name a new folder\n'


def test_files_tar_and_parquet_give_equal_embeddings(main):
    Path('images').mkdir()
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30 + number, 3), np.uint8)
        Image.fromarray(pixels).save(f'images/{number}.png')
    model = ['--model', 'test_vit', '--random-weights', '0', '--size', '32', '32']
    words = ['scale', 'images', *model, '--device', 'cpu', '--folder', 'data', '--out', 'a.json']
    assert main(words) == 0
    found = steps('a.json')
    kinds = ('files', 'tar', 'Parquet')
    assert [*found] == [f'{doing} {kind}' for doing in ('read', 'extract from') for kind in kinds]
    assert {step['number'] for step in found.values()} == {7}


def record(**steps):
    made = [
        dict(step=name.replace('_', ' '), number=n, cpu_seconds=s, bytes=b)
        for name, (n, s, b) in steps.items()
    ]
    return dict(dims=384, steps=made)


GPU = [
    dict(case='gpu_windows', figures=dict(time=dict(**{'global': 16.388}))),
    dict(case='gpu_vitdet', figures=dict(time=dict(rel_pos=100.0))),
    dict(case='gpu_mask2former_8', figures=dict(time=dict(ours=400.0))),
]


def test_a_billion_images_by_hand():
    million = record(write=(10**6, 10, 778 * 10**6), build_the_index=(10**6, 100, 776 * 10**6))
    figures = extraction_figures(million, record(read_tar=(100, 0.5, 10**7)), GPU)
    found = {each.what: each.figure for each in figures}
    # 4 x 4097 tokens in 16.388 ms are a million tokens/s, of 197 each
    assert found['images/s of a GPU, ViT-B, 224x224'] == '5,076'
    assert found['GPU-hours, if images come fast enough'] == '55'  # 1e9 / 5076 / 3600
    assert found['images/s of a core: read a tar, decode, resize'] == '200'
    assert found['cores that feed a GPU'] == '26'
    assert found['images/s of a GPU with 16 cores'] == '3,200'
    assert found['GPU-hours with them'] == '87'  # 1e9 / 3200 / 3600
    assert found['days on 1, 4 and 16 machines of 8 GPUs'] == '0.5, 0.1, 0.0'
    assert found['bytes to read'] == '100 TB'
    assert found['embeddings of 768 numbers, half precision'] == '1.55 TB in 100,000 files'
    assert found['core-hours to write them'] == '6'  # 1e9 / 1e5 * 2 / 3600
    assert found['an index'] == '1.54 TB'
    assert found['core-hours to build one index of all'] == '1,757'  # 100 * 1000^1.5 * 2 / 3600
    assert found['core-hours to build 100 indices of ten million'] == '176'


def test_trainings_and_states_by_hand():
    vitdet, mask2former = training_figures(GPU)
    # 40 images/s, 100 epochs of 118,287 images
    assert vitdet[1:] == ['40', '100', '82.1', '10.3', '5.1', '1.3', '6,944']
    assert mask2former[1:3] == ['20', '50']
    assert state_figures()[0] == ['ViT-L', '303 M', '4.5', '0.6', '0.3', '0.1']
