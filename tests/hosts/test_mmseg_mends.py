"""Predictions of mmseg that were wrong: merged ones of one output, and masks in windows."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import mmseg.models.losses.cross_entropy_loss
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models import Mask2FormerHead, MaskFormerHead, SegDataPreProcessor, SegTTAModel
from mmseg.structures import SegDataSample
from torch import nn

from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.hosts import mmseg_mends
from vit_backbones.models.random_weights import redraw

CONFIGS = Path(__file__).parents[2] / 'configs'


def samples(*values, **meta):
    """A data sample with `seg_logits` for each of (C, H, W) values."""
    made = [SegDataSample(metainfo=dict(img_path='a.png') | meta) for _ in values]
    for sample, each in zip(made, values, strict=True):
        sample.seg_logits = PixelData(data=torch.tensor(each))
    return made


def merging(out_channels, threshold=None):
    module = nn.Module()
    module.out_channels, module.test_step = out_channels, None
    module.decode_head = SimpleNamespace(threshold=threshold)
    return SegTTAModel(module=module)


@pytest.mark.parametrize(
    ('threshold', 'expected'),
    [(0.3, [1.0, 0.0, 1.0, 0.0]), (0.5, [1.0, 0.0, 0.0, 0.0]), (0.05, [1.0, 1.0, 1.0, 0.0])],
)
def test_probabilities_of_one_output_are_averaged_once(threshold, expected):
    one, other = [[[0.9, 0.1, 0.2, 0.0]]], [[[0.5, 0.3, 0.5, 0.02]]]  # means 0.7, 0.2, 0.35, 0.01
    [merged] = merging(1, threshold).merge_preds([samples(one, other)])
    assert merged.pred_sem_seg.data.tolist() == [[expected]]


def test_one_output_keeps_the_truth_and_the_path_of_the_first():
    pair = samples([[[0.9], [0.1]]], [[[0.9], [0.1]]])
    pair[0].gt_sem_seg = PixelData(data=torch.tensor([[[1], [0]]]))
    pair[1].set_metainfo(dict(img_path='b.png'))
    [merged] = merging(1, 0.5).merge_preds([pair])
    assert merged.img_path == 'a.png'
    assert merged.gt_sem_seg.data.tolist() == [[[1], [0]]]
    assert merged.pred_sem_seg.data.tolist() == [[[1.0], [0.0]]]


def test_several_outputs_are_averaged_after_their_softmax():
    one, other = [[[4.0]], [[0.0]]], [[[0.0]], [[1.0]]]
    [merged] = merging(2).merge_preds([samples(one, other)])
    assert merged.pred_sem_seg.data.tolist() == [[[0]]]  # 0.98 and 0.27 for class 0
    one, other = [[[1.0]], [[0.0]]], [[[0.0]], [[4.0]]]
    [merged] = merging(2).merge_preds([samples(one, other)])
    assert merged.pred_sem_seg.data.tolist() == [[[1]]]


class Masks:
    """Stands for a head: two queries, masks of (4, 6) cells."""

    def __call__(self, x, batch_data_samples):
        masks = torch.arange(2 * 24.0).reshape(1, 2, 4, 6) / 24 - 1
        return [torch.tensor([[[2.0, 0, 0], [0, 1, 0]]])], [masks]


@pytest.mark.parametrize('head', [Mask2FormerHead, MaskFormerHead])
@pytest.mark.parametrize(
    ('meta', 'size'),
    [
        (dict(img_shape=torch.Size([8, 12]), pad_shape=(64, 96)), (8, 12)),  # a window
        (dict(img_shape=torch.Size([8, 12])), (8, 12)),
        (dict(img_shape=(7, 11), pad_shape=(8, 12)), (8, 12)),  # padded for the test
        (dict(img_shape=(7, 11)), (7, 11)),
    ],
)
def test_masks_have_the_size_of_the_batch(head, meta, size):
    given = dict(meta)
    logits = head.predict(Masks(), None, [given], {})
    (scores,), (masks,) = Masks()(None, None)
    masks = F.interpolate(masks, size=size, mode='bilinear', align_corners=False).sigmoid()
    expected = torch.einsum('bqc,bqhw->bchw', scores.softmax(-1)[..., :-1], masks)
    torch.testing.assert_close(logits, expected)
    assert given == meta


def test_padded_images_in_windows_are_those_of_the_same_windows():
    cfg = load_config(CONFIGS / 'mask2former/mask2former_vit-ti_camvid.py')
    use_scope(cfg)
    cfg.model.backbone.update(checkpoint=None, pretrained=False)
    cfg.model.test_cfg = dict(mode='slide', crop_size=(96, 96), stride=(64, 64))
    model = redraw(MODELS.build(cfg.model)).eval()
    image = torch.rand(2, 3, 100, 150) * 255
    shapes = dict(img_shape=(100, 150), ori_shape=(100, 150))
    batch = dict(inputs=list(image), data_samples=[SegDataSample(metainfo=shapes) for _ in '12'])
    model.data_preprocessor.test_cfg = dict(size_divisor=32)
    with torch.no_grad():
        found = model.test_step(batch)
        padded = model.data_preprocessor(batch)['inputs']
        total, count = torch.zeros(2, 11, 128, 160), torch.zeros(128, 160)
        for top in (0, 32):
            for left in (0, 64):
                at = (..., slice(top, top + 96), slice(left, left + 96))
                total[at] += model.encode_decode(padded[at], [dict(img_shape=(96, 96))] * 2)
                count[at] += 1
    expected = (total / count)[..., :100, :150]
    assert padded.shape == (2, 3, 128, 160)
    for sample, each in zip(found, expected, strict=True):
        torch.testing.assert_close(sample.seg_logits.data, each)


def test_mends_are_made_once_and_of_what_is_imported_already(monkeypatch):
    predict = Mask2FormerHead.predict
    assert predict.__module__ == SegTTAModel.merge_preds.__module__ == mmseg_mends.__name__
    mmseg_mends.install()
    assert Mask2FormerHead.predict is predict
    made = []
    monkeypatch.setattr(mmseg_mends, '_MENDS', dict(json=made.append, this=made.append))
    monkeypatch.setattr(sys, 'meta_path', sys.meta_path[:])
    monkeypatch.delitem(sys.modules, 'this', raising=False)
    sys.meta_path.remove(next(f for f in sys.meta_path if type(f).__name__ == '_Mender'))
    mmseg_mends.install()
    assert [each.__name__ for each in made] == ['json']
    importlib.import_module('this')
    assert [each.__name__ for each in made] == ['json', 'this']


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 6])
def test_images_of_any_number_of_bands_are_normalised(bands):
    means, stds = torch.arange(bands) * 10.0, torch.arange(bands) + 2.0
    prepare = SegDataPreProcessor(means.tolist(), stds.tolist(), size=(4, 4))
    image = torch.randint(0, 255, (bands, 4, 4), dtype=torch.uint8)
    found = prepare(dict(inputs=[image], data_samples=[SegDataSample()]))['inputs'][0]
    torch.testing.assert_close(found, (image - means.view(-1, 1, 1)) / stds.view(-1, 1, 1))


WEIGHTS = [0.5, 1.0, 3.0, 0.2]


def entropy(labels, **options):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, requires_grad=True)
    loss = MODELS.get('mmseg.CrossEntropyLoss')(class_weight=WEIGHTS, **options)
    value = loss(logits, labels, ignore_index=255)
    value.backward()
    return value, logits


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('avg_non_ignore', [True, False])
def test_classes_with_weights_beside_ignored_pixels_are_averaged_as_by_pytorch(
    share, avg_non_ignore
):
    labels = torch.randint(4, (2, 5, 7), generator=torch.Generator().manual_seed(1))
    labels[torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < share] = 255
    value, logits = entropy(labels, avg_non_ignore=avg_non_ignore)
    own = logits.detach().requires_grad_()
    weighted = F.cross_entropy(
        own, labels, torch.tensor(WEIGHTS), ignore_index=255, reduction='sum'
    )
    number = torch.tensor([*WEIGHTS, 0.0])[labels.clamp(max=4)].sum()
    expected = weighted / max(number, torch.finfo().eps)
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(logits.grad, own.grad)


def test_class_weights_of_sums_and_of_labels_to_ignore_within_range_stay_as_they_are():
    labels = torch.arange(70).view(2, 5, 7) % 4
    original = mmseg.models.losses.cross_entropy_loss.cross_entropy.__wrapped__
    logits = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(3))
    weights = torch.tensor(WEIGHTS)
    for options in (
        dict(reduction='sum'),
        dict(reduction='none', ignore_index=2),
        dict(avg_factor=7.0),
        dict(ignore_index=2),
        dict(ignore_index=2, avg_non_ignore=True),
    ):
        given = dict(class_weight=weights, **options)
        ours = mmseg.models.losses.cross_entropy_loss.cross_entropy(logits, labels, **given)
        torch.testing.assert_close(ours, original(logits, labels, **given))
