"""`--dataset` with mistakes in COCO files, mended, reported or refused; and with other options."""

import json
import re
from pathlib import Path

import pytest
from checked_configs import ROOT
from own_files import DETECTOR, NUMBER, SEGMENTER, coco, write_coco, write_images, write_masks
from PIL import Image

from vit_backbones.config.loading import load_config
from vit_backbones.own_data import use_own_data

SHORT = 'under three points or an odd number of coordinates'


@pytest.fixture
def used(tmp_path, monkeypatch):
    """The summary and the warnings of own data, without the file's name."""
    monkeypatch.chdir(tmp_path)

    def use(data, text=DETECTOR, **options):
        Path('a.py').write_text(text)
        cfg = load_config('a.py', options.get('options', ()))
        summary, warnings, _ = use_own_data(cfg, data, folder='lists', **options)
        return summary.split(', ', 1)[1], [line.split('.json: ')[-1] for line in warnings]

    return use


def changed(which=range(NUMBER - 1), **changes):
    """A file with changes of some objects, by default of all."""
    content = coco()
    for i in which:
        content['annotations'][i].update(changes)
    return content


def read(split):
    return json.loads(Path(f'lists/{split}.json').read_text())


def test_a_right_file_has_no_warning(used, tmp_path):
    summary, warnings = used(write_coco(tmp_path / 'd/a.json'))
    assert summary == (
        '8 images and 8 objects to train on, 3 to validate on (every fifth, held out); 2 classes: '
        "cat, bird's"
    )
    assert warnings == []


# Mended


def test_area_0_becomes_that_of_the_box(used, tmp_path):
    summary, warnings = used(write_coco(tmp_path / 'd/a.json', changed([1, 2, 5, 7], area=0)))
    assert summary.startswith('8 images and 8 objects to train on')
    assert warnings == [
        '4 of 10 annotations with area 0 get the area of their box (id 1, 2, 5, ...)'
    ]
    assert {each['area'] for s in ('train', 'val') for each in read(s)['annotations']} == {600}


def test_ignored_objects_are_ignored_in_tests_too(used, tmp_path):
    summary, warnings = used(write_coco(tmp_path / 'd/a.json', changed([0, 1], ignore=1)))
    assert summary.startswith('8 images and 7 of 8 objects to train on')
    assert warnings == [
        '2 of 10 annotations with ignore=1 get iscrowd=1, so that neither training nor tests count '
        'them (id 0, 1)'
    ]
    assert [each['iscrowd'] for each in read('val')['annotations']] == [1, 0]


def test_doubled_ids_of_annotations_are_numbered_anew(used, tmp_path):
    assert used(write_coco(tmp_path / 'd/a.json', changed(id=3)))[1] == []
    assert [each['id'] for each in read('train')['annotations']] == list(range(1, 9))


@pytest.mark.parametrize(
    ('categories', 'ids', 'line'),
    [
        (
            [(0, 'cell'), (2, 'cell'), (7, 'dog')],
            [2, 7],
            "2 categories are 'cell' (id 0, 2), now one",
        ),
        ([(2, 'cell'), (7, 'cell')], [2], "2 categories are 'cell' (id 2, 7), now one"),
        (
            [(2, 'cell'), (7, 'dog'), (8, 'dog'), (9, 'dog')],
            [2, 7],
            "3 categories are 'dog' (id 7, ",
        ),
    ],
)
def test_categories_of_one_name_become_one(categories, ids, line, used, tmp_path):
    content = coco(categories=[dict(id=i, name=name) for i, name in categories])
    summary, warnings = used(write_coco(tmp_path / 'd/a.json', content))
    assert [len(warnings), warnings[0][: len(line)]] == [1, line]
    for split in ('train', 'val'):
        assert [each['id'] for each in read(split)['categories']] == ids
        assert {each['category_id'] for each in read(split)['annotations']} <= set(ids)
    assert summary.split(': ')[-1] == ', '.join(dict(categories)[i] for i in ids)


def test_categories_of_one_name_and_two_meanings_are_refused(used, tmp_path):
    categories = [
        dict(id=2, name='left', supercategory='eye'),
        dict(id=7, name='left', supercategory='ear'),
    ]
    text = "2 categories are called 'left', of the supercategories 'ear', 'eye': give each a name"
    with pytest.raises(ValueError, match=text):
        used(write_coco(tmp_path / 'd/a.json', coco(categories=categories)))


