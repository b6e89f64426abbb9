"""`load_model(...).predict(...)`, against what tools/predict.py writes."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, load_tool
from eomt_models import detector as eomt
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as rle
from trained_models import write_detector, write_images, write_segmenter

import vit_backbones
from vit_backbones import load_model
from vit_backbones.evaluation.loaded_model import LoadedModel
from vit_backbones.evaluation.predicting import Predictor
from vit_backbones.hosts.panoptic_api import rgb2id
from vit_backbones.images import Item, read_image

SIZES = (64, 96), (64, 96), (50, 33), (64, 96), (70, 100)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Work dirs `seg` and `det`, and `images`."""
    folder = tmp_path_factory.mktemp('loaded')
    for write, name in ((write_segmenter, 'seg'), (write_detector, 'det')):
        (folder / name).mkdir()
        write(folder / name)
    first, *_ = write_images(folder / 'images', *SIZES)
    balance(folder / 'seg', first)
    return folder


def balance(folder, image):
    """Let a segmenter give half of an image each label."""
    trained = load_model(folder, device='cpu').trained
    [one] = Predictor(trained)([Item(image, '', '', read_image(image))])
    road, sky = one.sample.seg_logits.data
    content = torch.load(folder / 'seg.pth', weights_only=True)
    content['state_dict']['decode_head.conv_seg.bias'][0] -= (road - sky).median()
    torch.save(content, folder / 'seg.pth')


@pytest.fixture(scope='module')
def models(folder):
    return {name: load_model(folder / name, device='cpu') for name in ('seg', 'det')}


@pytest.fixture(scope='module')
def paths(folder):
    return sorted((folder / 'images').iterdir())


@pytest.fixture
def tool(folder, tmp_path, capsys):
    """Run tools/predict.py into `tmp_path`."""

    def run(name, *options):
        files = [str(folder / name / f'{name}.{suffix}') for suffix in ('py', 'pth')]
        images = [str(folder / 'images'), '--out', str(tmp_path), '--no-pictures']
        code = load_tool('predict').main([*files, *images, '--device', 'cpu', *options])
        assert (code, capsys.readouterr().err) == (0, '')

    return run


def opened(paths):
    return [np.asarray(Image.open(path)) for path in paths]


def assert_equal(one, other):
    """Equal results, value by value and type by type."""
    assert type(one) is type(other)
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert getattr(ours, 'dtype', None) == getattr(theirs, 'dtype', None)


@pytest.mark.parametrize(
    ('flags', 'options'),
    [
        ([], {}),
        pytest.param(['--batch-size', '3'], dict(batch_size=3), marks=pytest.mark.slow),
        (['--flip'], dict(flip=True)),
        (['--slide', '48', '32'], dict(slide=(48, 32))),
    ],
)
def test_label_maps_are_those_of_the_tool(flags, options, models, paths, tool, tmp_path):
    tool('seg', *flags)
    found = models['seg'].predict(paths, **options)
    for path, each, size in zip(paths, found, SIZES, strict=True):
        assert each.labels.shape == size
        mask = np.asarray(Image.open(tmp_path / f'masks/{path.stem}.png'))
        np.testing.assert_array_equal(each.labels, mask)
        assert each.classes.tolist() == ['road', 'sky']
    assert any(len(np.unique(each.labels)) > 1 for each in found)


@pytest.mark.parametrize(
    ('flags', 'options'),
    [
        pytest.param([], {}, marks=pytest.mark.slow),
        (['--batch-size', '3', '--score-thr', '0.1'], dict(batch_size=3, score_thr=0.1)),
        (['--slide', '64', '48', '--merge-thr', '0.4'], dict(slide=(64, 48), merge_thr=0.4)),
    ],
)
def test_objects_are_those_of_the_tool(flags, options, models, paths, tool, tmp_path):
    low = [] if '--score-thr' in flags else ['--score-thr', '0.02']
    options = dict(score_thr=0.02) | options
    tool('det', *flags, *low)
    content = json.loads((tmp_path / 'predictions.json').read_text())
    written = {image['id']: [] for image in content['images']}
    for each in content['annotations']:
        written[each['image_id']].append(each)
    names = [each['name'] for each in content['categories']]
    found = models['det'].predict(opened(paths), **options)
    for objects, lines in zip(found, written.values(), strict=True):
        assert objects.scores.tolist() == [each['score'] for each in lines]
        assert objects.names.tolist() == [names[each['category_id'] - 1] for each in lines]
        boxes = objects.boxes.tolist()
        corners = [[x, y, right - x, bottom - y] for x, y, right, bottom in boxes]
        assert corners == [each['bbox'] for each in lines]
        for mask, each in zip(objects.masks, lines, strict=True):
            np.testing.assert_array_equal(np.asarray(mask), rle.decode(each['segmentation']))
    assert sum(map(len, written.values())) > 20


