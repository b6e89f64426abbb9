"""Two heads on one run of the backbone."""

import pytest
import torch
from trained_models import write_detector, write_images, write_segmenter

from vit_backbones.evaluation.shared_backbone import SharedBackbone
from vit_backbones.models.trained import load_trained


def equal_weights(detector, segmenter):
    source = detector.model.backbone.state_dict()
    own = segmenter.model.backbone.state_dict()
    segmenter.model.backbone.load_state_dict({name: source[name] for name in own})


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pair')
    segmenter = write_segmenter(
        folder,
        "\nmodel['data_preprocessor']['size'] = None\n"
        "model['data_preprocessor']['test_cfg'] = dict(size_divisor=32)\n"
        "model['data_preprocessor'].pop('size')\n",
    )
    return write_detector(folder), segmenter, write_images(folder / 'images', (64, 96), (64, 96))


@pytest.fixture
def pair(files):
    """A detector and a segmenter of which both have equal backbones and readouts."""
    det = load_trained(*files[0], ['model.backbone.norm=all'], device='cpu')
    seg = load_trained(*files[1], device='cpu')
    equal_weights(det, seg)
    return det, seg


def test_predictions_are_those_of_the_two_apart_with_one_run(pair, files):
    shared, runs = SharedBackbone(*pair), []
    apart = []
    for trained, pipeline in zip(shared.trained, shared._pipelines, strict=True):
        data = [pipeline(dict(img_path=str(p), img_id=i)) for i, p in enumerate(files[2])]
        batch = dict(
            inputs=[d['inputs'] for d in data], data_samples=[d['data_samples'] for d in data]
        )
        with torch.no_grad():
            apart.append(trained.model.test_step(batch))
    for trained in pair:
        trained.model.backbone.vit.blocks[0].register_forward_hook(lambda *_: runs.append(1))
    found, maps = shared.predict(files[2])
    assert len(runs) == 1
    assert all(len(each.pred_instances) for each in found)
    for ours, theirs in zip(found, apart[0], strict=True):
        for key in ('bboxes', 'scores', 'labels', 'masks'):
            assert torch.equal(ours.pred_instances[key], theirs.pred_instances[key])
    for ours, theirs in zip(maps, apart[1], strict=True):
        assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)


def test_other_weights_are_refused_by_name(pair):
    pair[1].model.backbone.vit.blocks[1].norm1.weight.data.add_(1)
    with pytest.raises(ValueError, match=r'^the backbones differ in vit.blocks.1.norm1.weight: '):
        SharedBackbone(*pair)


def test_another_mean_is_refused(pair):
    pair[1].model.data_preprocessor.mean.add_(1)
    with pytest.raises(ValueError, match=r'^mean=\[127.5, 127.5, 127.5\] in the detector, \[128'):
        SharedBackbone(*pair)


def test_another_size_of_the_input_is_refused(pair, files):
    shared = SharedBackbone(*pair)
    pair[1].model.data_preprocessor.test_cfg = dict(size_divisor=128)
    with pytest.raises(ValueError, match='the pipelines make different tensors'):
        shared.predict(files[2])


def test_another_readout_is_refused(pair):
    pair[0].model.backbone.norm = 'last'
    with pytest.raises(ValueError, match=r'^readout='):
        SharedBackbone(*pair)


def test_windows_and_order_are_refused(pair):
    with pytest.raises(ValueError, match='give a detector, then a segmenter'):
        SharedBackbone(*pair[::-1])
