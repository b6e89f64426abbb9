"""Predictions of trained configs, against mmseg's and mmdet's own ways."""

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import TRANSFORMS
from mmengine.structures import InstanceData
from mmseg.apis import inference_model, init_model
from trained_models import write_detector, write_images, write_segmenter

from vit_backbones.config.facts import type_name
from vit_backbones.evaluation.image_pipeline import pipeline_for_images
from vit_backbones.evaluation.predicting import Predictor, _with_flips, predict
from vit_backbones.evaluation.sliding import Slide
from vit_backbones.images import ImageWalk
from vit_backbones.models.trained import load_trained
from vit_backbones.terminal import quiet_log

META = [dict(img_shape=(64, 96))]
SIZES = (64, 96), (64, 96), (50, 33), (64, 96), (200, 20)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('trained')


@pytest.fixture(scope='module')
def images(folder):
    return write_images(folder / 'images', *SIZES)


@pytest.fixture(scope='module')
def segmenter(folder):
    return write_segmenter(folder)


@pytest.fixture(scope='module')
def detector(folder):
    return write_detector(folder)


@pytest.fixture(scope='module')
def trained(segmenter):
    return load_trained(*segmenter, device='cpu')


def run(trained, images, batch_size=1, **options):
    walk = ImageWalk(images, 'predicting')
    return [each.sample for each in predict(Predictor(trained, **options), walk, batch_size)]


def labels(sample):
    return sample.pred_sem_seg.data.numpy()


def test_masks_are_those_of_mmseg(trained, segmenter, images):
    with quiet_log():
        model = init_model(*segmenter, device='cpu')
    model.cfg.test_pipeline = model.cfg.test_dataloader.dataset.pipeline
    for path, size, sample in zip(images, SIZES, run(trained, images), strict=True):
        expected = inference_model(model, str(path))
        assert labels(sample).shape == (1, *size)
        np.testing.assert_array_equal(labels(sample), labels(expected))
        torch.testing.assert_close(sample.seg_logits.data, expected.seg_logits.data)


def test_batches_change_nothing_and_hold_one_size(trained, images, monkeypatch):
    alone, sizes = run(trained, images), []
    step = trained.model.test_step
    monkeypatch.setattr(
        trained.model, 'test_step', lambda data: sizes.append(len(data['inputs'])) or step(data)
    )
    together = run(trained, images, batch_size=4)
    assert sizes == [2, 1, 1, 1]
    for one, other in zip(alone, together, strict=True):
        assert one.img_path == other.img_path
        torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data)


def test_flips_are_averaged(trained, images):
    path, model = images[1], trained.model
    image = torch.from_numpy(mmcv.imread(str(path))).permute(2, 0, 1)[None].float()
    image = (image.flip(1) - 127.5) / 127.5
    with torch.no_grad():
        logits = model.encode_decode(image, META), model.encode_decode(image.flip(3), META).flip(3)
    shares = sum(each.softmax(1) for each in logits) / 2
    [sample] = run(trained, [path], flip=True)
    assert (logits[0] - logits[1]).abs().max() > 0.1
    expected = shares.argmax(1)
    sure = (shares[:, 0] - shares[:, 1]).abs() > 1e-4
    assert torch.equal(sample.pred_sem_seg.data[sure], expected[sure])
    assert sure.float().mean() > 0.99


def test_windows_are_averaged(trained, images):
    image = torch.from_numpy(mmcv.imread(str(images[0]))).permute(2, 0, 1)[None].float()
    image = (image.flip(1) - 127.5) / 127.5
    total, count = torch.zeros(1, 2, 64, 96), torch.zeros(1, 1, 64, 96)
    with torch.no_grad():
        for top in (0, 16):
            for left in (0, 32, 48):
                at = (..., slice(top, top + 48), slice(left, left + 48))
                total[at] += trained.model.encode_decode(image[at], [dict(img_shape=(48, 48))])
                count[at] += 1
    [sample] = run(trained, images[:1], slide=Slide(48, 32))
    torch.testing.assert_close(sample.seg_logits.data, (total / count)[0], atol=1e-4, rtol=1e-4)


def test_flips_take_transforms_that_are_classes(trained):
    named = pipeline_for_images(trained.config, flip=True)
    config = trained.config.copy()
    for step in config.test_dataloader.dataset.pipeline:
        step.type = TRANSFORMS.get(f'mmseg.{step.type}')
    classes = pipeline_for_images(config, flip=True)
    assert [type_name(step) for step in classes] == [type_name(step) for step in named]
    assert type_name(classes[-1]) == 'TestTimeAug'
    assert [type_name(step) for step in classes[-1]['transforms'][-1]] == ['PackSegInputs']


