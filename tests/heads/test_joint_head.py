"""EoMT's heads: predictions, masks, annealing, losses, and the faults of other implementations."""

import re

import pytest
import torch
import torch.nn.functional as F
from eomt_models import (
    CLASSES,
    QUERIES,
    STUFF,
    THINGS,
    detector,
    images,
    label_maps,
    no_training,
    objects,
    segmenter,
    training_at,
)
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.structures import InstanceData, PixelData

from vit_backbones.benchmark.counting import counted
from vit_backbones.heads import batched_loss, joint_head
from vit_backbones.heads.iteration import Iteration
from vit_backbones.heads.query_prediction import attended, semantic_scores, upscale_count

SIZE = (50, 83)  # 4 x 6 patches of 16, whose canvas is 64 x 96


@pytest.fixture(autouse=True)
def fresh():
    no_training()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def recorded(model, keep=None):
    """The masks that the backbone gets before each block, of a model with these probabilities."""
    head = getattr(model, 'panoptic_head', None) or model.decode_head
    if keep is not None:
        head.keep_probabilities = lambda: keep
    masks, joint = [], model.backbone.joint

    def watched(images, extra, num_blocks, before=None):
        def noted(index, tokens):
            masks.append(before(index, tokens))
            return masks[-1]

        return joint(images, extra, num_blocks, before and noted)

    model.backbone.joint = watched
    return masks


def test_queries_are_drawn_with_a_deviation_of_one():
    model = detector(dict(num_queries=500), redrawn=False)
    model.init_weights()
    drawn = model.panoptic_head.query_embed.weight
    assert drawn.std().item() == pytest.approx(1.0, abs=0.02)
    assert drawn.mean().item() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    ('patch', 'doublings'), [(16, 2), (14, 1), (8, 1), (32, 3), (4, 1), (31, 2), (64, 4)]
)
def test_masks_are_doubled_to_a_stride_of_about_four(patch, doublings):
    assert upscale_count((patch, patch)) == doublings
    assert upscale_count((2 * patch, patch)) == doublings


