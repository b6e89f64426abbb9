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
from vit_backbones.distillation.standard import Sample, Standard
from vit_backbones.distillation.teacher import Teacher, resampled, tokens_of
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


def batch(found, seed=0):
    """Pixels (2, 3, H, W) on 0-255 for both models."""
    generator = torch.Generator().manual_seed(seed)
    sizes = dict(student=found.size, teacher=found.teacher_size)
    return {
        name: torch.randint(256, (2, 3, *size), generator=generator, dtype=torch.uint8)
        for name, size in sizes.items()
    }


def outputs(model, checkpoint, pixels, mean, std):
    """Feature maps (B, C, h, w) of four layers and the CLS token (B, C) of a model, on pixels."""
    vit = ViTFeatBackbone(**model, checkpoint=checkpoint, out_indices='even4').eval()
    images = (pixels.float() - mean) / std
    with torch.no_grad():
        maps = vit(images)
        vit.out_type = 'cls'
        return [*maps, vit(images)[-1]]


def standardised(values):
    """Tokens (n, c), each channel with mean 0 and deviation 1."""
    return (values - values.mean(0)) / values.std(0)


def written_out(student, teacher):
    """Mean square of what ridge regression of (B, h, w, C) or (B, C) on the sample leaves."""
    own, wanted = (
        standardised(each.double().numpy().reshape(-1, each.shape[-1]))
        for each in (student, teacher.half())
    )
    width = own.shape[1]
    weights = np.linalg.inv(own.T @ own + width * np.eye(width)) @ own.T @ wanted
    return ((own @ weights - wanted) ** 2).mean()


def distiller(found):
    return Distiller(found.student, Teacher(found.teacher, GRID, with_cls=found.with_cls))


def data_of(pixels):
    """As a data loader has it."""
    return dict(inputs={k: list(v) for k, v in pixels.items()}, data_samples=[None, None])


@pytest.mark.parametrize('teacher_size', [None, (28, 56)], ids=['equal grids', 'coarser grid'])
def test_the_losses_at_the_start_are_those_written_out(teacher_size):
    found = pair(teacher_size=teacher_size)
    assert (found.grid, found.teacher_size) == (GRID, teacher_size or (42, 70))
    model, pixels = distiller(found), batch(found)
    model.start([data_of(pixels)])
    losses = model(**model.data_preprocessor(data_of(pixels)), mode='loss')
    ours = outputs(
        dict(model_name='test_vit'), STUDENT.split('=')[1], pixels['student'], 127.5, 127.5
    )
    backbone = load_config('teacher.py').model.backbone.to_dict()
    backbone.pop('type')
    *maps, cls = outputs(backbone, CHECKPOINT, pixels['teacher'], 100, 50)
    steps = tuple(a / b for a, b in zip(maps[0].shape[2:], GRID, strict=True))
    maps = [resample_map(each, GRID, steps).movedim(1, -1) for each in maps]
    pairs = zip([each.movedim(1, -1) for each in ours[:-1]], maps, strict=True)
    assert losses.keys() == {'loss_patches', 'loss_cls'}
    expected = np.mean([written_out(*each) for each in pairs]), written_out(ours[-1], cls)
    assert losses['loss_patches'].item() == pytest.approx(expected[0], rel=1e-3)
    assert losses['loss_cls'].item() == pytest.approx(expected[1], rel=1e-3)
    assert 0.05 < expected[0] < 0.95


def test_the_features_of_the_sample_have_mean_0_and_deviation_1():
    model = distiller(found := pair())
    batches = [batch(found, seed) for seed in range(3)]
    model.start(map(data_of, batches))
    known = [model.data_preprocessor(data_of(each)) for each in batches]
    with torch.no_grad():
        for kind, standard in model.standards.items():
            for measured, of in ((standard, model._taught), (model.heads[kind][0], own(model))):
                values = torch.cat([measured(of(**each)[kind]) for each in known]).flatten(0, -2)
                std, mean = torch.std_mean(values, 0, correction=0)
                assert mean.abs().max() < 1e-4
                assert torch.allclose(std, torch.ones(()), atol=1e-3)
    assert list(model.standards) == ['patches_0', 'patches_2', 'patches_3', 'patches_5', 'cls']


def own(model):
    return lambda inputs, data_samples: model._own(inputs)


def test_a_student_that_learns_only_the_mean_has_a_loss_of_1():
    model = distiller(found := pair())
    data = data_of(batch(found))
    model.start([data])
    with torch.no_grad():
        for _, linear in model.heads.values():
            linear.weight.zero_()
    losses = model(**model.data_preprocessor(data), mode='loss')
    assert losses['loss_patches'].item() == pytest.approx(1, abs=1e-4)
    assert losses['loss_cls'].item() == pytest.approx(1, abs=1e-4)


def test_a_channel_that_is_constant_is_only_centred():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(50, 3, generator=generator) for _ in range(2))
    for values, number in ((one, 0.1), (other, -7e4)):
        values[:, 1] = number
    sample = Sample()
    sample.add(one[:20], other[:20])
    sample.add(one[20:], other[20:])
    weights = sample.regression()
    assert weights.isfinite().all()
    assert max(weights[1].abs().max(), weights[:, 1].abs().max()) < 1e-12
    for index, values in enumerate((one, other)):
        standard = Standard(3)
        standard.set(sample.means[index], sample.deviations[index])
        assert sample.deviations[index][1] == 1
        found = standard(values)
        assert found[:, 1].abs().max() < 1e-2 * (index or 1e-3)
        assert torch.allclose(found[:, ::2].std(0, correction=0), torch.ones(2), atol=1e-5)


def test_patches_of_all_stages_come_on_the_grid_of_the_last():
    vit = ViTFeatBackbone('pvt_v2_b0', out_type='raw')
    vit.out_indices = (0, 1, 2, 3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        patches, cls = tokens_of(vit, images, (2, 2))
        vit.out_type = 'featmap'
        maps = vit(images)
    assert cls is None
    for tokens, each in zip(patches, maps, strict=True):
        means = resampled(each, (2, 2)).flatten(2).transpose(1, 2)
        assert torch.allclose(tokens, means, atol=1e-5)


def test_a_finer_grid_gives_means_of_its_patches():
    maps = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    inner = resampled(nn.functional.interpolate(maps, scale_factor=3), (4, 4))
    # of 12x12 equal thirds: a cell mixes little of its neighbours
    assert torch.allclose(inner.mean((2, 3)), maps.mean((2, 3)), atol=1e-5)
    assert (inner - maps).abs().max() < 1


def test_only_the_student_learns_and_is_saved():
    found = pair()
    model = distiller(found)
    kept = {name.split('.')[0] for name in model.state_dict()}
    assert kept == {'backbone', 'heads', 'standards'}
    assert all(each.requires_grad for each in model.parameters())
    assert not any(each.requires_grad for each in found.teacher.backbone.parameters())
    model.train()
    assert not found.teacher.backbone.training


def test_without_a_cls_token_in_both_only_patches_are_learned():
    found = load_pair(Choice.named('wide.py=wide.pth'), Choice.named(STUDENT), size=SIZE)
    assert list(distiller(found).heads) == [f'patches_{index}' for index in (0, 2, 3, 5)]


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
