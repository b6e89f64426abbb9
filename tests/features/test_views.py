"""Pictures of features and attention."""

import numpy as np
import pytest
import timm
from PIL import Image

from vit_backbones import ViTFeatBackbone
from vit_backbones.features.attention_maps import attention_maps
from vit_backbones.features.views import _as_input, _resize, draw_attention, draw_pca
from vit_backbones.images import ImageWalk
from vit_backbones.models.chosen import Loaded
from vit_backbones.models.random_weights import redraw


@pytest.fixture(scope='module')
def loaded():
    vit = redraw(timm.create_model('test_vit', num_classes=0))
    backbone = ViTFeatBackbone.from_module(vit, out_indices=(0, 3), norm='all')
    backbone.requires_grad_(False).eval()
    return Loaded(backbone, 'test_vit', 'redrawn', (127.5,) * 3, (127.5,) * 3)


@pytest.fixture
def walk(tmp_path):
    """Two images that share their left half."""
    rng = np.random.default_rng(0)
    left, *rights = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for i, right in enumerate(rights):
        Image.fromarray(np.hstack([left, right])).save(tmp_path / f'{i}.png')
    return ImageWalk([tmp_path / '0.png', tmp_path / '1.png'], 'drawing')


def pixels(picture, column):
    """Of a panel of 64 x 128 pixels, one of 16 x 16."""
    return np.asarray(picture)[22 + 8 :: 16, 3 + column * 134 + 8 :: 16][:4, :8]


def test_pca__a_panel_a_layer(loaded, walk):
    (name, picture), _ = draw_pca(loaded, walk, [64])
    assert (name, picture.size) == ('0', (3 * 134, 92))
    assert np.array_equal(np.asarray(picture)[22:86, 3:131], next(iter(walk)).pixels)
    panels = [pixels(picture, column) for column in (1, 2)]
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 20 for panel in panels)
    assert not np.array_equal(*panels)


def test_pca__is_the_same_each_time(loaded, walk):
    first, second = (next(draw_pca(loaded, walk, [64]))[1] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_pca__joint_colours_mean_the_same_in_all(loaded, walk, tmp_path):
    """An image has other colours beside another one, and those of a copy of it."""
    (_, alone), _ = draw_pca(loaded, walk, [64])
    (_, beside), _ = draw_pca(loaded, walk, [64], joint=True)
    assert not np.array_equal(np.asarray(alone), np.asarray(beside))
    same = ImageWalk([walk.paths[0]], 'drawing')
    [(_, single)] = draw_pca(loaded, same, [64], joint=True)
    assert np.array_equal(np.asarray(single), np.asarray(alone))


def test_attention__a_row_a_layer_and_a_panel_a_head(loaded, walk):
    (_, picture), _ = draw_attention(loaded, walk, [64])
    assert picture.size[1] == 2 * 92
    weights = attention_maps(loaded.backbone, _as_input(loaded, next(iter(walk)).pixels, [64])[1])
    step = picture.width // 4
    panel = np.asarray(picture)[22 + 8 : 86 : 16, 3 + step + 8 : 131 + step : 16]
    order = np.argsort(weights[0][0, 0].flatten().numpy())
    brightness = panel.reshape(-1, 3).sum(-1)[order].astype(int)
    assert (np.diff(brightness) >= -3).all()
    assert brightness[-1] - brightness[0] > 200


def test_attention__chosen_heads(loaded, walk):
    (_, all_heads), _ = draw_attention(loaded, walk, [64])
    (_, second), _ = draw_attention(loaded, walk, [64], heads=[1])
    step = second.width // 3
    one, other = np.asarray(second), np.asarray(all_heads)
    assert np.array_equal(one[22:86, step + 3 : step + 131], other[22:86, 2 * step + 3 :][:, :128])


def test_attention__heads_that_there_are_not(loaded, walk):
    with pytest.raises(ValueError, match='--heads 2: layer 0 has the heads 0 to 1'):
        next(draw_attention(loaded, walk, heads=[2]))


def test_sizes(loaded):
    assert _resize(loaded, None)((100, 200)) == (256, 512)
    assert _resize(loaded, [300])((100, 200)) == (300, 600)
    assert _resize(loaded, [64, 80])((100, 200)) == (64, 80)


def test_sizes__models_of_one_size_get_it():
    vit = timm.create_model('eva02_tiny_patch14_224', depth=1, embed_dim=12, num_heads=1)
    fixed = Loaded(ViTFeatBackbone.from_module(vit), 'eva02', '', (0.0,) * 3, (1.0,) * 3)
    assert _resize(fixed, None)((100, 200)) == (224, 224)