@pytest.mark.parametrize(('patch', 'grid', 'stride'), [(16, (4, 6), 4), (14, (4, 6), 7)])
def test_predictions_are_of_the_canvas_and_one_more_than_blocks(patch, grid, stride):
    model = segmenter(backbone=dict(patch_size=patch))
    classes, masks = model.train()(images(*SIZE))
    assert {tuple(each.shape) for each in classes} == {(2, QUERIES, CLASSES + 1)}
    of_canvas = tuple(n * patch // stride for n in grid)
    assert {tuple(each.shape) for each in masks} == {(2, QUERIES, *of_canvas)}
    assert len(classes) == len(masks) == 3
    classes, masks = model.eval()(images(*SIZE))
    assert len(classes) == len(masks) == 1


def test_a_mask_is_bilinear_without_antialiasing_and_its_threshold_is_a_half():
    logits = torch.randn(2, 3, 16, 24)
    # of a factor of 4 the two pixels in the middle count, those of a cell's border do not
    middle = logits.unflatten(2, (4, 4)).unflatten(4, (6, 4))[:, :, :, 1:3, :, 1:3]
    expected = middle.mean((3, 5)) > 0
    assert torch.equal(attended(logits, (4, 6)), expected.flatten(2))
    assert not torch.equal(
        expected, logits.unflatten(2, (4, 4)).unflatten(4, (6, 4)).mean((3, 5)) > 0
    )


@pytest.mark.parametrize('autocast', [False, True])
def test_masks_are_bools_of_what_queries_may_see__in_half_precision_too(autocast):
    model = segmenter().train()
    masks = recorded(model, (1.0, 1.0))
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        classes, logits = model(images(*SIZE))
    assert [each.dtype for each in masks] == [torch.bool] * 2
    for mask, own in zip(masks, logits, strict=False):
        assert torch.equal(mask, attended(own, (4, 6)))
        assert 0.05 < mask.float().mean() < 0.95
    assert all(each.isfinite().all() for each in (*classes, *logits))


def test_queries_see_the_patches_in_their_masks_and_no_others():
    model = segmenter(dict(num_blocks=1)).eval()
    recorded(model, (1.0,))
    x, seen = images(*SIZE), {}
    with torch.no_grad():
        for name, sign in (('none', -1), ('all', 1)):
            model.decode_head._between = lambda joint, sign=sign: (
                None,
                torch.full((2, QUERIES, 16, 24), float(sign)),
            )
            seen[name] = model(x)
        model.decode_head.keep_probabilities = lambda: (0.0,)
        free = model(x)
    torch.testing.assert_close(seen['all'], free)
    assert (seen['none'][0][0] - free[0][0]).abs().max() > 0.05


def test_a_block_without_masks_has_none_left_from_the_one_before():
    model = segmenter().train()
    masks = recorded(model, (1.0, 0.0))
    model(images(*SIZE))
    assert masks[0] is not None
    assert masks[1] is None


def test_partly_annealed_masks_open_whole_rows_of_queries():
    model = segmenter(dict(num_queries=400)).train()
    masks = recorded(model, (0.7, 0.7))
    training_at(40, 100)
    _, logits = model(images(64, 64))
    for mask, own in zip(masks, logits, strict=False):
        closed = attended(own, (4, 4))
        opened = mask.all(-1) & ~closed.all(-1)
        assert torch.equal(mask, closed | opened[..., None])
        assert opened.sum() / (~closed.all(-1)).sum() == pytest.approx(0.3, abs=0.06)
        both = ~closed.all(-1).any(0)
        assert not torch.equal(opened[0, both], opened[1, both])  # a draw for each image


@pytest.mark.parametrize(
    ('number', 'training', 'evaluation'),
    [
        (0, (1, 1), (1, 1)),
        (20, (0.8**0.9, 1), (1, 1)),
        (30, (0.2**0.9, 1), (0, 1)),
        (83, (0, 0), (0, 0)),
    ],
)
def test_validations_mask_a_block_above_a_half_and_draw_nothing(number, training, evaluation):
    head = segmenter().decode_head
    training_at(number, 100, stage='train')
    assert head.train().keep_probabilities() == pytest.approx(training, abs=0.02)
    training_at(number - 1, 100, stage='val')
    assert head.eval().keep_probabilities() == evaluation


def test_validations_draw_nothing():
    model, x = segmenter().eval(), images(*SIZE)
    training_at(19, 100, stage='val')  # 0.8 ** 0.9 and 1
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = model(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    torch.testing.assert_close(model(x), first, rtol=0, atol=0)


@pytest.mark.parametrize('stage', ['test', None])
def test_tests_and_inference_have_no_masks_and_no_predictions_between(stage):
    model = segmenter().eval()
    training_at(0, 100, stage=stage)
    masks = recorded(model)
    model(images(*SIZE))
    assert masks == []
    assert model.decode_head.keep_probabilities() == (0.0, 0.0)


def test_without_a_runner_masks_stay_on_and_the_log_has_one_line(monkeypatch):
    lines = []
    monkeypatch.setattr(joint_head, 'print_log', lambda line, logger: lines.append((line, logger)))
    head = segmenter().decode_head
    for _ in range(2):
        assert head.train().keep_probabilities() == (1.0, 1.0)
    assert head.eval().keep_probabilities() == (0.0, 0.0)
    line = (
        'SegEoMTHead: no training by MMEngine runs here, so that the iteration is not known: the '
        "masks of attention stay on, and what is drawn depends on PyTorch's own generator"
    )
    assert lines == [(line, 'current')]


def losses_of(model, seed=0, number=30, size=SIZE):
    """Losses as numbers at an iteration; PyTorch's own generator is somewhere."""
    training_at(number, 100, seed=seed)
    found = model.loss(images(*size), label_maps(size))
    return {name: loss.item() for name, loss in found.items()}


def test_losses_depend_on_seed_and_iteration_only():
    model = segmenter().train()
    first = losses_of(model)
    torch.manual_seed(5)
    assert losses_of(model) == first
    assert losses_of(model, seed=1)['decode.loss_mask'] != first['decode.loss_mask']
    assert losses_of(model, number=29)['decode.loss_mask'] != first['decode.loss_mask']
    no_training()
    unknown = [model.loss(images(*SIZE), label_maps(SIZE))['decode.loss_mask'] for _ in range(2)]
    assert unknown[0] != unknown[1]  # by PyTorch's own generator


def test_all_predictions_are_supervised__in_evaluation_too():
    model = segmenter()
    expected = [
        f'decode.{each}loss_{name}'
        for each in ('', 'd0.', 'd1.')
        for name in ('cls', 'mask', 'dice')
    ]
    for mode in (True, False):
        assert list(losses_of(model.train(mode))) == expected


@pytest.mark.parametrize(
    ('build', 'samples'),
    [
        (detector, lambda: objects(SIZE, (2, 1))),
        (detector, lambda: objects(SIZE, (2, 0))),
        (detector, lambda: objects(SIZE, (0, 0))),
        (segmenter, lambda: label_maps(SIZE)),
        (segmenter, lambda: label_maps(SIZE, labels=(255,))),
    ],
    ids=['objects', 'an image without', 'none at all', 'classes', 'void'],
)
@pytest.mark.parametrize('recompute', [True, False])
def test_every_parameter_gets_a_gradient(build, samples, recompute):
    model = build(dict(recompute=recompute)).train()
    training_at(30, 100)
    losses = model.loss(images(*SIZE), samples())
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []


def test_recomputing_changes_no_gradient_and_runs_twice():
    gradients, calls = [], []
    for recompute in (True, False):
        model = segmenter(dict(recompute=recompute)).train()
        count = []
        model.decode_head.upscale[0].register_forward_hook(lambda *_, count=count: count.append(1))
        training_at(30, 100)
        sum(model.loss(images(*SIZE), label_maps(SIZE)).values()).backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
        calls.append(len(count))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert calls == [5, 3]  # the two between blocks, again


@pytest.mark.parametrize(
    ('build', 'samples', 'most'), [(detector, objects, 3), (segmenter, label_maps, 4)]
)
def test_a_gpu_waits_for_matching_and_ground_truth_only(build, samples, most):
    model, x, truth = build().train(), images(*SIZE), samples(SIZE)
    for number in (0, 30, 99):
        training_at(number, 100)
        model.loss(x, truth)  # copies the weights of the classes
        # costs there, pairs back and masks there; of label maps, which classes there are, too
        assert counted(lambda: model.loss(x, truth)).synchronisations == most
        assert counted(lambda: model(x, truth)).synchronisations == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('number', [0, 30, 99])
def test_a_step_on_a_gpu_is_that_of_the_cpu(number, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    # the same draws on both devices
    host, rand = torch.device('cpu'), torch.rand
    generator = Iteration.generator
    monkeypatch.setattr(Iteration, 'generator', lambda now, device: generator(now, host))
    monkeypatch.setattr(
        torch,
        'rand',
        lambda *size, device, generator: rand(*size, generator=generator).to(device),
    )
    found = []
    for device in ('cpu', 'cuda'):
        model = segmenter().train().to(device)
        samples = [each.to(device) for each in label_maps(SIZE)]
        training_at(number, 100)
        losses = model.loss(images(*SIZE).to(device), samples)
        sum(losses.values()).backward()
        found.append({name: loss.item() for name, loss in losses.items()})
        assert all(each.grad.isfinite().all() for each in model.parameters())
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_losses_and_their_weights_are_those_of_mask2former():
    head = detector().panoptic_head
    assert head.class_weight == [1.0] * (THINGS + STUFF) + [0.1]
    assert [head.loss_cls.loss_weight, head.loss_mask.loss_weight, head.loss_dice.loss_weight] == [
        2,
        5,
        5,
    ]
    assert [(type(c).__name__, c.weight) for c in head.assigner.match_costs] == [
        ('ClassificationCost', 2.0),
        ('CrossEntropyLossCost', 5.0),
        ('DiceCost', 5.0),
    ]
    assert (head.oversample_ratio, head.importance_sample_ratio) == (3.0, 0.75)
    assert segmenter(dict(train_cfg=None)).decode_head.num_points == 12544
    assert not head.is_unbatched()
    assert head.loss_dice.eps == 1.0
    assert head.loss_dice.naive_dice


def test_train_cfg_of_the_model_is_that_of_its_head__whose_own_goes_first():
    few, many = dict(num_points=9), dict(num_points=10)
    assert detector(train_cfg=few).panoptic_head.num_points == 9
    assert segmenter(train_cfg=few).decode_head.num_points == 9
    assert detector(dict(train_cfg=many), train_cfg=few).panoptic_head.num_points == 10
    assert segmenter(dict(train_cfg=many), train_cfg=few).decode_head.num_points == 10


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(num_point=9),
            'train_cfg takes num_points, oversample_ratio, importance_sample_ratio, assigner, '
            'sampler, got num_point',
        ),
        (dict(num_points=0), 'num_points must be at least 1, got 0'),
        (dict(oversample_ratio=0.5), 'oversample_ratio must be in [1, 1e+06], got 0.5'),
        (dict(importance_sample_ratio=2), 'importance_sample_ratio must be in [0, 1], got 2'),
        (dict(importance_sample_ratio='a'), "importance_sample_ratio must be in [0, 1], got 'a'"),
    ],
)
def test_train_cfg_that_nothing_can_read_is_refused(changes, message):
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        segmenter(dict(train_cfg=changes))


