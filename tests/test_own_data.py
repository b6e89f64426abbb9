"""`--dataset`: a COCO file or a folder of masks takes the place of a config's data."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from checked_configs import ROOT
from conftest import load_tool
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings
from own_files import DETECTOR, NUMBER, SEGMENTER, coco, write_coco, write_images, write_masks
from PIL import Image

from vit_backbones.checks.recipe import class_findings
from vit_backbones.config.facts import Facts, dataset_configs
from vit_backbones.config.loading import load_config
from vit_backbones.own_data import use_own_data
from vit_backbones.own_data.masks import read_masks
from vit_backbones.own_data.rewriting import put_classes
from vit_backbones.terminal import quiet_prints

CONFIGS = ROOT / 'configs'
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts
)
PANOPTIC = 'mask2former/mask2former_vit-b-dinov2_coco-panoptic.py'
FEW = [  # regions an image
    'model.train_cfg.rpn_proposal.max_per_img=20',
    'model.train_cfg.rcnn.sampler.num=16',
    'model.test_cfg.rpn.max_per_img=20',
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A config of this text with own data, and the line that tells of it."""
    monkeypatch.chdir(tmp_path)

    def read(text, data, **options):
        Path('a.py').write_text(text)
        cfg = load_config('a.py')
        return cfg, use_own_data(cfg, data, folder='lists', **options).summary

    return read


def build(cfg, split):
    init_default_scope(cfg.default_scope)
    import_modules_from_strings(**cfg.custom_imports)
    for _, leaf in dataset_configs(cfg[f'{split}_dataloader'], ''):
        leaf.serialize_data = False  # a garbage collection each, otherwise
    with quiet_prints():
        return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def read_lists(name):
    return json.loads(Path(f'lists/{name}.json').read_text())


# COCO files


def test_coco__labels_are_in_the_order_of_the_ids(own, tmp_path):
    cfg, line = own(DETECTOR, write_coco(tmp_path / 'd/a.json'))
    data = build(cfg, 'train')
    assert data.metainfo['classes'] == ['cat', "bird's"]
    labels = [data.get_data_info(i)['instances'] for i in range(len(data))]
    assert [each[0]['bbox_label'] for each in labels if each] == [0, 1, 0, 1, 1, 0, 1, 0]
    assert line.endswith(
        'a.json, 8 images and 8 objects to train on, 3 to validate on (every fifth, held out); '
        "2 classes: cat, bird's"
    )


def test_coco__every_fifth_by_name_is_held_out(own, tmp_path):
    own(DETECTOR, write_coco(tmp_path / 'd/a.json'))
    names = {s: [i['file_name'] for i in read_lists(s)['images']] for s in ('train', 'val')}
    assert names['val'] == ['00.jpg', '05.jpg', '10.jpg']
    assert len(names['train']) == 8
    assert not set(names['train']) & set(names['val'])
    for split in names:
        content = read_lists(split)
        ids = {image['id'] for image in content['images']}
        assert {each['image_id'] for each in content['annotations']} <= ids


def test_coco__objects_are_numbered_from_1_and_complete(own, tmp_path):
    own(DETECTOR, write_coco(tmp_path / 'd/a.json'))
    objects = read_lists('train')['annotations']
    assert [each['id'] for each in objects] == list(range(1, 9))
    assert {(each['iscrowd'], each['area']) for each in objects} == {(0, 600)}


