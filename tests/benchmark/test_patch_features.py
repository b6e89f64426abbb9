import numpy as np
import pytest
import torch
from PIL import Image

from vit_backbones.benchmark.patch_features import compute_features
from vit_backbones.images import UnreadableImageError
from vit_backbones.loaders import RGB_READER
from vit_backbones.models.chosen import Choice, load_backbone

CPU = torch.device('cpu')
LAYERS = (1, -1)


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('images') / 'a.png'
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def load(seed=0, **options):
    choice = Choice(model='test_vit', random_weights=seed, layers=LAYERS)
    return load_backbone(choice, **dict(norm='all') | options)


def kept(features):
    """The features of each image."""
    return [features.parts.arrays(item.index, 1)[0] for item in features.items]


def test_features_are_the_layers_after_each_other(image, tmp_path):
    loaded = load()
    features = compute_features(loaded, [image], tmp_path, device=CPU)
    pixels = torch.tensor(np.asarray(Image.open(image))).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (loaded.mean, loaded.std))
    with torch.no_grad():
        expected = torch.cat(loaded.backbone((pixels - mean) / std), 1)[0]
    (array,) = kept(features)
    assert array.dtype == np.float16
    torch.testing.assert_close(torch.tensor(array).float(), expected, rtol=2e-3, atol=2e-3)
    assert features.stride == (16, 16)
    assert features.images_per_second > 0


@pytest.mark.parametrize(
    'other',
    [
        dict(seed=1),
        dict(norm='none'),
        dict(window_size=2, window_block_indexes=(0,)),
        dict(pos_interp='original'),
    ],
)
def test_what_changes_features_gets_files_of_its_own(image, tmp_path, other):
    for given in ({}, {}, other):
        compute_features(load(**given), [image], tmp_path, device=CPU)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_speed_of_another_number_of_threads_is_not_told(image, tmp_path, monkeypatch):
    loaded = load()
    first = compute_features(loaded, [image], tmp_path, device=CPU).images_per_second
    assert compute_features(loaded, [image], tmp_path, device=CPU).images_per_second == first
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 77)
    assert compute_features(loaded, [image], tmp_path, device=CPU).images_per_second is None


def test_one_weight_that_differs_gets_files_of_its_own(image, tmp_path):
    loaded = load()
    compute_features(loaded, [image], tmp_path, device=CPU)
    next(loaded.backbone.parameters()).data.flatten()[0] += 1e-3
    compute_features(loaded, [image], tmp_path, device=CPU)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_model_of_one_size_needs_images_of_it(image, tmp_path):
    choice = Choice(model='eva02_tiny_patch14_224', random_weights=0, layers=[0])
    loaded = load_backbone(choice, norm='all')
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(loaded.backbone.source), 'fixed_size', lambda self, vit: (28, 42))
        with pytest.raises(ValueError, match=r'a\.png: the model takes only images of 28x42'):
            compute_features(loaded, [image], tmp_path, device=CPU)
        compute_features(loaded, [image], tmp_path, size=(28, 42), device=CPU)


def test_an_image_that_can_be_read_later_is_not_lost(image, tmp_path):
    refusing = load()._replace(reader=RGB_READER._replace(read=refused))
    with pytest.raises(ValueError, match=r'a\.png: Permission denied'):
        compute_features(refusing, [image], tmp_path, device=CPU)
    assert len(kept(compute_features(load(), [image], tmp_path, device=CPU))) == 1


def refused(path):
    raise UnreadableImageError(f'{path}: Permission denied')


def test_a_run_that_cannot_write_leaves_nothing_half(image, tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(28, 'No space left on device', str(file))

    loaded = load()
    with monkeypatch.context() as patched:
        patched.setattr('pathlib.Path.write_bytes', full)
        with pytest.raises(OSError, match='No space left'):
            compute_features(loaded, [image], tmp_path, device=CPU)
    assert not [each for each in tmp_path.rglob('*') if each.is_file()]


def test_values_beyond_float16_stay_finite(image, tmp_path):
    loaded = load(norm='none')
    for parameter in loaded.backbone.vit.blocks[-1].mlp.fc2.parameters():
        parameter.data *= 1e7
    (array,) = kept(compute_features(loaded, [image], tmp_path, device=CPU))
    assert np.isfinite(array).all()
    assert np.abs(array).max() == np.finfo(np.float16).max