def test_parts_of_losses_and_whole_ones_can_be_given():
    head = segmenter(
        dict(
            loss_cls=dict(loss_weight=3.0),
            loss_dice=dict(type='mmdet.DiceLoss', eps=0.5, activate=True),
        )
    ).decode_head
    assert head.loss_cls.loss_weight == 3.0
    assert head.loss_cls.class_weight == [1.0] * CLASSES + [0.1]
    assert (head.loss_dice.eps, head.loss_dice.loss_weight) == (0.5, 1.0)


def test_the_loss_is_mmdets_for_other_losses_and_has_gradients_too():
    model = segmenter(dict(loss_mask=dict(class_weight=[2.0]))).train()
    assert model.decode_head.is_unbatched()
    assert all(value == value for value in losses_of(model, size=(64, 96)).values())


def given(outputs, masks, labels):
    """Loss of a detector's head on these logits, with objects as masks (n, H, W)."""
    training_at(0, 100)
    head = segmenter().decode_head
    head._generator = joint_head.Iteration.current().generator(torch.device('cpu'))
    truth = [InstanceData(labels=each, masks=m) for each, m in zip(labels, masks, strict=True)]
    return head.loss_by_feat(*outputs, truth, [dict()] * len(truth))


def test_void_is_in_no_mask_and_counts_as_outside_of_each():
    model, samples = segmenter().train(), label_maps(SIZE, labels=(1, 255))
    training_at(0, 100)
    found = model.loss(images(*SIZE), samples)
    outputs = model(images(*SIZE))
    masks = [(sample.gt_sem_seg.data == 1) for sample in samples]
    labels = [torch.tensor([1])] * 2
    expected = given(outputs, masks, labels)
    found = {name.removeprefix('decode.'): loss for name, loss in found.items()}
    torch.testing.assert_close(found, expected)
    # had void no say, a mask of all would cost as much
    full = given(outputs, [torch.ones_like(each) for each in masks], labels)
    assert abs(full['loss_mask'] - expected['loss_mask']) > 0.01