def test_coco__val_data_are_all_used_and_so_are_those_to_train_on(own, tmp_path):
    train = write_coco(tmp_path / 'd/a.json')
    cfg, _ = own(DETECTOR, train, val_data=write_coco(tmp_path / 'v/b.json'))
    assert [len(build(cfg, split)) for split in ('train', 'val')] == [NUMBER, NUMBER]
    for split in ('val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_prefix.img == str(tmp_path / 'v/images')
        assert cfg[f'{split}_evaluator'].ann_file == str(tmp_path / 'lists/val.json')


@pytest.mark.parametrize(
    ('train', 'val', 'images'),
    [
        ('annotations/instances_train2017.json', 'annotations/instances_val2017.json', '{}2017'),
        ('annotations/instances_train.json', 'annotations/instances_val.json', 'images/{}'),
        ('annotations/train.json', 'annotations/val.json', 'images'),
        ('train.json', 'val.json', 'images/{}'),
        ('train/_annotations.coco.json', 'valid/_annotations.coco.json', '{}'),
    ],
)
def test_coco__folders_of_both_splits(train, val, images, own, tmp_path):
    for split, name in (('train', train), ('val', val)):
        split = 'valid' if 'valid' in name else split
        write_coco(tmp_path / 'd' / name, images=tmp_path / 'd' / images.format(split))
    _, line = own(DETECTOR, tmp_path / 'd')
    assert ', 11 images and 10 objects to train on, 11 to validate on; ' in line


def test_coco__a_folder_with_one_file(own, tmp_path):
    write_coco(tmp_path / 'd/labels.json')
    assert '8 images and 8 objects to train on, 3 to' in own(DETECTOR, tmp_path / 'd')[1]


def test_coco__images_elsewhere_are_named(own, tmp_path):
    path = write_coco(tmp_path / 'd/a.json', images=tmp_path / 'far/away')
    cfg, _ = own(DETECTOR, path, images=tmp_path / 'far/away')
    assert len(build(cfg, 'val')) == 3
    with pytest.raises(
        FileNotFoundError, match=r"the 11 images of '\S+', .* '00.jpg', were not fo"
    ):
        own(DETECTOR, path)


def test_coco__boxes_alone_do_for_a_config_of_boxes(own, tmp_path):
    content = coco()
    for each in content['annotations']:
        del each['segmentation']
    path = write_coco(tmp_path / 'd/a.json', content)
    own(DETECTOR.replace('with_mask=True', 'with_mask=False'), path)
    with pytest.raises(ValueError, match=r'10 of 10 annotations without segmentation .*: the conf'):
        own(DETECTOR, path)


def test_coco__a_single_image_cannot_be_held_out(own, tmp_path):
    content = coco()
    content['images'] = content['images'][-1:]
    with pytest.raises(ValueError, match='1 image is too few'):
        own(DETECTOR, write_coco(tmp_path / 'd/a.json', content))


# Folders of masks


def test_masks__every_fifth_by_name_is_held_out(own, tmp_path):
    cfg, line = own(SEGMENTER, write_masks(tmp_path / 'd'))
    assert Path('lists/val.txt').read_text().split() == ['00', '05', '10']
    paths = [build(cfg, 'val').get_data_info(i)['seg_map_path'] for i in range(3)]
    assert paths == [f'{tmp_path}/d/masks/{i}.png' for i in ('00', '05', '10')]
    assert len(build(cfg, 'train')) == 8
    assert line.endswith(
        'd, 8 images to train on, 3 to validate on (every fifth, held out); '
        '2 classes: class_0, class_1'
    )


@pytest.mark.parametrize('names', ['masks', 'annotations', 'labels'])
def test_masks__folders_of_both_splits(names, own, tmp_path):
    write_masks(tmp_path / 'd', split='train', names=names)
    write_masks(tmp_path / 'd', split='val', names=names, number=4)
    cfg, line = own(SEGMENTER, tmp_path / 'd')
    assert '11 images to train on, 4 to validate on; 2 classes' in line
    assert [len(build(cfg, split)) for split in ('train', 'val', 'test')] == [11, 4, 4]


def test_masks__val_data_of_their_own(own, tmp_path):
    train, val = (write_masks(tmp_path / name) for name in 'ab')
    cfg, _ = own(SEGMENTER, train, val_data=val)
    assert cfg.test_dataloader.dataset.data_prefix.img_path == f'{tmp_path}/b/images'
    assert [len(build(cfg, split)) for split in ('train', 'val')] == [11, 11]


def test_masks__classes_and_colours_of_the_files(own, tmp_path):
    data = write_masks(tmp_path / 'd', palette=[1, 2, 3, 40, 50, 60])
    (data / 'classes.txt').write_text('background\ncrack\nspall\n\n \n')
    cfg, _ = own(SEGMENTER, data)
    assert build(cfg, 'val').metainfo['classes'] == ['background', 'crack', 'spall']
    (data / 'classes.txt').unlink()
    cfg, _ = own(SEGMENTER, data)
    assert build(cfg, 'val').metainfo['palette'] == [(1, 2, 3), (40, 50, 60)]


def test_masks__label_0_stays_where_a_recipe_took_1_off(own, tmp_path):
    ade = '../../mmseg::_base_/datasets/ade20k.py'.removeprefix('../../')
    text = f"_base_ = '{ade}'\ndefault_scope = 'mmseg'\nmodel = dict()\ncustom_imports = dict()"
    cfg, _ = own(
        text.replace('dict()', "dict(imports=['vit_backbones'])"), write_masks(tmp_path / 'd')
    )
    data = build(cfg, 'train')
    info = data.get_data_info(0)
    for loader in data.pipeline.transforms[:2]:
        info = loader(info)
    assert set(np.unique(info['gt_seg_map'])) == {0, 1, 255}


def test_masks__images_of_several_sizes_are_validated_one_by_one(own, tmp_path):
    data = write_masks(tmp_path / 'd')
    assert own(SEGMENTER, data)[0].val_dataloader.batch_size == 2
    write_images(data / 'images', ['00.png'], size=(96, 64))
    mask = data / 'masks/00.png'
    Image.open(mask).rotate(90, expand=True).save(mask)
    assert own(SEGMENTER, data)[0].val_dataloader.batch_size == 1


def test_masks__of_photos_that_are_shown_turned(own, tmp_path):
    data = write_masks(tmp_path / 'd')
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in list((data / 'images').iterdir()):
        image = Image.open(path).transpose(Image.Transpose.ROTATE_90)
        image.save(path.with_suffix('.jpg'), exif=exif)
        path.unlink()
    info = build(own(SEGMENTER, data)[0], 'val')[0]
    assert info['inputs'].shape[1:] == info['data_samples'].gt_sem_seg.shape == (64, 96)


# Classes of every head


def heads_of(name, tmp_path, monkeypatch):
    """A shipped config on own data, and its model without weights, of four blocks."""
    monkeypatch.setattr(timm, 'create_model', partial(timm.create_model, depth=4))
    cfg = load_config(CONFIGS / name)
    data = tmp_path / 'd'
    if cfg.default_scope == 'mmseg':
        use_own_data(cfg, write_masks(data, labels=range(5)), folder=tmp_path / 'lists')
    else:
        use_own_data(cfg, write_coco(data / 'a.json'), folder=tmp_path / 'lists')
    init_default_scope(cfg.default_scope)
    import_modules_from_strings(**cfg.custom_imports)
    vit = cfg.model.backbone.get('backbone', cfg.model.backbone)
    vit.update(pretrained=False, checkpoint=None, frozen_stages=-1)
    if vit.get('window_block_indexes'):
        vit.window_block_indexes = [0]
    with torch.device('meta'):
        return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize('name', [name for name in NAMES if 'panoptic' not in name])
def test_every_shipped_config_takes_own_data(name, tmp_path, monkeypatch):
    cfg, model = heads_of(name, tmp_path, monkeypatch)
    assert list(class_findings(Facts.of(cfg), model)) == []
    number = 5 if cfg.default_scope == 'mmseg' else 2
    assert set(counts(cfg.model.to_dict())) == {number}
    assert 'builtin_data' not in cfg
    for split in ('train', 'val', 'test'):
        ((_, dataset),) = dataset_configs(cfg[f'{split}_dataloader'], '')
        assert dataset.pipeline
        assert str(tmp_path) in dataset.ann_file
    layer = getattr(getattr(model, 'decode_head', None), 'conv_seg', None)
    assert layer is None or layer.out_channels == number


def counts(node):
    """The numbers of classes in a model's config; in lists of weights those that weigh 1."""
    if isinstance(node, (list, tuple)):
        return [number for each in node for number in counts(each)]
    if not isinstance(node, dict):
        return []
    found = [number for each in node.values() for number in counts(each)]
    found += [node[key] for key in ('num_classes', 'num_things_classes') if key in node]
    return found + [node.get('class_weight', []).count(1.0)] * ('class_weight' in node)


def test_heads_of_two_classes_in_one_channel():
    head = dict(num_classes=2, out_channels=1)
    put_classes(dict(decode_head=head), 2)
    assert head == dict(num_classes=2, out_channels=1)
    put_classes(dict(decode_head=head), 3)
    assert head == dict(num_classes=3, out_channels=3)


def test_weights_of_other_classes_are_dropped():
    loss = dict(class_weight=[0.5, 2.0, 3.0])
    without = dict(class_weight=[0.5, 2.0, 0.1])
    heads = [dict(num_classes=3, loss_decode=loss), dict(num_classes=2, loss_cls=without)]
    put_classes(dict(auxiliary_head=heads), 4)
    assert (loss['class_weight'], without['class_weight']) == ([1.0] * 4, [1.0] * 4 + [0.1])


def test_what_counts_no_classes_of_the_data_stays():
    model = dict(rpn_head=dict(num_classes=1), backbone=dict(num_classes=0))
    put_classes(model, 4)
    assert model == dict(rpn_head=dict(num_classes=1), backbone=dict(num_classes=0))


def test_few_images_leave_the_head_time_to_learn(tmp_path):
    cfg = load_config(CONFIGS / 'mask2former_vit.py')
    use_own_data(cfg, write_coco(tmp_path / 'a.json'), folder=tmp_path / 'lists')
    assert cfg.model.auxiliary_iters == 1  # of four iterations, one an epoch


# Training and testing


@pytest.mark.parametrize('toolbox', ['mmdet', 'mmseg'])
def test_train_and_test_again_without_the_option(toolbox, train, tmp_path, capsys, monkeypatch):
    content = coco()
    content['annotations'][1]['area'] = 0
    content['annotations'][2]['bbox'] = [80, 10, 30, 20]
    if toolbox == 'mmdet':
        data, text, few = write_coco(tmp_path / 'd/a.json', content), DETECTOR, FEW
    else:
        data, text, few = (
            write_masks(tmp_path / 'd', labels=(0, 1, 2)),
            SEGMENTER,
            ['train_cfg.max_epochs=1'],
        )
    Path('mine.py').write_text(text)
    before = {path: path.read_bytes() for path in (tmp_path / 'd').rglob('*') if path.is_file()}
    assert train(['mine.py', '--dataset', str(data), '--cfg-options', *few]) == 0
    out = capsys.readouterr().out
    assert re.search(r'^data: .*, 8 images( and 8 objects)? to train on, 3 to', out, re.MULTILINE)
    warned = f'{data}: 1 of 10 annotations with area 0 get the area of their box (id 1)'
    (log,) = Path('work_dirs/mine').glob('*/*.log')
    for each in (out, log.read_text()):
        assert each.count(warned) == (toolbox == 'mmdet')
        assert each.count('whose box leaves the image') == (toolbox == 'mmdet')
    (tmp_path / 'other').mkdir()
    monkeypatch.chdir(tmp_path / 'other')
    work = tmp_path / 'work_dirs/mine'
    assert load_tool('test').main([f'{work}/mine.py', f'{work}/epoch_1.pth']) == 0
    assert 'done: ' in capsys.readouterr().out
    dumped = Config.fromfile(work / 'mine.py')
    assert dumped.test_dataloader.dataset.ann_file.startswith(f'{work}/dataset/val.')
    after = {path: path.read_bytes() for path in (tmp_path / 'd').rglob('*') if path.is_file()}
    assert after == before


def test_check_config_takes_the_same_options(check, tmp_path):
    Path('mine.py').write_text(SEGMENTER)
    flags = ['--dataset', str(write_masks(tmp_path / 'd', labels=range(5))), '--data']
    code, lines = check('mine.py', flags=flags, missing=True)
    assert (code, lines[1:]) == (0, ['mine.py: no error, no warning'])
    assert lines[0].endswith('5 classes: class_0, class_1, class_2, class_3, class_4')
    assert {each.name for each in tmp_path.iterdir()} == {'d', 'mine.py', 'seg.py', 'det.py'}


# Wrong input


def wrong(name):
    """Content of a COCO file with one mistake."""
    content = coco()
    if name == 'key':
        del content['annotations'][3]['bbox']
    elif name == 'name':
        content['images'][3]['file_name'] = 3
    elif name == 'box':
        content['annotations'][3]['bbox'] = [1, 2]
    elif name == 'category':
        content['annotations'][3]['category_id'] = 5
    elif name == 'id':
        content['images'][3]['id'] = 0
    elif name == 'image':
        content['images'][3]['file_name'] = 'none.jpg'
    elif name in content:
        content[name] = []
    elif name.startswith('no '):
        del content[name[3:]]
    return content


@pytest.mark.parametrize(
    ('mistake', 'message'),
    [
        ('no categories', "a.json' is no COCO file: it has no list of 'categories'; it takes 'im"),
        ('categories', "a.json': no categories: nothing to learn or to measure"),
        ('annotations', "a.json': no annotations: nothing to learn or to measure"),
        ('key', r"a.json': 1 of 10 annotations without bbox \(id 3\): give each object its box"),
        ('name', r"a.json': 1 of 11 images with 3 as file_name \(id 7\): give each its file_name"),
        ('box', r"a.json': 1 of 10 annotations with a bbox such as \[1, 2\] \(id 3\): give each"),
        ('category', "a.json': 1 annotation of category_id 5, which is not among the 2 categori"),
        ('id', r"a.json': 1 id of several images \(0\): number the images anew"),
        ('image', "1 of 11 images of '.*a.json' are not in .*/d/images, the first is 'none.jpg'"),
    ],
)
def test_coco__wrong_files_are_one_line(mistake, message, train, tmp_path, capsys):
    Path('mine.py').write_text(DETECTOR)
    data = write_coco(tmp_path / 'd/a.json', wrong(mistake))
    assert train(['mine.py', '--dataset', str(data)]) == 2
    assert re.fullmatch(f'error: .*{message}.*\n', capsys.readouterr().err)
    assert not Path('work_dirs').exists()


def test_coco__splits_of_other_categories_are_refused(own, tmp_path):
    val = coco(categories=[dict(id=7, name='dog'), dict(id=2, name='cat')])
    paths = write_coco(tmp_path / 'a.json'), write_coco(tmp_path / 'b.json', val)
    with pytest.raises(
        ValueError, match=r"""category 7 is 'dog' in \S+b.json' and is "bird's" in"""
    ):
        own(DETECTOR, paths[0], val_data=paths[1])


def test_coco__what_is_no_json(own, tmp_path):
    (tmp_path / 'a.json').write_bytes(b'\xff{')
    with pytest.raises(ValueError, match=r"a.json' cannot be read as JSON \("):
        own(DETECTOR, tmp_path / 'a.json')


def save(array, data):
    Image.fromarray(array).save(data / 'masks/03.png')


def test_a_mask_counts_beside_a_file_of_its_name_in_capitals(tmp_path):
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
        for index in range(5):
            array = np.full((8, 8), index % 2, np.uint8)
            Image.fromarray(array).save(tmp_path / folder / f'{index}.png')
    for index in range(5):
        (tmp_path / 'masks' / f'{index}.PNG').write_text('no mask')
    assert read_masks(tmp_path, None, folder=tmp_path).num_images == {'train': 4, 'val': 1}


NONE = r'cannot be read \(no image, or a damaged one\): write it anew, or remove it and its'
# One mistake each in a folder of masks, given with one of its masks
SPOIL = {
    'no mask': lambda data, mask: (data / 'masks/03.png').unlink(),
    'no image': lambda data, mask: (data / 'images/03.png').unlink(),
    'no masks': lambda data, mask: (data / 'masks').rename(data / 'other'),
    'suffixes': lambda data, mask: (data / 'images/03.png').rename(data / 'images/03.jpg'),
    'colours': lambda data, mask: save(np.stack([mask] * 3, -1), data),
    'numbers': lambda data, mask: save(mask.astype(np.uint16) * 300, data),
    'size': lambda data, mask: save(np.ascontiguousarray(mask.T), data),
    'gap': lambda data, mask: save(mask * 0 + 3, data),
    'broken': lambda data, mask: (data / 'masks/03.png').write_bytes(b'no image'),
    'text for an image': lambda data, mask: (data / 'images/03.png').write_text('no image'),
    'an empty image': lambda data, mask: (data / 'images/03.png').write_text(''),
    'text for a TIFF': lambda data, mask: (
        [path.rename(path.with_suffix('.tif')) for path in (data / 'images').iterdir()]
        and (data / 'images/03.tif').write_bytes(b'II*\0no image')
    ),
    'one': lambda data, mask: (data / 'classes.txt').write_text('crack'),
    'twice': lambda data, mask: (data / 'classes.txt').write_text('a\nb \nc\n b'),
    'blank': lambda data, mask: (data / 'classes.txt').write_text('a\n\nb\n\n'),
    'blank first': lambda data, mask: (data / 'classes.txt').write_text('\na\nb'),
    'text': lambda data, mask: (data / 'classes.txt').write_bytes(b'\xff'),
    'few': lambda data, mask: (
        (data / 'classes.txt').write_text('a\nb') and save(mask * 0 + 2, data)
    ),
}


@pytest.mark.parametrize(
    ('mistake', 'message'),
    [
        (
            'no mask',
            "1 image of '.*/images' without a partner of that name in '.*/masks', the fi",
        ),
        ('no image', "1 mask of '.*/masks' without a partner of that name in '.*/images', the f"),
        ('no masks', "d' has no folder masks or annotations or labels"),
        ('suffixes', r"the images of '.*' have several suffixes \(10 .png, 1 .jpg\)"),
        ('colours', "mask '.*/03.png' holds colours or numbers beyond 255; a mask must have one"),
        ('numbers', "mask '.*/03.png' holds colours or numbers beyond 255; a mask must have one"),
        ('size', "mask '.*/03.png' has 64x96 pixels, its image 96x64: make them equal"),
        ('gap', "the masks in '.*' hold 0, 1, 3, and no pixel is 2: number the classes from 0 wit"),
        (
            'broken',
            rf"'/\S+/masks/03.png' {NONE} image",
        ),
        (
            'text for an image',
            rf"'/\S+/images/03.png' {NONE} mask",
        ),
        ('an empty image', rf"'/\S+/images/03.png' {NONE} mask"),
        ('text for a TIFF', r"'/\S+/images/03.tif' cannot be read \([^/]+\): write it anew, or"),
        (
            'twice',
            "'/.*/classes.txt': lines 2 and 4 are both 'b': give each class a name of its own",
        ),
        (
            'blank',
            "'/.*/classes.txt': line 2 is blank, and the classes below it would have other "
            'numbers: name a class there, or remove the line',
        ),
        ('blank first', "'/.*/classes.txt': line 1 is blank, and the classes below it would"),
        (
            'one',
            "'.*classes.txt' names 1 class; at least two classes are needed, counting the b",
        ),
        ('text', r"'.*classes.txt' is no text in UTF-8 \("),
        ('few', "mask '.*/03.png' holds 2, and '.*classes.txt' names 2 classes, 0 to 1"),
    ],
)
def test_masks__wrong_folders_are_one_line(mistake, message, train, tmp_path, capsys):
    Path('mine.py').write_text(SEGMENTER)
    data = write_masks(tmp_path / 'd')
    SPOIL[mistake](data, np.asarray(Image.open(data / 'masks/03.png')))
    assert train(['mine.py', '--dataset', str(data)]) == 2
    assert re.fullmatch(f'error: .*{message}.*\n', capsys.readouterr().err)
    assert not Path('work_dirs').exists()


UNLEARNABLE = {
    'black and white': ((0, 255), 'a\nb', 'label 0 and 255, which is ignored'),
    'all ignored': ((255,), 'a\nb', '255, which is ignored'),
    'all ignored, without names': ((255,), None, '255, which is ignored'),
    'one class': ((1,), 'a\nb\nc', 'label 1'),
    'one class and a border': ((1, 1, 255), 'a\nb', 'label 1 and 255, which is ignored'),
}


@pytest.mark.parametrize('case', UNLEARNABLE)
def test_masks_of_one_class_are_refused(case, own, tmp_path):
    labels, names, held = UNLEARNABLE[case]
    data = write_masks(tmp_path / 'd', labels=labels)
    if names:
        (data / 'classes.txt').write_text(names)
    begin = 'the masks to train on' if names else 'the masks'
    with pytest.raises(ValueError, match=rf'{begin} in .* contain only {held}[,;] ') as raised:
        own(SEGMENTER, data)
    assert str(raised.value).endswith(
        'so there is nothing to tell apart: label objects 1, 2, ... beside the background, 0'
        if names
        else 'counting the background. Label objects 1, 2, ... (255 is ignored)'
    )
    assert not Path('lists').exists()


def test_classes_that_no_mask_to_train_on_holds_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text(SEGMENTER)
    data = write_masks(tmp_path / 'd')
    assert use_own_data(load_config('a.py'), data, folder='lists').warnings == []
    (data / 'classes.txt').write_text('ground\nroof\ntree')
    tree = np.full((64, 96), 2, np.uint8)
    Image.fromarray(tree).save(data / 'masks/00.png')  # held out
    (line,) = use_own_data(load_config('a.py'), data, folder='lists').warnings
    assert line == (
        f"'{data}': no mask to train on holds tree (1 class of 3): never learned; add images, or "
        'name only the classes that there are'
    )
    Image.fromarray(tree).save(data / 'masks/01.png')
    assert use_own_data(load_config('a.py'), data, folder='lists').warnings == []


def test_masks_to_validate_on_teach_nothing(own, tmp_path):
    train = write_masks(tmp_path / 'a', labels=(0,))
    (train / 'classes.txt').write_text('ground\nobject')
    with pytest.raises(ValueError, match=r'the masks to train on in .* contain only label 0, so'):
        own(SEGMENTER, train, val_data=write_masks(tmp_path / 'b'))


def test_masks_of_photos_as_they_are_stored_are_refused(own, tmp_path):
    data = write_masks(tmp_path / 'd')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data / 'images/03.png').save(data / 'images/03.png', exif=exif)
    message = (
        'has 96x64 pixels, its image 64x96 as its EXIF orientation turns it: turn the mask too, or '
        'take that orientation out'
    )
    with pytest.raises(ValueError, match=f"mask '.*/masks/03.png' {message}"):
        own(SEGMENTER, data)


