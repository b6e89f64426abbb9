"""Pictures of features and attention."""

import numpy as np
import pytest
import timm
from PIL import Image

from vit_backbones import ViTFeatBackbone
from vit_backbones.features.attention_maps import attention_maps
from vit_backbones.features.views import draw_attention, draw_pca, fit_colors, viewer
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
def small(loaded):
    """The engine for images of 64 pixels."""
    return viewer(loaded, [64])


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


def test_pca__a_panel_a_layer(small, walk):
    (name, picture), _ = draw_pca(small, walk)
    assert (name, picture.size) == ('0', (3 * 134, 92))
    assert np.array_equal(np.asarray(picture)[22:86, 3:131], next(iter(walk)).pixels)
    panels = [pixels(picture, column) for column in (1, 2)]
    assert all(len(np.unique(panel.reshape(-1, 3), axis=0)) > 20 for panel in panels)
    assert not np.array_equal(*panels)


def test_pca__is_the_same_each_time(small, walk):
    first, second = (next(draw_pca(small, walk))[1] for _ in range(2))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_pca__joint_colours_mean_the_same_in_all(small, walk, tmp_path):
    """An image has other colours beside another one, and those of a copy of it."""
    (_, alone), _ = draw_pca(small, walk)
    (_, beside), _ = draw_pca(small, walk, joint=True)
    assert not np.array_equal(np.asarray(alone), np.asarray(beside))
    same = ImageWalk([walk.paths[0]], 'drawing')
    [(_, single)] = draw_pca(small, same, joint=True)
    assert np.array_equal(np.asarray(single), np.asarray(alone))


def test_attention__a_row_a_layer_and_a_panel_a_head(loaded, small, walk):
    (_, picture), _ = draw_attention(small, walk)
    assert picture.size[1] == 2 * 92
    weights = attention_maps(loaded.backbone, small.pixels([next(iter(walk)).pixels]))
    step = picture.width // 4
    panel = np.asarray(picture)[22 + 8 : 86 : 16, 3 + step + 8 : 131 + step : 16]
    order = np.argsort(weights[0][0, 0].flatten().numpy())
    brightness = panel.reshape(-1, 3).sum(-1)[order].astype(int)
    assert (np.diff(brightness) >= -3).all()
    assert brightness[-1] - brightness[0] > 200


def test_attention__chosen_heads(small, walk):
    (_, all_heads), _ = draw_attention(small, walk)
    (_, second), _ = draw_attention(small, walk, heads=[1])
    step = second.width // 3
    one, other = np.asarray(second), np.asarray(all_heads)
    assert np.array_equal(one[22:86, step + 3 : step + 131], other[22:86, 2 * step + 3 :][:, :128])


def test_attention__heads_that_there_are_not(loaded, walk):
    with pytest.raises(ValueError, match='heads=2: layer 0 has the heads 0 to 1'):
        next(draw_attention(viewer(loaded), walk, heads=[2]))


def test_sizes(loaded):
    assert viewer(loaded).resize((100, 200)) == (256, 512)
    assert viewer(loaded, [300]).resize((100, 200)) == (300, 600)
    assert viewer(loaded, [64, 80]).resize((100, 200)) == (64, 80)


def test_sizes__models_of_one_size_get_it():
    vit = timm.create_model('eva02_tiny_patch14_224', depth=1, embed_dim=12, num_heads=1)
    fixed = Loaded(ViTFeatBackbone.from_module(vit), 'eva02', '', (0.0,) * 3, (1.0,) * 3)
    assert viewer(fixed).resize((100, 200)) == (224, 224)


# Principal components as colours


@pytest.fixture
def features():
    scales = np.array([5.0, 3.0, 2.0, 0.1, 0.1, 0.1])
    return np.random.default_rng(0).normal(size=(200, 6)) * scales + 7


def test_colors_are_those_of_the_singular_value_decomposition(features):
    values = (features - features.mean(0)) @ np.linalg.svd(features - features.mean(0))[2][:3].T
    low, high = np.percentile(values, (1, 99), axis=0)
    expected = 255 * ((values - low) / (high - low)).clip(0, 1)
    colors = fit_colors(features)(features).astype(float)
    same = np.minimum(abs(colors - expected), abs(255 - colors - expected))  # up to the sign
    assert same.max() <= 1


def test_signs_do_not_depend_on_the_order_of_patches(features):
    turned = fit_colors(features[::-1]).components
    np.testing.assert_allclose(fit_colors(features).components, turned, atol=1e-8)


def test_equal_patches_are_grey():
    assert (fit_colors(np.ones((1, 8)))(np.ones((2, 3, 8))) == 128).all()
