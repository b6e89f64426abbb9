"""What an extraction has to do, from headers alone."""

from pathlib import Path

import pytest
from PIL import Image

from vit_backbones.features.plan import make_plan
from vit_backbones.images import resizing


@pytest.fixture
def draw(tmp_path):
    def write(name, height, width):
        Image.new('RGB', (width, height)).save(tmp_path / name)
        return tmp_path / name

    return write


def test_a_batch_holds_one_size__the_largest_come_first(draw):
    sizes = dict(a=(20, 30), b=(40, 30), c=(20, 30), d=(20, 30), e=(30, 20))
    paths = [draw(f'{name}.png', *size) for name, size in sizes.items()]
    plan = make_plan(paths, resizing(None, None), 2)
    names = [[Path(item.path).stem for item in batch] for batch in plan.batches]
    assert names == [['b'], ['a', 'c'], ['d'], ['e']]
    assert all(len({item.size for item in batch}) == 1 for batch in plan.batches)


def test_images_that_resizing_makes_alike_share_a_batch(draw):
    paths = [draw('a.png', 20, 30), draw('b.png', 40, 60)]
    (batch,) = make_plan(paths, resizing([20], None), 8).batches
    assert [(item.shown, item.size) for item in batch] == [
        ((20, 30), (20, 30)),
        ((40, 60), (20, 30)),
    ]


def test_unreadable_headers_are_set_aside(draw, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'nothing')
    plan = make_plan([tmp_path / 'a.png', draw('b.png', 2, 3)], resizing(None, None), 8)
    assert plan.unreadable == {0: 'no image, or a damaged one'}
    assert list(plan.items) == [1]


def test_names_that_no_file_can_hold_are_set_aside():
    plan = make_plan([Path('a\udcff.png')], resizing(None, None), 8)
    assert plan.unreadable == {0: 'its name is not UTF-8'}
