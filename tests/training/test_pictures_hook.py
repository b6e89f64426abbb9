"""Names of the pictures that a training draws."""

from types import SimpleNamespace

from vit_backbones.training.pictures_hook import _file_name


def test_pictures_of_equal_names_in_two_folders_are_kept_apart():
    dataset = SimpleNamespace(data_prefix=dict(img_path='data/val'))
    names = [_file_name(f'data/val/{folder}/1.jpg', dataset) for folder in 'ab']
    assert names == ['a_1.png', 'b_1.png']
    assert _file_name('elsewhere/1.jpg', SimpleNamespace()) == 'elsewhere_1.png'