def test_masks_of_0_and_255_alone_are_refused(own, tmp_path):
    with pytest.raises(
        ValueError, match=r'only label 0 and 255, which is ignored; at least two .* objects 1, 2'
    ):
        own(SEGMENTER, write_masks(tmp_path / 'd', labels=(0, 255)))


MASKS = (
    'add images/, and masks/ with a .png of class numbers for each image; docs/own_data.md shows '
    'all layouts\n'
)
OBJECTS = (
    'add a COCO .json, labels/*.txt of YOLO with a data.yaml or classes.txt, or Annotations/*.xml '
    'of Pascal VOC; docs/own_data.md shows all layouts\n'
)


@pytest.mark.parametrize(
    ('config', 'data', 'message'),
    [
        ('det.py', 'none', "'none' does not exist"),
        ('seg.py', 'none', "'none' does not exist"),
        ('seg.py', 'empty', f"'empty' is empty: {MASKS}"),
        ('seg.py', 'masks/masks', f"'masks/masks' has no folder images: {MASKS}"),
        ('det.py', 'empty', f"'empty' is empty: {OBJECTS}"),
        ('det.py', 'bare', f"'bare' holds 11 images and no labels: {OBJECTS}"),
        (
            'det.py',
            'names',
            f"'names' holds 11 images and no labels (labels/ has no .txt): {OBJECTS}",
        ),
        (
            'det.py',
            'masks',
            "'masks' holds 11 images, 11 masks and no objects, and masks are for mmseg's configs, "
            f'such as those of configs/upernet: take one, or {OBJECTS}',
        ),
        (
            'det.py',
            'two',
            "folder 'two' has 2 .json files (objects.json, other.json), and none is called "
            'train.json or instances_train.json: name the file itself',
        ),
        ('seg.py', 'a.json', "'a.json' is a file, and mmseg's .* for mmdet's configs, such as"),
        (CONFIGS / PANOPTIC, 'a.json', 'the config learns panoptic .* such as .*coco-instance.py'),
    ],
)
def test_data_that_do_not_suit_the_config_are_one_line(config, data, message, train, capsys):
    Path('det.py').write_text(DETECTOR)
    Path('seg.py').write_text(SEGMENTER)
    Path('empty').mkdir()
    write_masks(Path('masks'))
    write_coco(Path('a.json'))
    for folder in ('bare', 'names'):
        shutil.copytree('images', f'{folder}/images')
    Path('names/labels').mkdir()
    Path('names/classes.txt').write_text('cat')
    for name in ('objects', 'other'):
        write_coco(Path(f'two/{name}.json'))
    assert train([str(config), '--dataset', data]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f'error: {message}') or re.fullmatch(f'error: .*{message}.*\n', said)
    assert said.count('\n') == 1
    assert not Path('work_dirs').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ("default_scope = 'mmpretrain'", "own data are for .* default_scope is 'mmpretrain'"),
        ('val_dataloader = None', 'own data replace one data set, and val_dataloader has none'),
        ("val_evaluator = dict(type='CityscapesMetric')", 'val_evaluator is a CityscapesMetric'),
        (
            "train_dataloader['dataset'] = dict(type='ConcatDataset', datasets=[dict(), dict()])",
            'own data replace one data set, and train_dataloader has 2',
        ),
    ],
)
def test_configs_that_take_no_own_data_say_why(change, message, own, tmp_path):
    with pytest.raises(ValueError, match=message):
        own(f'{SEGMENTER}\n{change}', write_masks(tmp_path / 'd'))
    assert not Path('lists').exists()


def test_an_evaluator_may_be_a_class(tmp_path):
    (tmp_path / 'a.py').write_text(DETECTOR)
    cfg = load_config(tmp_path / 'a.py')
    cfg.val_evaluator.type = CocoMetric
    use_own_data(cfg, write_coco(tmp_path / 'd/a.json'), folder=tmp_path / 'lists')
    assert cfg.val_evaluator == cfg.test_evaluator
    assert cfg.val_evaluator.type is CocoMetric
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'lists/val.json')


def test_wrapped_data_sets_stay_wrapped(own, tmp_path):
    inner = "train_dataloader['dataset']"
    repeat = f"{inner} = dict(type='RepeatDataset', times=3, dataset={inner})"
    cfg, _ = own(f'{SEGMENTER}\n{repeat}', write_masks(tmp_path / 'd'))
    assert len(build(cfg, 'train')) == 3 * 8
