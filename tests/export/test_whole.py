"""Whole trained models as files: their numbers, their metric, and what is refused."""

import re
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import load_tool
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch.nn import functional as F
from trained_models import write_detector, write_segmenter

from vit_backbones.config.datasets import build_dataset
from vit_backbones.config.loading import load_config, use_scope
from vit_backbones.evaluation import file_check
from vit_backbones.evaluation.decoding import labels_of, objects_of, panoptic_of
from vit_backbones.evaluation.file_check import FileCheck
from vit_backbones.export import WholeGraph, export
from vit_backbones.export.formats import _pooled
from vit_backbones.models.random_weights import redraw
from vit_backbones.models.trained import load_trained
from vit_backbones.training.run import evaluate

ROOT = Path(__file__).parents[2]
EVALUATED = """
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
val_cfg = test_cfg = dict()
"""
UPERNET = (
    "model['decode_head'] = dict(type='UPerHead', in_channels=[64, 64], in_index=[0, 1], "
    "channels=8, num_classes=2, norm_cfg=dict(type='GN', num_groups=1), "
    "loss_decode=dict(type='CrossEntropyLoss'))\n"
)
SIZE = (48, 80)


@pytest.fixture
def segmenter(tmp_path, monkeypatch):
    """Config and checkpoint of a segmenter, with three images and label maps of several sizes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, size in (('a', (50, 70)), ('b', (64, 96)), ('c', (90, 40))):
        for folder, values in (('images', (0, 256, (4, 5, 3))), ('labels', (0, 2, (4, 5)))):
            Path('seg', folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(*values).astype(np.uint8)
            pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(f'seg/{folder}/{name}.png', pixels)
    return write_segmenter(tmp_path, EVALUATED)


def run_file(path):
    session = onnxruntime.InferenceSession(path)
    return lambda x: [torch.from_numpy(each) for each in session.run(None, {'images': x.numpy()})]


@pytest.mark.parametrize('size', [(64, 64), SIZE])
def test_a_file_of_a_segmenter_has_its_scores_and_its_metric(segmenter, size):
    trained = load_trained(*segmenter)
    graph = WholeGraph(trained, *segmenter)
    exported = export(graph, 'seg.onnx', size=size, accept=FileCheck(trained, graph.loaded))
    assert exported.outputs == {'scores': (1, 2, *size)}
    x = graph.images(1, size)
    with torch.no_grad():
        expected = trained.model.encode_decode(x, [dict(img_shape=size)])
    (found,) = run_file('seg.onnx')(x)
    assert torch.allclose(found, expected, atol=1e-5)
    where = f'mIoU on 3 validation images at {size[0]}x{size[1]}'
    number = re.fullmatch(
        rf'{where}: (\d+\.\d+) of the file, \1 of PyTorch; 0\.1 points allowed', exported.remark
    )
    assert number is not None, exported.remark
    assert 10 < float(number[1]) < 90
    assert str(exported).splitlines()[-1] == exported.remark


def test_the_metric_is_that_of_the_models_own_test(segmenter):
    """At the size of the only image."""
    for name in 'ac':
        Path(f'seg/images/{name}.png').unlink()
        Path(f'seg/labels/{name}.png').unlink()
    trained = load_trained(*segmenter)
    graph = WholeGraph(trained, *segmenter)
    line = FileCheck(trained, graph.loaded)(graph, (64, 96))
    metrics = evaluate(*segmenter).metrics
    assert line.startswith(f'mIoU on 1 validation image at 64x96: {metrics["mIoU"]:.2f} of the ')


@pytest.mark.parametrize('is_bgr', [False, True])
def test_normalisation_in_the_file_takes_rgb(segmenter, is_bgr):
    options = [f'model.data_preprocessor.bgr_to_rgb={not is_bgr}']
    trained = load_trained(*segmenter, options)
    plain, normalising = (WholeGraph(trained, *segmenter, normalises=on) for on in (False, True))
    assert normalising.loaded.is_bgr is is_bgr
    check = FileCheck(trained, plain.loaded, True)
    pixels = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)  # BGR, as mmcv loads them
    prepared = trained.model.data_preprocessor(dict(inputs=[pixels]))['inputs']
    images = check._images(pixels, SIZE)
    assert torch.allclose(images, prepared, atol=1e-6)
    assert torch.allclose(check._for_file(images)[0], pixels.flip(0).float(), atol=1e-3)
    with torch.no_grad():
        (found,), (expected,) = normalising(pixels.flip(0)[None].float()), plain(prepared)
    assert torch.allclose(found, expected, atol=1e-4)


def test_another_metric_is_refused(segmenter):
    trained = load_trained(*segmenter)
    graph = WholeGraph(trained, *segmenter)
    check = FileCheck(trained, graph.loaded)
    with pytest.raises(ValueError, match=r"^'seg' as a file gives another metric .* 0\.1 points"):
        check(lambda images: [-each for each in graph(images)], SIZE)


def test_metrics_may_differ_by_a_tenth_of_a_point():
    verdict = file_check._verdict
    found = [('mIoU', 50.09), ('mIoU', 50.0)]
    assert verdict(found, 20, 'x', SIZE) == (
        'mIoU on 20 validation images at 48x80: 50.09 of the file, 50.00 of PyTorch; '
        '0.1 points allowed'
    )
    for wrong in (50.11, float('nan')):
        with pytest.raises(ValueError, match='so nothing is written: mIoU on 20 validation'):
            verdict([('mIoU', wrong), found[1]], 20, 'x', SIZE)
    nothing = [('metric', float('nan'))] * 2
    assert verdict(nothing, 1, 'x', SIZE).startswith('no metric on 1 validation image at 48x80')


def test_without_data_only_the_numbers_are_compared(segmenter):
    trained = load_trained(*segmenter, ['val_dataloader.dataset.data_root=gone'])
    graph = WholeGraph(trained, *segmenter)
    exported = export(graph, 'seg.onnx', size=SIZE, accept=FileCheck(trained, graph.loaded))
    line = "no metric was compared, only the numbers: val_dataloader.dataset.data_root: 'gone'"
    assert exported.remark.startswith(line)
    assert Path('seg.onnx').is_file()


def test_upernet_pools_to_any_size(segmenter, tmp_path):
    """Its pooling to 6x6 cells does not divide 4x5."""
    given = write_segmenter(tmp_path, EVALUATED + UPERNET)
    trained = load_trained(*given)
    graph = WholeGraph(trained, *given)
    exported = export(graph, 'seg.onnx', size=(64, 80), dynamic=True)
    assert exported.outputs == {'scores': ('batch', 2, 64, 80)}
    x = graph.images(3, (64, 80))
    with torch.no_grad():
        expected = trained.model.encode_decode(x, [dict(img_shape=(64, 80))])
    assert torch.allclose(run_file('seg.onnx')(x)[0], expected, atol=1e-4)


@pytest.mark.parametrize('size', [1, 2, 3, 6, (2, 5), (None, 3)])
def test_pooling_as_products(size):
    for shape in ((8, 10), (7, 5), (1, 3)):
        maps = torch.randn(2, 3, *shape)
        assert torch.allclose(_pooled(maps, size), F.adaptive_avg_pool2d(maps, size), atol=1e-6)


def test_a_whole_model_takes_one_size(segmenter):
    graph = WholeGraph(load_trained(*segmenter), *segmenter)
    with pytest.raises(ValueError, match=r"^'seg' as a whole takes images of one size: give it"):
        export(graph, 'seg.onnx', dynamic=True)


def test_other_models_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = write_detector(tmp_path)
    with pytest.raises(ValueError, match=r'det\.py: a whole MaskRCNN \(StandardRoIHead\) is not'):
        WholeGraph(load_trained(*given), *given)


def test_one_channel_for_two_classes_is_refused(segmenter, tmp_path):
    given = write_segmenter(tmp_path, "model['decode_head']['out_channels'] = 1\n")
    with pytest.raises(ValueError, match='its FCNHead gives one channel for two classes'):
        WholeGraph(load_trained(*given), *given)


def fusion(**options):
    """mmdet's own postprocessing, with 3 classes of things and 2 of stuff."""
    head = dict(type='mmdet.MaskFormerFusionHead', num_things_classes=3, num_stuff_classes=2)
    given = dict(panoptic_on=True, instance_on=True, max_per_image=30) | options
    return MODELS.build(head | dict(test_cfg=given, loss_panoptic=None, init_cfg=None))