@pytest.mark.parametrize('name', ['seg', 'det'])
def test_a_file_its_image_and_its_array_give_the_same(name, models, paths, tmp_path):
    photo = Image.open(paths[0])
    turned = photo.getexif()
    turned[0x0112] = 6  # shown turned by a quarter
    photo.save(tmp_path / 'a.jpg', exif=turned, quality=60)
    photo.convert('L').save(tmp_path / 'b.png')
    photo.convert('RGBA').save(tmp_path / 'c.png')
    photo.quantize(8).save(tmp_path / 'd.png')
    paths = paths[1:3]
    given = [*paths, *(tmp_path / each for each in ('a.jpg', 'b.png', 'c.png', 'd.png'))]
    options = dict(score_thr=0.02)
    files = models[name].predict([str(path) for path in given], **options)
    images = models[name].predict(tuple(map(Image.open, given)), **options)
    for ours, theirs in zip(files, images, strict=True):
        assert_equal(ours, theirs)
    arrays = models[name].predict(opened([*paths, tmp_path / 'b.png']), **options)
    for ours, theirs in zip(arrays, [*files[: len(paths)], files[-3]], strict=True):
        assert_equal(ours, theirs)
    assert_equal(models[name].predict(paths[1], **options), files[1])
    swapped = models[name].predict(opened(paths[:1])[0][..., ::-1], **options)
    assert not all(np.array_equal(*each) for each in zip(swapped, files[0], strict=True))


def test_eight_threads_get_what_one_gets(models, paths, folder):
    other = load_model(folder / 'seg/seg.py', folder / 'seg/seg.pth', device='cpu')
    jobs = []
    for index, image in enumerate([*paths, *opened(paths)]):
        if index % 2:
            jobs.append((models['det'].predict, image, dict(score_thr=0.02)))
        jobs.append((models['seg'].predict, image, dict(slide=(48, 32)) if index % 2 else {}))
        jobs.append((other.predict, image, dict(flip=bool(index % 2))))
    alone = [do(image, **options) for do, image, options in jobs]
    before = models['seg'].trained.model.test_cfg
    with ThreadPoolExecutor(max_workers=8) as pool:
        together = list(pool.map(lambda job: job[0](job[1], **job[2]), jobs))
    for ours, theirs in zip(alone, together, strict=True):
        assert_equal(ours, theirs)
    assert models['seg'].trained.model.test_cfg is before


def test_features_are_what_the_model_itself_computes(models, paths):
    for name, model in models.items():
        seen = []
        backbone = model.trained.model.backbone
        hook = backbone.register_forward_hook(
            lambda module, given, maps, seen=seen: seen.append(maps)
        )
        model.predict(paths[4])
        hook.remove()
        found = model.features([paths[4], Image.open(paths[4])])
        assert len(found) == 2
        for maps in (*found, model.features(opened(paths[4:])[0])):
            assert [each.shape for each in maps] == [(64, *each.shape[2:]) for each in seen[0]]
            for ours, theirs in zip(maps, seen[0], strict=True):
                np.testing.assert_array_equal(ours, theirs[0].numpy())
        assert len(maps) == dict(seg=2, det=1)[name]


