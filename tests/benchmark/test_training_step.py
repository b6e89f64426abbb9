"""A whole training step, its parts and its peers."""

from pathlib import Path

import pytest
import torch
from mmcv.ops import multi_scale_deform_attn as deformable
from mmengine.config import Config

from vit_backbones.benchmark.counting import counted
from vit_backbones.benchmark.measuring import flops_and_floor
from vit_backbones.benchmark.step_parts import PARTS, counts
from vit_backbones.benchmark.step_peers import (
    as_the_toolbox,
    by_grid_sample,
    step_peers,
    with_stock_head,
)
from vit_backbones.benchmark.subjects import Setting, build_backbone, built
from vit_backbones.benchmark.training_step import (
    TrainingStep,
    autocast_of,
    size_of,
    training_config,
    training_step,
)
from vit_backbones.benchmark.written_out import WrittenOut
from vit_backbones.models.random_weights import redraw
from vit_backbones.terminal import silence

RECIPE = Path(__file__).parents[2] / 'configs/mask2former_vit.py'
SIZE = (64, 96)
SETTING = Setting(SIZE, 2, mode='train')
WINDOWS = (
    'model.backbone.window_size=3',
    'model.backbone.window_block_indexes=[0,1,3]',
    'model.backbone.use_rel_pos=True',
    'model.backbone.with_cls_token=False',
)
SMALL = (
    'model.backbone.model_name=test_vit',
    'model.backbone.patch_size=16',
    'model.neck.in_channels=64',
    'model.neck.in_strides=16',
)
FEW = ('model.train_cfg.rpn_proposal.max_per_img=9', 'model.train_cfg.rcnn.sampler.num=9')


@pytest.fixture(autouse=True)
def quiet():
    with silence():
        yield


@pytest.fixture
def segmenter(folder):
    return training_step('seg.py', (), SETTING)


@pytest.fixture
def detector(folder):
    return training_step('det.py', FEW, SETTING)


@pytest.mark.parametrize('name', ['segmenter', 'detector'])
def test_operators_of_the_parts_are_those_of_the_modules(name, request):
    step = request.getfixturevalue(name)
    step.step()
    found = counts(step.step, step.parts, step.hosted)
    images = torch.zeros(2, 3, *SIZE)
    assert found['backbone'].operators == counted(lambda: step.model.backbone(images)).operators
    assert sum(found[part].operators for part in PARTS) == found['whole'].operators
    assert all(found[part].operators for part in ('head', 'loss', 'backward', 'optimizer'))
    assert found['optimizer'].synchronisations == 0


def test_the_head_computes_logits_and_the_loss_their_losses(segmenter):
    segmenter.step()
    found = counts(segmenter.step, segmenter.parts, segmenter.hosted)
    head, maps = segmenter.model.decode_head, segmenter.model.backbone(torch.zeros(2, 3, *SIZE))
    assert found['head'].operators == counted(lambda: head.forward(maps)).operators
    assert found['neck'].operators == 0


def test_steps_leave_the_weights_as_they_are_and_run_the_optimizer(segmenter):
    before = {name: each.clone() for name, each in segmenter.model.state_dict().items()}
    segmenter.step()
    segmenter.step()
    for name, each in segmenter.model.state_dict().items():
        assert torch.equal(each, before[name]), name
    states = segmenter.optimizer.optimizer.state
    learning = [p for p in segmenter.model.parameters() if p.requires_grad]
    assert [states[p]['step'] for p in learning] == [2] * len(learning)
    assert all(each.grad is None for each in learning)


def test_ground_truth_has_several_objects(detector, segmenter):
    for sample in detector._samples:
        objects = sample.gt_instances
        assert len(objects.bboxes) == len(set(map(tuple, objects.bboxes.tolist()))) == 5
        assert objects.labels.tolist() == [0, 1, 2, 0, 1]
        assert objects.masks.areas.tolist() == [
            ((right - left) * (bottom - top)).item()
            for left, top, right, bottom in objects.bboxes.int()
        ]
    assert segmenter._samples[0].gt_sem_seg.data.unique().tolist() == [0, 1]


def test_mask2former_counts_its_head_from_the_first_step():
    step = training_step(RECIPE, SMALL, SETTING)
    step.step()
    found = counts(step.step, step.parts, step.hosted)
    assert found['head'].operators > 500
    assert found['backward'].operators > found['backbone'].operators
    assert step.model.auxiliary_iters == 0


def test_explicit_softmax_gives_the_same_losses(folder):
    config = training_config('seg.py', WINDOWS)
    peers, absent = step_peers(config, 'seg.py', SETTING)
    assert list(peers) == ['explicit softmax']
    assert absent == {
        "the toolbox's head": 'this config has it, or its head has no equal there',
        'grid_sample': 'the model has no deformable attention',
    }
    ours, peer = (
        TrainingStep(config, 'seg.py', built(config, 'seg.py'), SETTING),
        peers.popitem()[1],
    )
    redraw(ours.model)
    peer.model.load_state_dict(ours.model.state_dict())
    losses = []
    for each in (ours, peer):
        torch.manual_seed(0)  # of the head's dropout
        found = each.model(each._images, each._samples, mode='loss')
        losses.append(found['decode.loss_ce'])
    torch.testing.assert_close(*losses)
    logits = 2 * 2 * 4 * 6 * 24 * 24 * 16  # of the attention over everything
    assert flops_and_floor(peer.step)[0] > logits