# Reported


def test_categories_without_objects(used, tmp_path):
    categories = [dict(id=i, name=name) for i, name in enumerate('none Cat cat x y dog'.split())]
    categories += [dict(id=7, name='bird')]
    _, warnings = used(write_coco(tmp_path / 'd/a.json', coco(categories=categories)))
    assert warnings == [
        '5 of 7 categories have no object to train on (none, Cat, x, ...): take them out of the '
        'file, or add objects',
        "'Cat' and 'cat' are several categories: spell alike what is one",
    ]


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        (
            dict(image_id=99),
            'whose image_id is none of the 11 images, such as 99 (id 1, 2): nothin',
        ),
        (
            dict(bbox=[10, 10, 0, 9]),
            'whose box is narrower than 1 pixel (id 1, 2): mmdet leaves them',
        ),
        (
            dict(bbox=[200, 10, 9, 9]),
            'whose box is outside the image (id 1, 2): mmdet leaves them o',
        ),
    ],
)
def test_lost_objects_are_counted_and_not_written(changes, line, used, tmp_path):
    summary, warnings = used(write_coco(tmp_path / 'd/a.json', changed([1, 2], **changes)))
    assert summary.startswith('8 images and 6 of 8 objects to train on')
    assert [len(warnings), warnings[0][:80]] == [1, f'2 of 10 annotations {line}'[:80]]
    assert len(read('train')['annotations']) == 6


def test_what_the_recipe_filters_is_not_counted(used, tmp_path):
    inner = "train_dataloader['dataset']"
    filters = f'\n{inner} = dict(filter_cfg=dict(filter_empty_gt=True), **{inner})'
    content = changed([1, 2, 3], image_id=99)
    path = write_coco(tmp_path / 'd/a.json', content)
    text = '5 of 8 images and 5 of 8 objects to train on, 3 to validate on'
    assert used(path, DETECTOR + filters)[0].startswith(text)
    some = DETECTOR + f"\n{inner}['indices'] = 4\nval_dataloader['dataset']['indices'] = [0]"
    text = '4 of 8 images and 1 of 8 objects to train on, 1 of 3 to validate on'
    assert used(path, some)[0].startswith(text)
    masks = SEGMENTER + f"\n{inner}['indices'] = -4"
    text = '4 of 8 images to train on, 3 to validate on'
    assert used(write_masks(tmp_path / 'm'), masks)[0].startswith(text)


def test_rle_where_the_loader_takes_polygons(used, tmp_path):
    rle = dict(size=[64, 96], counts=[1000, 144, 5000])
    text = DETECTOR.replace('with_mask=True', 'with_mask=True, poly2mask=False')
    path = write_coco(tmp_path / 'd/a.json', changed([1], segmentation=rle))
    summary, warnings = used(path, text)
    assert summary.startswith('8 images and 7 of 8 objects to train on')
    assert warnings == [
        '1 of 10 annotations with RLE (id 1): poly2mask=False leaves them out; set poly2mask=True'
    ]
    assert used(path)[1] == []


def test_short_polygons_of_a_training_without_hold_out(used, tmp_path):
    short = changed([1, 2], segmentation=[[10, 10, 20, 20]])
    train, val = write_coco(tmp_path / 'd/a.json', short), write_coco(tmp_path / 'v/b.json')
    summary, warnings = used(train, val_data=val)
    assert summary.startswith('11 images and 8 of 10 objects to train on, 11 to validate on')
    assert warnings == [
        f'2 of 10 annotations whose polygons have {SHORT} (id 1, 2): mmdet leaves them out; draw '
        f'their masks anew'
    ]
    with pytest.raises(ValueError, match='2 of 10 annotations whose first polygon has under three'):
        used(val, val_data=train)


