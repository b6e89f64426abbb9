import pytest
import torch
import torch.nn.functional as F
from mmseg.evaluation.metrics import IoUMetric
from sklearn.linear_model import Ridge

from vit_backbones.benchmark import probe
from vit_backbones.benchmark.probe import Equations, Sample, Scale, class_weights, equations, fit

CELLS, PIXELS, STEPS = (3, 5), (11, 17), (4.0, 3.5)


class Given(Sample):
    """A sample that is there already."""

    def read(self):
        return self


def drawn(seed, channels=6, classes=3):
    """Features that tell the class of most cells."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, classes, CELLS, generator=generator)
    features = 3.0 + torch.randn(channels, *CELLS, generator=generator)
    features[:classes] += 2 * F.one_hot(cells, classes).permute(2, 0, 1)
    labels = F.interpolate(cells[None, None].float(), PIXELS)[0, 0].to(torch.uint8)
    labels[0, :4] = 255
    return Given(features, labels, STEPS)


def upsampled(sample):
    """Bilinear interpolation written out, (C, H, W)."""
    out = torch.zeros(len(sample.features), *PIXELS)
    for y in range(PIXELS[0]):
        for x in range(PIXELS[1]):
            i, j = (
                min(max((at + 0.5) / step - 0.5, 0.0), cells - 1.0)
                for at, step, cells in zip((y, x), STEPS, CELLS, strict=True)
            )
            for row in range(CELLS[0]):
                for column in range(CELLS[1]):
                    part = max(0, 1 - abs(i - row)) * max(0, 1 - abs(j - column))
                    out[:, y, x] += part * sample.features[:, row, column]
    return out


@pytest.fixture(scope='module')
def samples():
    return [drawn(seed) for seed in range(6)]


@pytest.fixture(scope='module')
def scale():
    return Scale(torch.full((6, 1, 1), 3.0), torch.full((6, 1, 1), 1.5))


def test_coefficients_are_those_of_weighted_ridge_over_all_pixels(samples, scale):
    weights, penalty = torch.tensor([0.5, 1.0, 3.0]), 0.02
    solved = equations(samples, scale, weights).solved(penalty)
    pixels = torch.cat([((upsampled(s) - 3) / 1.5).flatten(1) for s in samples], 1).T.double()
    labels = torch.cat([sample.labels.flatten() for sample in samples]).long()
    counts = labels != 255
    given = weights[labels[counts]].double()
    ridge = Ridge(alpha=penalty * float(given.sum()))
    ridge.fit(pixels[counts], F.one_hot(labels[counts], 3), sample_weight=given)
    torch.testing.assert_close(solved[:-1].T, torch.tensor(ridge.coef_), rtol=0, atol=1e-5)
    torch.testing.assert_close(solved[-1], torch.tensor(ridge.intercept_), rtol=0, atol=1e-5)


def test_iou_is_that_of_mmseg(samples, scale):
    coefficients = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    (iou,) = probe.test(samples, scale, [coefficients])
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    for sample in samples:
        features = (upsampled(sample) - 3) / 1.5
        scores = torch.einsum('chw,ck->khw', features, coefficients[:-1])
        predicted = (scores + coefficients[-1][:, None, None]).argmax(0)
        data = dict(
            pred_sem_seg=dict(data=predicted[None]), gt_sem_seg=dict(data=sample.labels[None])
        )
        metric.process({}, [data])
    expected = metric.compute_metrics(metric.results)['mIoU']
    assert 100 * float(iou.nanmean()) == pytest.approx(expected, abs=0.01)


def test_a_class_weighs_by_the_root_of_its_frequency():
    weights = class_weights(torch.tensor([100, 900, 0]))
    assert weights[0] / weights[1] == pytest.approx(3.0)
    assert weights[2] == 0
    assert float(weights[0] * 100 + weights[1] * 900) == pytest.approx(1000)


def test_class_weights_find_a_rare_class(monkeypatch):
    train = [drawn(seed, classes=3) for seed in range(8)]
    for each in train:
        each.labels[each.labels == 2] = 0
        each.labels[2, 2:5] = 2  # hard to tell, and rare
    found = {}
    for power in (0.0, 1.0):
        monkeypatch.setattr(probe, 'POWER', power)
        fitted = fit(train, 3)
        predicted = [probe.predict(fitted.scale(s.features), fitted.coefficients, s) for s in train]
        found[power] = sum(int((each == 2).sum()) for each in predicted)
    assert found[1.0] > found[0.0]


def test_the_penalty_is_the_best_on_what_is_held_out(monkeypatch):
    train = [drawn(seed) for seed in range(6)]
    seen = []
    true_test = probe.test

    def noted(items, scale, tried):
        seen.append([id(each) for each in items])
        reached = true_test(items, scale, tried)
        return [iou + (i == 3) for i, iou in enumerate(reached)]

    monkeypatch.setattr(probe, 'test', noted)
    assert fit(train, 3).penalty == probe.PENALTIES[3]
    assert seen == [[id(train[0]), id(train[5])]]


def test_the_last_fit_is_on_all_images():
    train = [drawn(seed) for seed in range(6)]
    fitted = fit(train, 3)
    counts = torch.stack([torch.bincount(s.labels.flatten().long(), minlength=256) for s in train])
    weights = class_weights(counts.sum(0)[:3])
    expected = equations(train, fitted.scale, weights).solved(fitted.penalty)
    torch.testing.assert_close(fitted.coefficients, expected)


def test_the_bias_has_no_penalty():
    matrix = torch.eye(3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 4.0])
    solved = Equations(matrix, torch.ones(3, 1, dtype=torch.float64)).solved(0.25)
    torch.testing.assert_close(solved[:, 0], torch.tensor([0.5, 0.5, 0.25], dtype=torch.float64))


def test_masks_without_a_pixel_that_counts_are_refused():
    train = [drawn(seed) for seed in range(2)]
    for each in train:
        each.labels[:] = 255
    with pytest.raises(ValueError, match='no pixel that counts'):
        fit(train, 3)