def test_a_head_that_masks_attention_has_no_peer_with_an_explicit_softmax():
    recipe = RECIPE.parent / 'eomt/eomt_vit-ti_shapes.py'
    _, absent = step_peers(training_config(str(recipe), ()), recipe, SETTING)
    assert absent['explicit softmax'] == "the head's masks of queries need fused attention"


@pytest.mark.parametrize('size', [SIZE, (96, 80)])
@pytest.mark.parametrize('options', [{}, {'use_rel_pos': True}])
def test_windows_written_out_give_the_backbones_maps(options, size):
    windows = dict(window_size=3, window_block_indexes=(0, 2, 3))
    wanted = dict(with_cls_token=False, norm='all', out_indices=(1, 5))
    backbone = redraw(build_backbone('test_vit', 'timm', SIZE, **windows, **wanted, **options))
    images = torch.randn(2, 3, *size)
    other = WrittenOut(backbone.eval(), 3, (0, 2, 3))
    for ours, theirs in zip(backbone(images), other(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_grid_sample_stands_for_mmcvs_function_and_goes_again():
    before = deformable.MultiScaleDeformableAttnFunction
    shapes, value = torch.tensor([[2, 3]]), torch.randn(1, 6, 2, 4)
    locations, weights = torch.rand(1, 5, 2, 1, 3, 2), torch.rand(1, 5, 2, 1, 3)
    with by_grid_sample():
        function = deformable.MultiScaleDeformableAttnFunction
        found = function.apply(value, shapes, None, locations, weights, 64)
    pure = deformable.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert torch.equal(found, pure)
    assert deformable.MultiScaleDeformableAttnFunction is before


def test_a_step_as_the_toolbox_computes_it_has_none_of_our_parts():
    config = training_config(RECIPE, SMALL)
    step = as_the_toolbox(config, RECIPE, SETTING).tried()
    layers = [each for each in step.model.modules() if hasattr(each, 'sampling_offsets')]
    assert {type(each) for each in layers} == {deformable.MultiScaleDeformableAttention}
    assert type(step.model.panoptic_head).__name__ == 'Mask2FormerHead'


@pytest.mark.parametrize(
    ('ours', 'stock'),
    [
        ('BatchedMask2FormerHead', 'mmdet.Mask2FormerHead'),
        ('mmengine.BatchedSegMask2FormerHead', 'mmseg.Mask2FormerHead'),
    ],
)
def test_the_stock_head_is_the_toolboxs_own(ours, stock):
    head, backbone = dict(type=ours, num_queries=3), dict(type='A')
    config = Config(dict(model=dict(panoptic_head=head, backbone=backbone)))
    found = with_stock_head(config)
    assert found.model == dict(panoptic_head=dict(type=stock, num_queries=3), backbone=backbone)
    assert config.model.panoptic_head.type == ours
    assert with_stock_head(found) is None


def test_compiled_parts_compute_the_same_and_keep_their_time(segmenter, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda call, **_: compiled.append(call) or call)
    losses = segmenter.model.eval()(segmenter._images, segmenter._samples, mode='loss')
    segmenter.compile()
    again = segmenter.model(segmenter._images, segmenter._samples, mode='loss')
    assert torch.equal(losses['decode.loss_ce'], again['decode.loss_ce'])
    assert [each.__self__ for each in compiled] == [segmenter.model.backbone]
    begun = []
    segmenter.parts.watched(segmenter.step, begun.append)
    assert begun.count('backbone') == 1


@pytest.mark.parametrize(
    ('changes', 'size'),
    [
        (dict(data_preprocessor=dict(size=(32, 64))), (32, 64)),
        (dict(data_preprocessor=dict(batch_augments=[dict(size=(8, 9))])), (8, 9)),
        (dict(backbone=dict(img_size=128)), (128, 128)),
        ({}, (512, 512)),
    ],
)
def test_size_is_the_configs(changes, size):
    assert size_of(Config(dict(model=changes)), torch.nn.Identity()) == size


def test_autocast_is_the_configs():
    wrappers = ('OptimWrapper', 'AmpOptimWrapper')
    found = [autocast_of(Config(dict(optim_wrapper=dict(type=each)))) for each in wrappers]
    assert found == ['fp32', 'bf16']


def test_a_wrapper_for_amp_is_one_without_on_any_device(folder):
    amp = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0, use_fsdp=True)
    options = tuple(f'optim_wrapper.{key}={value}' for key, value in amp.items())
    step = training_step('seg.py', options, SETTING._replace(dtype='bf16'))
    step.step()
    assert type(step.optimizer).__name__ == 'OptimWrapper'


def test_each_step_has_its_optimizer(folder):
    """A config may accumulate the gradients of several, and clip them; no norm is waited for."""
    options = ('optim_wrapper.accumulative_counts=4', 'optim_wrapper.clip_grad.max_norm=0.1')
    step = training_step('seg.py', options, SETTING).tried()
    assert counts(step.step, step.parts, step.hosted)['optimizer'].synchronisations == 0
    assert all(each['step'] == 2 for each in step.optimizer.optimizer.state.values())
    assert step.optimizer.optimizer.state