def test_panoptic_maps_are_those_of_the_tool(models, paths, tmp_path, monkeypatch):
    panoptic = models['det'].trained._replace(model=eomt().eval(), classes=list('abcde'))
    panoptic.model.panoptic_fusion_head.test_cfg.update(object_mask_thr=0.05, iou_thr=0.1)
    monkeypatch.setattr('vit_backbones.models.trained.load_trained', lambda *_, **__: panoptic)
    arguments = ['det.py', 'det.pth', *map(str, paths), '--out', str(tmp_path), '--no-pictures']
    assert load_tool('predict').main(arguments) == 0
    found = LoadedModel(panoptic).predict(paths)
    content = json.loads((tmp_path / 'panoptic.json').read_text())
    for each, note in zip(found, content['annotations'], strict=True):
        written = rgb2id(np.asarray(Image.open(tmp_path / 'panoptic' / note['file_name'])))
        np.testing.assert_array_equal(each.ids, written)
        assert (each.labels + 1).tolist() == [s['category_id'] for s in note['segments_info']]
        assert each.things.tolist() == (each.labels < 3).tolist()
        assert each.names.tolist() == [panoptic.classes[i] for i in each.labels]
    assert any(len(each.labels) > 1 for each in found)


def test_a_work_dir_gives_its_best_checkpoint_else_the_last(folder, models, paths, tmp_path):
    shutil.copytree(folder / 'seg', tmp_path / 'run')
    content = torch.load(tmp_path / 'run/seg.pth', weights_only=True)
    for value in content['state_dict'].values():
        value.mul_(0.5) if value.is_floating_point() else None
    torch.save(content, tmp_path / 'run/best_mIoU_epoch_1.pth')
    best, expected = (
        load_model(tmp_path / 'run', device='cpu'),
        load_model(folder / 'seg/seg.py', tmp_path / 'run/best_mIoU_epoch_1.pth', device='cpu'),
    )
    for ours, theirs, last in zip(
        *(each.features(paths[0]) for each in (best, expected, models['seg'])), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(ours, last)
    chosen = load_model(tmp_path / 'run', tmp_path / 'run/seg.pth', device='cpu')
    assert_equal(chosen.predict(paths[0]), models['seg'].predict(paths[0]))


def test_wrong_places_are_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / 'seg', 'half')
    Path('half/seg.pth').unlink()
    Path('empty').mkdir()
    shutil.copytree('half', 'bare')
    Path('bare/seg.py').rename('bare/record.json')
    Path('bare/record.json').write_text('{}')
    for given, message in [
        (('half',), 'half holds no whole checkpoint (*.pth): give checkpoint=FILE'),
        (('empty',), "'empty' is no work dir of tools/train.py: it holds no config, record.json"),
        (('bare',), 'bare holds no config (*.py), as tools/train.py leaves one'),
        (('gone',), f"'gone' is no work dir and no config (from {tmp_path})"),
        (('half/seg.py',), 'half/seg.py: a config needs checkpoint=FILE; or give a whole work dir'),
        (('half', 'gone.pth'), "'gone.pth'"),
        (('half/seg.py', 'half'), "checkpoint 'half' is a folder: name a file in it"),
        ((folder / 'seg/seg.pth',), 'seg.pth: no config; of a checkpoint, give its work dir, or '),
        ((None,), 'source=None: takes the path of a work dir or a config'),
    ]:
        with pytest.raises((ValueError, TypeError, OSError)) as caught:
            load_model(*given)
        assert message in str(caught.value)
        assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match='device=tpu: '):
        load_model(folder / 'seg', device='tpu')


def test_wrong_images_are_one_line(models, paths, tmp_path):
    (tmp_path / 'text.png').write_bytes(b'no image')
    half = tmp_path / 'half.jpg'
    Image.open(paths[4]).save(half)
    half.write_bytes(half.read_bytes()[:-200])
    whole, wanted = np.zeros((9, 9, 3), np.uint8), 'takes (H, W, 3) in RGB or (H, W), of uint8'
    for given, message in [
        (tmp_path / 'text.png', f'{tmp_path}/text.png: no image, or a damaged one'),
        (half, f'{half}: '),
        (Image.open(half), 'the image: '),
        ('gone.png', 'gone.png: it does not exist'),
        (tmp_path, f'{tmp_path}: '),
        ([], 'images=[]: give at least one image'),
        (whole / 255, f'the image is an array (9, 9, 3) of float64: {wanted}'),
        ([whole, whole[None]], f'images[1] is an array (1, 9, 9, 3) of uint8: {wanted}'),
        (whole[..., :2], f'the image is an array (9, 9, 2) of uint8: {wanted}'),
        (np.zeros((9, 9, 4), np.uint8), f'the image is an array (9, 9, 4) of uint8: {wanted}'),
        (whole[:0], f'the image is an array (0, 9, 3) of uint8: {wanted}'),
        (whole[0, 0], f'the image is an array (3,) of uint8: {wanted}'),
        ([whole, None], 'images[1] is of NoneType: takes a path, an array (H, W, C) in RGB, a PIL'),
        (torch.zeros(9, 9, 3), 'the image is of Tensor: takes a path'),
        (np.zeros((1, 400, 3), np.uint8), 'the image: it has 1x400 pixels, of which the config'),
    ]:
        for call in (models['seg'].predict, models['det'].features):
            with pytest.raises((ValueError, TypeError)) as caught:
                call(given)
            assert str(caught.value).startswith(message)
            assert '\n' not in str(caught.value)
    for options, message in [
        (dict(batch_size=0), 'batch_size=0: takes whole numbers from 1'),
        (dict(score_thr=30), 'score_thr=30: takes numbers from 0 to 1'),
        (dict(merge_thr=0.5), 'merge_thr=0.5: goes with slide='),
        (dict(merge_thr=0.5, slide=(48, 32)), 'merge_thr=0.5: EncoderDecoder averages scores'),
    ]:
        with pytest.raises(ValueError, match=message):
            models['seg'].predict(whole, **options)