# Refused


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(image_id='1'), r"whose image_id is text \('1'\), where the id of images is a number"),
        (dict(segmentation=[[]]), 'whose first polygon has under three points'),
        (dict(segmentation=dict(size=[96, 64], counts='a')), 'with RLE of another size than the i'),
        (dict(bbox=[10, 10, 50, 60]), None),
        (dict(bbox=[60, 40, 90, 60]), r'whose bbox looks like \[x1, y1, x2, y2\]'),
        (dict(bbox=[0.1, 0.1, 0.3, 0.3]), 'with all of bbox on 0-1'),
        (dict(iscrowd=1), 'with iscrowd=1'),
        (dict(area='600'), "with '600' as area"),
    ],
)
def test_files_that_teach_nothing_or_wrong_things_are_refused(changes, message, used, tmp_path):
    path = write_coco(tmp_path / 'd/a.json', changed(**changes))
    with pytest.raises(ValueError, match=rf"a.json': \d+ of 10 annotations {message or 'whose'}"):
        used(path)
    assert not Path('lists').exists()


def test_nothing_left_to_train_on(used, tmp_path):
    path = write_coco(tmp_path / 'd/a.json', changed(range(1, 10), image_id=99))
    with pytest.raises(
        ValueError, match=r"a\.json': no object is left to train on, after filter_cfg"
    ):
        used(path)


def test_nothing_to_validate_on(used, tmp_path):
    content = coco()
    held_out = (0, 5, 10)  # the images and their objects
    content['annotations'] = [a for a in content['annotations'] if a['id'] not in held_out]
    path = write_coco(tmp_path / 'd/a.json', content)
    with pytest.raises(
        ValueError, match=r"a\.json': none of 3 images to validate on has an object"
    ):
        used(path)


def resized(path):
    write_images(path.parent / 'images', ['03.jpg'], size=(32, 48))


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for image in (path.parent / 'images').iterdir():
        Image.open(image).save(image, exif=exif)


def swapped(path):
    content = coco()
    for each in content['images']:
        each.update(height=96, width=64)
    path.write_text(json.dumps(content))


TURNED = (
    '; a photo is shown as its EXIF orientation turns it: write the images anew without that '
    'orientation if the labels fit the stored pixels, else exchange width and height'
)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            resized,
            '1 of 11 images of {} have another size than it says (03.jpg): the first is 48x32, not '
            '96x64: the labels are in the pixels of other files; take those, or scale the labels',
        ),
        (
            turned,
            '11 of 11 images of {} have another size than it says (00.jpg, 01.jpg, 02.jpg, ...): '
            f'the first is 64x96, not 96x64{TURNED}',
        ),
        (
            swapped,
            '11 of 11 images of {} have another size than it says (00.jpg, 01.jpg, 02.jpg, ...): '
            f'the first is 96x64, not 64x96{TURNED}',
        ),
    ],
)
def test_images_of_another_size_than_the_file_says(spoil, message, used, tmp_path):
    path = write_coco(tmp_path / 'd/a.json')
    spoil(path)
    with pytest.raises(ValueError, match=re.escape(message.format(repr(str(path))))):
        used(path)


def test_an_image_that_cannot_be_read_is_left_to_the_training(used, tmp_path):
    path = write_coco(tmp_path / 'd/a.json')
    (path.parent / 'images/03.jpg').write_bytes(b'no image')
    assert used(path)[1] == []


def test_check_config_shows_the_warnings(check, tmp_path, monkeypatch):
    monkeypatch.setattr('vit_backbones.checks.report.check_config', lambda *_, **options: ())
    Path('mine.py').write_text(DETECTOR)
    data = write_coco(tmp_path / 'd/a.json', changed([1], area=0))
    code, lines = check('mine.py', flags=['--dataset', str(data)], missing=True)
    text = '1 of 10 annotations with area 0 get the area of their box (id 1)'
    assert (code, lines[1]) == (0, f'warning: {data}: {text}')
    assert lines[-1] == 'mine.py: no error, 1 warning'


# Explicit options


