"""Files of embeddings as `tools/extract_features.py` writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_embeddings(tmp_path, monkeypatch):
    """Write a Parquet file of vectors into the current folder, an empty one; gives its path."""
    import pyarrow as pa  # slow, and few tests need it
    from pyarrow import parquet

    monkeypatch.chdir(tmp_path)

    def write(vectors, paths=None, name='file.parquet', **settings):
        vectors = np.asarray(vectors)
        paths = [f'images/{i}.png' for i in range(len(vectors))] if paths is None else paths
        sides = pa.array([20] * len(vectors), pa.int32())
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table = pa.table(
            dict(path=pa.array(paths, pa.string()), height=sides, width=sides, embedding=values)
        )
        if settings:
            table = table.replace_schema_metadata({'vit_backbones': json.dumps(settings)})
        parquet.write_table(table, name)
        return Path(name)

    return write


@pytest.fixture
def grouped_vectors():
    """Vectors (12, 4) of three directions, with 6, 4 and 2 of each, and the number of each's."""
    numbers = np.array([0, 1, 0, 2, 1, 0, 0, 1, 0, 2, 1, 0])
    noise = np.random.default_rng(0).normal(size=(12, 4)) * 0.05
    scales = np.random.default_rng(1).uniform(0.5, 5, (12, 1))
    return (np.eye(4)[numbers] + noise).astype(np.float32) * scales.astype(np.float32), numbers


@pytest.fixture
def colored_images(tmp_path, monkeypatch):
    """Twelve images of a colour each, 30 x 20, below the current folder; gives the colours."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'images').mkdir()
    colors = [(20 * i + 10, 250 - 20 * i, 128) for i in range(12)]
    for i, color in enumerate(colors):
        Image.new('RGB', (30, 20), color).save(tmp_path / f'images/{i}.png')
    return colors