def test_bands_are_taken_as_the_config_loads_them(folder, tmp_path):
    text = (folder / 'seg/seg.py').read_text()
    text = text.replace("'LoadImageFromFile'", "'LoadImageFromFile', color_type='unchanged', "
                        'to_float32=True').replace('[127.5] * 3', '[9000] * 4')  # fmt: skip
    text = text.replace("model_name='test_vit'", "model_name='test_vit', in_channels=4")
    (tmp_path / 'seg.py').write_text(text.replace('bgr_to_rgb=True', 'bgr_to_rgb=False'))
    content = torch.load(folder / 'seg/seg.pth', weights_only=True)
    weights = content['state_dict']
    name = next(key for key in weights if key.endswith('patch_embed.proj.weight'))
    weights[name] = torch.cat([weights[name], weights[name][:, :1]], dim=1)
    torch.save(content, tmp_path / 'seg.pth')
    model = load_model(tmp_path, device='cpu')
    deep = np.random.default_rng(0).integers(0, 20000, (64, 96, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / 'a.tif'), deep)
    for ours, theirs in zip(*map(model.features, (deep, tmp_path / 'a.tif')), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_equal(model.predict(deep), model.predict(tmp_path / 'a.tif'))
    with pytest.raises(ValueError, match='the image: it has 3 channels, and the model takes 4'):
        model.predict(deep[..., :3])
    with pytest.raises(TypeError, match=r"the image: the config's loader gives no RGB; give an ar"):
        model.predict(Image.new('RGB', (96, 64)))


def test_the_scope_of_the_caller_stays(models, paths):
    before = DefaultScope.get_current_instance().instance_name, [*DefaultScope._instance_dict]
    models['seg'].predict(paths[0])
    models['det'].features(paths[0])
    now = DefaultScope.get_current_instance().instance_name, [*DefaultScope._instance_dict]
    assert now == before


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vit_backbones' has no attribute 'gone'"):
        vit_backbones.gone  # noqa: B018


def test_the_notebook_runs(folder, paths, tmp_path, monkeypatch, capsys):
    """Its cells in order, in one namespace, in a folder with a work dir and an image."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / 'det', 'work_dirs/run')
    shutil.copy(paths[0], 'image.png')
    notebook = REPOSITORY / 'docs/predict.ipynb'
    assert notebook.stat().st_size < 30_000
    content = json.loads(notebook.read_text())
    cells = [each for each in content['cells'] if each['cell_type'] == 'code']
    assert all(each['outputs'] == [] and each['execution_count'] is None for each in cells)
    names = {}
    Path('work_dirs/run/det.py').write_text(
        Path('work_dirs/run/det.py').read_text().replace('score_thr=0.01', 'score_thr=0.3')
    )
    for each in cells:
        exec(''.join(each['source']), names)
    found = names['found']
    assert len(capsys.readouterr().out.splitlines()) == len(found.names) > 0
    assert Image.open('painted.png').size == (96, 64)
    assert [each.masks.shape[1:] for each in names['several']] == [(64, 96), (60, 80)]
    assert {mask.shape for mask in names['whole']} == {(128, 192)}
    assert names['maps'][0].shape == (64, 4, 6)