@pytest.mark.parametrize('tight', [False, True])
def test_queries_are_read_as_by_mmdet(tight):
    import vit_backbones.mmdet  # noqa: F401

    generator = torch.Generator().manual_seed(0)
    classes = 4 * torch.randn(1, 20, 6, generator=generator)
    coarse = 6 * torch.randn(1, 20, 5, 7, generator=generator) - 3
    masks = F.interpolate(coarse, (48, 80), mode='bilinear')
    shape, size = (40, 72), (57, 101)
    meta = dict(img_shape=shape, ori_shape=size)
    head = fusion(object_mask_thr=0.5, iou_thr=0.2, filter_low_score=tight)
    (expected,) = head.predict(classes, masks, [BaseDataElement(metainfo=meta)], rescale=True)
    given = classes[0].numpy(), masks[0].numpy(), shape, size
    options = dict(num_things=3, score_thr=0.5, overlap_thr=0.2, only_inside=tight)
    segments = panoptic_of(*given, **options)
    truth = expected['pan_results'].sem_seg[0].numpy()
    assert (segments != truth).mean() < 1e-3  # pixels on a border
    assert len(np.unique(truth)) > 4
    scores, labels, found = objects_of(*given, top=30, num_things=3)
    instances = expected['ins_results']
    order = instances.scores.argsort(descending=True).numpy()
    own = np.argsort(-scores)
    np.testing.assert_allclose(scores[own], instances.scores[order], rtol=1e-4)
    np.testing.assert_array_equal(labels[own], instances.labels[order])
    assert (found[own] != instances.masks[order].numpy()).mean() < 1e-3
    assert 0 < len(scores) < 30  # some are stuff