def test_weights_to_start_from_are_not_needed(segmenter, images, trained):
    options = ['model.backbone.checkpoint=gone.pth']
    again = load_trained(*segmenter, options, device='cpu')
    [one], [other] = (run(each, images[:1]) for each in (trained, again))
    np.testing.assert_array_equal(labels(one), labels(other))


def test_classes_and_palette_are_the_checkpoints(trained):
    assert trained.classes == ['road', 'sky']
    assert trained.palette[:2].tolist() == [[200, 0, 0], [0, 0, 200]]


def test_what_the_pipeline_cannot_take_counts_as_unreadable(trained, images):
    config = trained.config.copy()
    loader = dict(type='LoadImageFromFile', imdecode_backend='none')
    config.test_dataloader = dict(dataset=dict(pipeline=[loader]))
    walk = ImageWalk(images[:1], 'predicting')
    assert list(predict(Predictor(trained._replace(config=config)), walk)) == []
    assert 'backend: none is not supported' in walk.unreadable[images[0]]


def test_a_config_without_data_has_no_pipeline(trained):
    config = trained.config.copy()
    config.test_dataloader = config.val_dataloader = None
    with pytest.raises(ValueError, match='neither test_dataloader nor val_dataloader'):
        pipeline_for_images(config)


def test_checkpoint_of_another_head_is_refused(segmenter, tmp_path):
    config, checkpoint = segmenter
    content = torch.load(checkpoint, weights_only=True)
    weights = content['state_dict']
    content['state_dict'] = {k: v for k, v in weights.items() if 'decode_head' not in k}
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r"lacks 8 of \d+ tensors of the config's model: was it"):
        load_trained(config, str(tmp_path / 'other.pth'), device='cpu')


def test_masks_of_detectors_are_not_flipped(detector, images):
    trained = load_trained(*detector, device='cpu')
    with pytest.raises(ValueError, match='flip=True: mmdet merges only boxes, and MaskRCNN'):
        run(trained, images, flip=True)


def test_boxes_of_flips_are_merged(detector, images):
    options = ['model.roi_head.mask_head=None', 'model.roi_head.mask_roi_extractor=None']
    trained = load_trained(detector[0], detector[1], options, device='cpu')
    [plain], [merged] = run(trained, images[:1]), run(trained, images[:1], flip=True)
    assert isinstance(merged.pred_instances, InstanceData)
    best = merged.pred_instances.scores[0]
    assert best >= plain.pred_instances.scores[0]
    assert _with_flips(trained).module is trained.model


def test_windows_must_overlap_or_touch():
    with pytest.raises(ValueError, match=r'slide=\(32, 48\): CROP and STRIDE are whole'):
        Slide.given((32, 48), None, 0.3)


@pytest.fixture(scope='module')
def one_output(tmp_path_factory):
    """A segmenter of two classes with one output, of threshold 0.45."""
    options = 'model["decode_head"].update(out_channels=1, threshold=0.45, loss_decode='
    options += 'dict(type="CrossEntropyLoss", use_sigmoid=True))\n'
    return write_segmenter(tmp_path_factory.mktemp('one_output'), options)


@pytest.mark.parametrize('batch_size', [1, 3])
@pytest.mark.parametrize('slide', [None, (48, 32)])
def test_flips_of_one_output_are_the_mean_of_two_probabilities(
    one_output, images, batch_size, slide
):
    trained = load_trained(*one_output, device='cpu')
    model, windows = trained.model, slide and Slide(*slide)
    found = run(trained, images, flip=True, batch_size=batch_size, slide=windows)
    if slide:  # as `slide` lets it test
        model.test_cfg = ConfigDict(mode='slide', crop_size=(48, 48), stride=(32, 32))
    shares = []
    for path, sample in zip(images[:2], found, strict=False):
        image = torch.from_numpy(mmcv.imread(str(path))).permute(2, 0, 1)[None].float()
        image = (image.flip(1) - 127.5) / 127.5
        metas = [dict(ori_shape=(64, 96), img_shape=(64, 96))]
        with torch.no_grad():
            logits = model.inference(image, metas)
            mirrored = model.inference(image.flip(3), [dict(metas[0], img_shape=(64, 96))]).flip(3)
        share = (logits.sigmoid() + mirrored.sigmoid())[0] / 2
        sure = (share - 0.45).abs() > 1e-5
        assert torch.equal(sample.pred_sem_seg.data[sure], (share > 0.45).float()[sure])
        assert sure.float().mean() > 0.99
        shares.append(share)
    both = torch.stack(shares) > 0.45
    assert both.any()
    assert not both.all()
