"""Tar and Parquet files of images with any bytes changed, cut off or put in."""

import contextlib
import io
import tarfile

import pytest
from fuzzing import Fuzz, one
from hypothesis import strategies as st
from PIL import Image

from vit_backbones.images import UnreadableImageError, image_size, read_image
from vit_backbones.shards.contents import LARGEST, ShardError
from vit_backbones.shards.found import Shard

BYTES = st.integers(0, 2**20), st.binary(max_size=12), one(True, True, True, False)
CHANGES = st.lists(st.tuples(*BYTES), max_size=1)
DRAWN = st.tuples(one('tar', 'parquet'), CHANGES, one(1, 1, 1, 0.9, 0.4))


@pytest.fixture(scope='module')
def originals():
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    file = io.BytesIO()
    Image.effect_noise((16, 12), 50).save(file, 'JPEG')
    image, tar, table = file.getvalue(), io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w', format=tarfile.PAX_FORMAT) as archive:
        for name in ('a/1.jpg', 'a/1.json', f'{"é" * 90}.jpg', 'a/3.jpg'):
            info = tarfile.TarInfo(name)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    structs = [dict(bytes=image, path=None), None, dict(bytes=b'404', path='x')]
    columns = dict(image=pa.array(structs), label=[1, 2, 3])
    parquet.write_table(pa.table(columns), table, row_group_size=2, write_page_checksum=True)
    return dict(tar=tar.getvalue(), parquet=table.getvalue())


def read_all(shard):
    """All images of a shard; each is one, or there is a reason in one line."""
    for key, image in shard.samples():
        assert isinstance(key, str)
        if isinstance(image, str):
            assert image.count('\n') == 0
            continue
        assert len(image.getvalue()) <= LARGEST
        with contextlib.suppress(UnreadableImageError):
            assert read_image(image).shape[:2] == image_size(image)


def fuzz(originals, folder):
    def attempt(drawn):
        kind, changes, kept = drawn
        content = originals[kind]
        for place, new, replaces in changes:
            at = place % (len(content) + 1)
            content = content[:at] + new + content[at + len(new) * replaces :]
        path = folder / f'x.{kind}'
        path.write_bytes(content[: int(kept * len(content))])
        read_all(Shard('x', [path]))

    return Fuzz(attempt, [ShardError])


def test_shards_with_other_bytes(originals, tmp_path):
    assert fuzz(originals, tmp_path).run(DRAWN) == []


@pytest.mark.slow
def test_many_shards_with_other_bytes(originals, tmp_path):
    assert fuzz(originals, tmp_path).run(DRAWN, slow=True) == []