DRAWN = """
_base_ = '{root}/configs/_base_/datasets/shapes_{kind}.py'
custom_imports = dict(imports=['vit_backbones.mmdet'])
default_scope = 'mmdet'
builtin_data = dict(_delete_=True, root='data/shapes', num_train=1, num_val=4, seed=0)
model = dict(
    type='EoMT',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True
    ),
    backbone=dict(type='ViTFeatBackbone', model_name='test_vit', img_size=(96, 160)),
    panoptic_head=dict(
        type='EoMTHead', num_things_classes=8, num_stuff_classes={stuff}, num_queries=9,
        num_blocks=2,
    ),
    test_cfg=dict(object_mask_thr=0.05, iou_thr=0.1, max_per_image=50),
)
"""


@pytest.mark.parametrize(
    ('kind', 'stuff', 'metric'), [('instance', 0, 'segm_mAP'), ('panoptic', 1, 'PQ')]
)
@pytest.mark.parametrize('normalises', [False, True])
def test_a_file_of_queries_has_their_metric(kind, stuff, metric, normalises, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('det.py').write_text(DRAWN.format(root=ROOT, kind=kind, stuff=stuff))
    config = load_config('det.py')
    use_scope(config)
    torch.save(dict(state_dict=redraw(MODELS.build(config.model)).state_dict()), 'det.pth')
    trained = load_trained('det.py', 'det.pth')
    graph = WholeGraph(trained, 'det.py', 'det.pth', normalises=normalises)
    check = FileCheck(trained, graph.loaded, normalises)
    exported = export(graph, 'det.onnx', size=(96, 160), accept=check)
    classes, masks = (1, 9, 8 + stuff + 1), (1, 9, 96, 160)
    assert exported.outputs == {'classes': classes, 'masks': masks}
    start = f'{metric} on 4 validation images at 96x160: '
    assert re.fullmatch(start + r'(\S+) of the file, \1 of PyTorch; .*', exported.remark)
    assert graph.notes()['num_things'] == 8
    start = f'{metric} on 4 validation images at 128x192: 100.00 of the file, 0.00 of PyTorch, '
    with pytest.raises(ValueError, match=start):
        check(truth_of(trained.config, stuff), (128, 192))


def test_a_file_of_a_plain_mask_head_has_its_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = DRAWN.format(root=ROOT, kind='instance', stuff=0)
    text = text.replace("'EoMT'", "'Mask2Former'").replace('EoMTHead', 'PlainMaskHead')
    text = text.replace('num_blocks=2', 'num_blocks=2, in_channels=[64] * 2')
    text = text.replace("'test_vit'", "'test_vit', out_indices=(0, 5), norm='all'")
    classes = 'num_things_classes=8, num_stuff_classes=0'
    fusion = f"dict(type='MaskFormerFusionHead', loss_panoptic=None, {classes})"
    text = text.replace('    test_cfg=', f'    panoptic_fusion_head={fusion},\n    test_cfg=')
    Path('det.py').write_text(text.replace('0.05, ', '0.05, panoptic_on=False, instance_on=True, '))
    config = load_config('det.py')
    use_scope(config)
    torch.save(dict(state_dict=redraw(MODELS.build(config.model)).state_dict()), 'det.pth')
    trained = load_trained('det.py', 'det.pth')
    graph = WholeGraph(trained, 'det.py', 'det.pth')
    check = FileCheck(trained, graph.loaded, False)
    exported = export(graph, 'det.onnx', size=(96, 160), accept=check)
    assert exported.outputs == {'classes': (1, 9, 9), 'masks': (1, 9, 96, 160)}
    start = 'segm_mAP on 4 validation images at 96x160: '
    assert re.fullmatch(start + r'(\S+) of the file, \1 of PyTorch; .*', exported.remark)


def truth_of(config, stuff):
    """A file that gives the objects of the images, which are of its size."""
    items = iter(build_dataset(config, 'val'))

    def run(images):
        sample = next(items)['data_samples']
        labels = sample.gt_instances.labels.tolist()
        masks = [torch.from_numpy(sample.gt_instances.masks.to_ndarray()).bool()]
        if stuff:
            masks.append(sample.gt_sem_seg.sem_seg == 8)
            labels.append(8)
        masks = torch.cat(masks)
        assert masks.shape[1:] == images.shape[2:]
        classes = 20.0 * torch.eye(8 + stuff + 1)[labels]
        return [classes[None], 20.0 * masks[None] - 10]

    return run


def test_padding_is_that_of_the_config(segmenter):
    pixels = torch.full((3, 40, 64), 255, dtype=torch.uint8)
    for black in (False, True):
        trained, value = load_trained(*segmenter), -1.0 if black else 0.0
        if black:
            trained.config.train_dataloader.dataset.pipeline.append(dict(type='PadWithBlack'))
        graph = WholeGraph(trained, *segmenter)
        images = FileCheck(trained, graph.loaded)._images(pixels, SIZE)
        assert (images[..., :40, :64] == 1).all()
        assert (images[..., 40:, :] == value).all()
        assert (images[..., 64:] == value).all()
        assert graph.notes()['padding'] == ('black' if black else 'mean')


def test_the_lines_of_the_page_read_the_scores():
    text = (ROOT / 'docs/export.md').read_text()
    (lines,) = re.findall(r'```python\n(import cv2.*?)```', text, re.DOTALL)
    scores = np.random.default_rng(0).normal(size=(1, 4, 12, 20)).astype(np.float32)

    class Session:
        @staticmethod
        def run(outputs, given):
            assert given['images'].shape == (1, 3, *SIZE)
            return [F.interpolate(torch.from_numpy(scores), SIZE, mode='bilinear').numpy()]

    image = np.zeros((96, 120, 3), np.uint8)  # fits in by 48 x 60
    names = dict(session=Session, image=image, H=SIZE[0], W=SIZE[1])
    exec(lines, names)
    (outputs,) = Session.run(None, dict(images=np.zeros((1, 3, *SIZE))))
    expected = labels_of(outputs[0], (48, 60), (96, 120))
    np.testing.assert_array_equal(names['labels'], expected)


def test_the_tool_takes_a_work_dir(segmenter, capsys):
    main = load_tool('export_onnx').main
    Path('run').mkdir()
    for name in ('seg.py', 'seg.pth'):
        Path(name).rename(Path('run', name))
    assert main(['--whole', '--work-dir', 'run', '--out', 'a.onnx', '--size', '48', '80']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ['  images 1 x 3 x 48 x 80', '  scores 1 x 2 x 48 x 80']
    assert lines[-1].startswith('mIoU on 3 validation images at 48x80: ')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--whole',), '--whole takes --work-dir, or --config and --checkpoint of a training'),
        (('--whole', '--config', 'a.py'), '--whole takes --work-dir, or --config and --checkp'),
        (('--whole', '--work-dir', 'a', '--config', 'a.py'), '--whole takes --work-dir, or'),
        (('--work-dir', 'a'), '--work-dir goes with --whole'),
        (('--whole', '--work-dir', 'a', '--pool', 'avg'), '--pool is for backbones: leave it or'),
    ],
)
def test_options_that_do_not_go_together(capsys, options, message):
    with pytest.raises(SystemExit, match='2'):
        load_tool('export_onnx').main([*options, '--out', 'a.onnx'])
    assert message in capsys.readouterr().err