@pytest.mark.parametrize(
    ('config', 'option', 'message'),
    [
        ('det', 'model.roi_head.bbox_head.num_classes=7', '7 is asked for, and own data give 2'),
        ('det', 'model.roi_head.mask_head.num_classes=7', '7 is asked for, and own data give 2'),
        (
            'det',
            'train_dataloader.dataset.ann_file=b.json',
            r"'b.json' is .* own data give '\S+/lis",
        ),
        (
            'det',
            'val_evaluator.ann_file=b.json',
            r"'b.json' is asked for, and own data give '\S+/li",
        ),
        (
            'det',
            'train_dataloader.dataset.data_root=x',
            "'x' is asked for, and own data have no suc",
        ),
        ('det', 'val_evaluator.classwise=True', 'True is asked for, and own data have no such key'),
        (
            'det',
            'train_dataloader.dataset.metainfo.classes=[cat,dog]',
            r"""\['cat', 'dog'\] is asked for, and own data give \['cat', "bird's"\]""",
        ),
        (
            'det',
            'test_dataloader.batch_size=5',
            '5 is asked for, and own data give 2: leave this option out, or set val_dataloader.ba',
        ),
        ('seg', 'model.decode_head.num_classes=7', '7 is asked for, and own data give 3'),
        ('seg', 'model.decode_head.out_channels=1', '1 is asked for, and own data give 3'),
        ('seg', 'train_dataloader.dataset.type=ADE20KDataset', "'ADE20KDataset' is asked for, and"),
        (
            'seg',
            'train_dataloader.dataset.img_suffix=.jpg',
            "'.jpg' is asked for, and own data giv",
        ),
        (
            'seg',
            'train_dataloader.dataset.pipeline.1.reduce_zero_label=True',
            'True is asked for, and own data have no such key: leave this option out',
        ),
        (
            'seg',
            'model.decode_head.loss_decode.class_weight=[1,5]',
            'has 2 values, and the data have 3 classes: give 3 values$',
        ),
    ],
)
def test_an_option_that_own_data_replace_is_refused(config, option, message, used, tmp_path):
    if config == 'det':
        data, text = write_coco(tmp_path / 'd/a.json'), DETECTOR
    else:
        data, text = write_masks(tmp_path / 'd', labels=(0, 1, 2)), SEGMENTER
    key = re.escape(option.partition('=')[0])
    with pytest.raises(ValueError, match=f'^options={key}: {message}'):
        used(data, text, options=[option])
    assert not Path('lists').exists()


@pytest.mark.parametrize(
    'option',
    [
        'model.roi_head.bbox_head.num_classes=2',
        "train_dataloader.dataset.metainfo.classes=[cat,bird's]",
        'train_dataloader.dataset.indices=4',
        'train_dataloader.dataset.filter_cfg.min_size=8',
        'train_dataloader.dataset.pipeline.1.scale=(64,64)',
        'train_dataloader.batch_size=3',
        'val_dataloader.batch_size=3',
        'train_cfg.max_epochs=9',
        'model.backbone.out_stride=8',
        'val_evaluator.metric=[bbox,segm]',
    ],
)
def test_other_options_keep_working(option, used, tmp_path, monkeypatch):
    data = write_coco(tmp_path / 'd/a.json')
    text = DETECTOR + "\ntrain_dataloader['dataset']['filter_cfg'] = dict(min_size=2)"
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text(text)
    cfg = load_config('a.py', [option])
    key = option.partition('=')[0]
    before = value(cfg, key)
    use_own_data(cfg, data, folder='lists', options=[option])
    assert value(cfg, key) == before


def value(cfg, key):
    node = cfg._cfg_dict
    for part in key.split('.'):
        node = node[int(part) if isinstance(node, list) else part]
    return node


def test_a_cut_of_auxiliary_iters_is_not_silent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ['model.auxiliary_iters=1000']
    cfg = load_config(ROOT / 'configs/mask2former_vit.py', options)
    data = write_coco(tmp_path / 'd/a.json')
    text = '^options=model.auxiliary_iters: 1000 is asked for, and own data give 1: leave this opt'
    with pytest.raises(ValueError, match=text):
        use_own_data(cfg, data, folder='lists', options=options)
    options = ['model.auxiliary_iters=0']
    cfg = load_config(ROOT / 'configs/mask2former_vit.py', options)
    use_own_data(cfg, data, folder='lists', options=options)
    assert cfg.model.auxiliary_iters == 0


def test_a_tool_names_the_option_as_a_flag(train, tmp_path, capsys):
    Path('mine.py').write_text(DETECTOR)
    data = write_coco(tmp_path / 'd/a.json')
    option = 'model.roi_head.bbox_head.num_classes=7'
    assert train(['mine.py', '--dataset', str(data), '--cfg-options', option]) == 2
    assert capsys.readouterr().err == (
        'error: --cfg-options model.roi_head.bbox_head.num_classes: 7 is asked for, and own data '
        'give 2: leave this option out\n'
    )
    assert not Path('work_dirs').exists()
