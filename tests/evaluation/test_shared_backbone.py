"""Two heads on one run of the backbone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode
from trained_models import write_detector, write_images, write_segmenter

from vit_backbones.config.loading import use_scope
from vit_backbones.evaluation.image_pipeline import pipeline_for_images
from vit_backbones.evaluation.shared_backbone import SharedBackbone
from vit_backbones.models.random_weights import redraw
from vit_backbones.models.trained import Trained, load_trained

ROOT = Path(__file__).parents[2]


def equal_weights(detector, segmenter):
    source = detector.model.backbone.state_dict()
    own = segmenter.model.backbone.state_dict()
    segmenter.model.backbone.load_state_dict({name: source[name] for name in own})


@torch.no_grad()
def predict_apart(shared, images):
    """What each of the two models predicts by its own `test_step`."""
    found = []
    for trained in shared.trained:
        use_scope(trained.config)
        pipeline = Compose(pipeline_for_images(trained.config))
        data = [pipeline(dict(img_path=str(p), img_id=i)) for i, p in enumerate(images)]
        found.append(trained.model.test_step(pseudo_collate(data)))
    return found


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
    apart = predict_apart(shared, files[2])
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


def test_images_of_several_sizes_are_refused_and_none_give_none(pair, tmp_path):
    shared = SharedBackbone(*pair)
    message = (
        r'^the images become tensors of \(3, \d+, \d+\) and \(3, \d+, \d+\), and a batch has one '
        r'size: give the images of each size in a call of their own$'
    )
    with pytest.raises(ValueError, match=message):
        shared.predict(write_images(tmp_path / 'images', (64, 96), (64, 64)))
    assert shared.predict([]) == ([], [])


def test_another_readout_is_refused(pair):
    pair[0].model.backbone.cls_readout = 'add'
    with pytest.raises(ValueError, match=r'^readout='):
        SharedBackbone(*pair)


def test_another_norm_of_a_block_is_refused(pair):
    pair[0].model.backbone.norm = 'last'
    pair[1].model.backbone.norm = 'none'
    pair[0].model.backbone.out_indices = pair[1].model.backbone.out_indices = (1, 5)
    with pytest.raises(ValueError, match=r'^norm=.* differ in block 5: give both models'):
        SharedBackbone(*pair)


def test_windows_and_order_are_refused(pair):
    with pytest.raises(ValueError, match='give a detector, then a segmenter'):
        SharedBackbone(*pair[::-1])


def test_an_option_of_the_forward_pass_is_refused(pair):
    pair[1].config.model.backbone.pos_interp = 'original'
    with pytest.raises(ValueError, match=r"^pos_interp='timm' in the detector, 'original' in"):
        SharedBackbone(*pair)


def test_joint_queries_are_refused(pair):
    pair[0].model.__class__ = type('EoMT', (type(pair[0].model),), {})
    with pytest.raises(ValueError, match=r'^EoMT runs its queries in the blocks.*PlainMaskHead'):
        SharedBackbone(*pair)


def test_windows_of_the_segmenter_are_refused(pair):
    pair[1].model.test_cfg = dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    with pytest.raises(ValueError, match=r"mode='slide': give a detector, then a segmenter"):
        SharedBackbone(*pair)


def recipe(name, size):
    """A shipped recipe's model with random weights, tested at `size` pixels."""
    config = Config.fromfile(str(ROOT / 'configs' / name))
    config.model.backbone.update(checkpoint=None, init_cfg=None)
    config.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(size, size), keep_ratio=True),
        config.test_dataloader.dataset.pipeline[-1],
    ]
    use_scope(config)
    return Trained(redraw(MODELS.build(config.model), gain=0.5).eval(), config, [], np.zeros(0))


def operations(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_the_pair_costs_at_most_three_quarters_of_the_two_apart(tmp_path):
    size = 192
    det = recipe('mask2former/mask2former-6e_vit-s-dinov2_nuclei.py', size)
    seg = recipe('linear_probe/linear_vit-s-dinov2_camvid.py', size)
    equal_weights(det, seg)
    images = write_images(tmp_path, (size, size))
    shared = SharedBackbone(det, seg)
    two = operations(lambda: predict_apart(shared, images))
    pair = operations(lambda: shared.predict(images))
    assert pair <= 0.75 * two
