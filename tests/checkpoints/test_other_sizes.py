"""Tables for one image size: those saved at another one are resized by every way to load alike."""

from functools import partial

import mmengine
import pytest
import timm
import torch
from redraw import error, images, redraw
from torch import nn

from vit_backbones import ViTFeatBackbone
from vit_backbones.sources.timm_build import build_timm

SMALL = dict(depth=2, embed_dim=24, num_heads=3)
BEIT, CAIT = 'beit_base_patch16_224', 'cait_xxs24_224'
SAM = 'samvit_base_patch16'


def built(name, size, **options):
    """A redrawn backbone over a model of two blocks for images of a size."""
    more = SMALL | (dict(img_size=size) if name == SAM else {})
    build = partial(build_timm, more=more)
    vit = ViTFeatBackbone(name, source=build, img_size=size, **options)
    return (vit if 'checkpoint' in options else redraw(vit)).eval()


def by_torch(vit, path):
    whole = nn.ModuleDict(dict(backbone=vit))
    whole.load_state_dict(torch.load(path))


def by_mmengine(vit, path):
    whole = nn.ModuleDict(dict(backbone=vit))
    mmengine.runner.load_checkpoint(whole, str(path), map_location='cpu')


def save(vit, folder):
    path = folder / 'whole.pth'
    torch.save(nn.ModuleDict(dict(backbone=vit)).state_dict(), path)
    return path


@pytest.mark.parametrize('load', [by_torch, by_mmengine])
@pytest.mark.parametrize('name', [BEIT, CAIT, SAM, 'convit_tiny', 'vit_relpos_small_patch16_224'])
def test_whole_models_are_resized_as_checkpoints(name, load, tmp_path):
    path = save(built(name, (224, 224)), tmp_path)
    expected = built(name, (192, 192), checkpoint=path)
    vit = built(name, (192, 192))
    load(vit, path)
    assert expected.state_dict().keys() == vit.state_dict().keys()
    for key, tensor in vit.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[key]), key


@pytest.mark.parametrize('load', [by_torch, by_mmengine])
@torch.no_grad()
def test_rectangles_of_beit_are_resized_by_their_recorded_grid(load, tmp_path):
    saved = built(BEIT, (96, 160))
    for size in ((160, 96), (128, 192)):  # the first has as many relative positions
        reference = timm.create_model(BEIT, **SMALL, img_size=(96, 160), num_classes=0).eval()
        reference.load_state_dict(saved.vit.state_dict(), strict=False)
        reference.set_input_size(size)
        expected = reference.forward_intermediates(images(*size), intermediates_only=True)[-1]
        vit = built(BEIT, size)
        load(vit, save(saved, tmp_path))
        assert error(vit(images(*size))[0], expected) <= 1
        again = built(BEIT, size, checkpoint=save(saved, tmp_path))
        assert error(again(images(*size))[0], expected) <= 1


@torch.no_grad()
def test_positions_of_cait_are_resampled_to_a_rectangle(tmp_path):
    reference = redraw(timm.create_model(CAIT, **SMALL, num_classes=0)).eval()
    torch.save(reference.state_dict(), tmp_path / 'square.pth')
    vit = built(CAIT, (96, 160), checkpoint=tmp_path / 'square.pth', norm='none')
    wide = timm.create_model(CAIT, **SMALL, img_size=(96, 160), num_classes=0).eval()
    table = timm.layers.resample_abs_pos_embed(reference.pos_embed, (6, 10), num_prefix_tokens=0)
    wide.load_state_dict(reference.state_dict() | dict(pos_embed=table))
    expected = wide.forward_intermediates(images(96, 160), intermediates_only=True)[-1]
    assert error(vit(images(96, 160))[0], expected) <= 1


@pytest.mark.parametrize('load', [by_torch, by_mmengine])
def test_what_cannot_be_resized_is_refused_in_one_line(load, tmp_path):
    saved = ViTFeatBackbone('pit_ti_224')
    vit = ViTFeatBackbone('pit_ti_224', img_size=(256, 320))
    message = (
        r"^'pit_ti_224' is built for images of 256x320, and 1 tensors of the file cannot be "
        r'resized \(first pos_embed \(1, 64, 27, 27\) for \(1, 64, 31, 39\)\): build it with the '
        r'img_size of the file$'
    )
    with pytest.raises(ValueError, match=message):
        load(vit, save(saved, tmp_path))


def test_tables_of_an_unknown_rectangle_are_refused_in_one_line(tmp_path):
    oblong = built(BEIT, (96, 160)).vit.state_dict()
    torch.save(oblong, tmp_path / 'oblong.pth')
    with pytest.raises(ValueError, match=r'tables that timm cannot resize') as caught:
        built(BEIT, (128, 192), checkpoint=tmp_path / 'oblong.pth')
    assert '\n' not in str(caught.value)


def test_another_architecture_is_told_by_torch(tmp_path):
    narrow = ViTFeatBackbone(SAM, source=partial(build_timm, more=SMALL | dict(img_size=224)))
    wide = SMALL | dict(img_size=224, embed_dim=48)
    other = ViTFeatBackbone(SAM, source=partial(build_timm, more=wide))
    with pytest.raises(RuntimeError, match=r'size mismatch for backbone\.vit\.patch_embed'):
        by_torch(other, save(narrow, tmp_path))
