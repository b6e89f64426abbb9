"""The losses of a distillation against ones written out, on models of other patches and widths."""

import numpy as np
import pytest
import torch
from distilled_models import CHECKPOINT, STUDENT, TEACHER, write_models
from torch import nn

from vit_backbones import ViTFeatBackbone
from vit_backbones.config.loading import load_config
from vit_backbones.distillation.crops import CropForBoth
from vit_backbones.distillation.distiller import Distiller
from vit_backbones.distillation.pairing import load_pair
from vit_backbones.distillation.teacher import Teacher, resampled
from vit_backbones.models.chosen import Choice
from vit_backbones.position import resample_map
from vit_backbones.training.seeded_data import seeded

SIZE, GRID = (48, 80), (3, 5)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_models()


def pair(teacher=TEACHER, student=STUDENT, **sizes):
    return load_pair(Choice.named(teacher), Choice.named(student), size=SIZE, **sizes)


def batch(found):
    """Pixels (2, 3, H, W) on 0-255 for both models."""
    generator = torch.Generator().manual_seed(0)
    sizes = dict(student=found.size, teacher=found.teacher_size)
    return {
        name: torch.randint(256, (2, 3, *size), generator=generator, dtype=torch.uint8)
        for name, size in sizes.items()
    }


def outputs(model, checkpoint, pixels, mean, std):
    """The feature map (B, C, h, w) and the CLS token (B, C) of a model, on pixels."""
    vit = ViTFeatBackbone(**model, checkpoint=checkpoint).eval()
    images = (pixels.float() - mean) / std
    found = []
    with torch.no_grad():
        for vit.out_type in ('featmap', 'cls'):
            found += vit(images)
    return found


def normed(values):
    """Mean 0 and deviation 1 along the last axis, as numbers of 16 bits."""
    values = values.astype(np.float64)
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled.astype(np.float32).astype(np.float16).astype(np.float64)


def written_out(student, teacher, head):
    """0.9 of 1 - cosine, and 0.1 of smooth L1, for tokens (..., C)."""
    weight, bias = (each.detach().double().numpy() for each in (head.weight, head.bias))
    found, wanted = student.double().numpy() @ weight.T + bias, normed(teacher.numpy())
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    cosine = 1 - ((found * wanted).sum(-1) / lengths).mean()
    gap = np.abs(found - wanted)
    return 0.9 * cosine + 0.1 * np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()


@pytest.mark.parametrize('teacher_size', [None, (28, 56)], ids=['equal grids', 'coarser grid'])
def test_the_losses_are_those_written_out(teacher_size):
    found = pair(teacher_size=teacher_size)
    assert (found.grid, found.teacher_size) == (GRID, teacher_size or (42, 70))
    model = Distiller(found.student, Teacher(found.teacher, GRID, with_cls=True))
    pixels = batch(found)
    data = dict(inputs={k: list(v) for k, v in pixels.items()}, data_samples=[None, None])
    losses = model(**model.data_preprocessor(data), mode='loss')
    ours = outputs(
        dict(model_name='test_vit'), STUDENT.split('=')[1], pixels['student'], 127.5, 127.5
    )
    backbone = load_config('teacher.py').model.backbone.to_dict()
    backbone.pop('type')
    maps, cls = outputs(backbone, CHECKPOINT, pixels['teacher'], 100, 50)
    maps = resample_map(maps, GRID, tuple(a / b for a, b in zip(maps.shape[2:], GRID, strict=True)))
    tokens = [each.flatten(2).transpose(1, 2) for each in (ours[0], maps)]
    assert losses.keys() == {'loss_patches', 'loss_cls'}
    heads = model.heads
    expected = written_out(*tokens, heads['patches']), written_out(ours[1], cls, heads['cls'])
    assert losses['loss_patches'].item() == pytest.approx(expected[0], abs=2e-5)
    assert losses['loss_cls'].item() == pytest.approx(expected[1], abs=2e-5)


def test_a_finer_grid_gives_means_of_its_patches():
    maps = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    inner = resampled(nn.functional.interpolate(maps, scale_factor=3), (4, 4))
    # of 12x12 equal thirds: a cell mixes little of its neighbours
    assert torch.allclose(inner.mean((2, 3)), maps.mean((2, 3)), atol=1e-5)
    assert (inner - maps).abs().max() < 1


def test_only_the_student_learns_and_is_saved():
    found = pair()
    model = Distiller(found.student, Teacher(found.teacher, GRID, with_cls=True))
    assert {name.split('.')[0] for name in model.state_dict()} == {'backbone', 'heads'}
    assert all(each.requires_grad for each in model.parameters())
    assert not any(each.requires_grad for each in found.teacher.backbone.parameters())
    model.train()
    assert not found.teacher.backbone.training


def test_without_a_cls_token_in_both_only_patches_are_learned():
    found = load_pair(Choice.named('wide.py=wide.pth'), Choice.named(STUDENT), size=SIZE)
    model = Distiller(found.student, Teacher(found.teacher, GRID, with_cls=found.with_cls))
    assert list(model.heads) == ['patches']


def test_both_crops_show_the_same_part():
    rows, columns = np.mgrid[0:64, 0:96].astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    crop = CropForBoth(student=(32, 48), teacher=(28, 42))
    seen = set()
    for number in range(12):
        with seeded(number):
            given = crop(dict(img=image, img_path='a.png'))
        box, mirrored = (given['data_samples'].metainfo[key] for key in ('box', 'mirrored'))
        for name, size in crop.sizes.items():
            pixels = given['inputs'][name].numpy()
            assert pixels.shape == (3, *size)
            left, top, right, bottom = box
            ramp = np.arange(size[0]) + 0.5
            assert (
                np.abs(pixels[0].mean(1) - (top + ramp * (bottom - top) / size[0] - 0.5)).max() < 2
            )
            ramp = np.arange(size[1])[:: -1 if mirrored else 1] + 0.5
            across = left + ramp * (right - left) / size[1] - 0.5
            assert np.abs(pixels[1].mean(0) - across).max() < 2
        seen.add((box, mirrored))
    assert len(seen) == 12
    assert {mirrored for _, mirrored in seen} == {False, True}