def test_points_cover_the_canvas_and_masks_are_zero_beyond_the_images(monkeypatch):
    model = detector().train()
    training_at(0, 100)
    samples = objects(SIZE, (2, 1))
    seen = []
    monkeypatch.setattr(
        batched_loss.BatchedLoss,
        'loss_by_feat',
        lambda head, classes, masks, truth, metas: seen.extend(truth) or {},
    )
    model.loss(images(*SIZE), samples)
    for each, sample in zip(seen, samples, strict=True):
        assert each.masks.shape[-2:] == (64, 96)
        assert each.masks.dtype == torch.bool
        assert not each.masks[:, 50:].any()
        assert not each.masks[:, :, 83:].any()
        own = torch.from_numpy(sample.gt_instances.masks.masks).bool()
        assert torch.equal(each.masks[:, :50, :83], own)


@pytest.mark.parametrize('patch', [16, 14])
def test_predicted_masks_are_resized_to_the_canvas_and_cut_to_the_images(patch):
    model = detector(backbone=dict(patch_size=patch)).eval()
    x = images(*SIZE)
    with torch.no_grad():
        classes, masks = model.panoptic_head.predict(model.extract_feat(x), objects(SIZE))
        logits = model.panoptic_head(model.extract_feat(x))
    canvas = tuple(-(-side // patch) * patch for side in SIZE)
    expected = F.interpolate(logits[1][-1], canvas, mode='bilinear')[..., : SIZE[0], : SIZE[1]]
    torch.testing.assert_close((classes, masks), (logits[0][-1], expected))
    squeezed = F.interpolate(logits[1][-1], SIZE, mode='bilinear')
    assert (squeezed - masks).abs().max() > 0.1


def test_padding_below_and_right_of_images_is_as_that_of_the_backbone():
    model = segmenter().eval()
    whole = F.pad(images(*SIZE), (0, 96 - 83, 0, 64 - 50))
    with torch.no_grad():
        found = model.encode_decode(images(*SIZE), [dict(img_shape=SIZE)])
        padded = model.encode_decode(whole, [dict(img_shape=(64, 96))])
    torch.testing.assert_close(found, padded[..., :50, :83])


def test_scores_leave_no_object_out():
    cls, masks = torch.randn(2, 3, 5), torch.randn(2, 3, 4, 6)
    expected = torch.zeros(2, 4, 4, 6)
    for query in range(3):
        shares = cls[:, query].softmax(-1)[:, :4]
        expected += shares[..., None, None] * masks[:, query, None].sigmoid()
    torch.testing.assert_close(semantic_scores(cls, masks), expected)


def test_stuff_is_learned_beside_things(monkeypatch):
    model, samples, seen = detector().train(), objects(SIZE, (2, 0)), []
    labels = torch.randint(THINGS, THINGS + STUFF, (2, 1, *SIZE))
    for sample, own in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(sem_seg=own)
    loss_by_feat = batched_loss.BatchedLoss.loss_by_feat

    def watched(head, classes, masks, truth, metas):
        seen.extend(truth)
        return loss_by_feat(head, classes, masks, truth, metas)

    monkeypatch.setattr(batched_loss.BatchedLoss, 'loss_by_feat', watched)
    losses = model.loss(images(*SIZE), samples)
    assert all(each.isfinite() for each in losses.values())
    for each, sample, own in zip(seen, samples, labels, strict=True):
        things = sample.gt_instances.labels.tolist()
        assert each.labels.tolist() == [*things, THINGS, THINGS + 1]
        assert torch.equal(each.masks[len(things) :, :50, :83], own == torch.tensor([[[3]], [[4]]]))


def test_masks_of_another_size_than_the_images_are_refused():
    line = (
        'The masks are of size (32, 83), and the images have 4x6 patches of patch_size=(16, 16): '
        'pad masks with the images, by data_preprocessor=dict(pad_mask=True, pad_seg=True) in mmdet'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(line)}$'):
        detector().train().loss(images(*SIZE), objects((32, 83)))


def test_nothing_of_mask2formers_decoders_is_built():
    head = detector().panoptic_head
    assert isinstance(head, Mask2FormerHead)
    assert [name for name, _ in head.named_children()] == [
        'query_embed',
        'cls_embed',
        'mask_embed',
        'upscale',
        'loss_cls',
        'loss_mask',
        'loss_dice',
    ]
