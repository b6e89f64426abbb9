"""What a COCO file gives to learn, and lines on what mmdet and pycocotools do with the rest."""

import copy
import json

import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmengine.registry import init_default_scope

from vit_backbones.objects import kept_of, survey_of, taken
from vit_backbones.terminal import quiet_prints

SIZE = (64, 96)  # of all images


def coco(number=4):
    """Two images of two objects each; classes are `a` and `b`."""
    box, square = [40, 30, 30, 20], [[40, 30, 70, 30, 70, 50, 40, 50]]
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', height=64, width=96) for i in (1, 2)],
        annotations=[
            dict(
                id=11 + i,
                image_id=1 + i // 2,
                category_id=1 + i % 2,
                bbox=list(box),
                area=600,
                iscrowd=0,
                segmentation=copy.deepcopy(square),
            )
            for i in range(number)
        ],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
    )


def changed(*which, **changes):
    """The file with changes of objects, by default of all."""
    content = coco()
    for i in which or range(4):
        content['annotations'][i].update(changes)
    return content


def surveyed(content, **options):
    """The problems of a file, and its survey."""
    usual = dict(classes=None, with_masks=True, measured=True, takes_rle=True)
    return survey_of(content, **usual | options)


def lines(content, **options):
    return [tuple(each) for each in surveyed(content, **options)[0]]


def line(content, **options):
    ((stops, text),) = lines(content, **options)
    return f'{"stops" if stops else "warns"}: {text}'


GONE = 'mmdet leaves them out'
AREA = f'{GONE}; give each object its area in pixels, of the mask or of the box'
FIRST = 'whose first polygon has under three points'
SHORT = 'under three points or an odd number of coordinates'
ALL, ONE, TWO = '4 of 4 annotations', '1 of 4 annotations', '2 of 4 annotations'
IDS = '(id 11, 12, 13, ...)'


def test_a_right_file_has_no_line():
    assert lines(coco()) == []
    rounded = changed(0, bbox=[-0.7, 30, 30, 35.4])  # leaves its image
    assert lines(rounded, with_masks=False) == []
    assert lines(changed(0, 1, iscrowd=1)) == []
    assert lines(changed(image_id=1.0, category_id=2.0)) == []
    assert lines(coco(2)) == []  # the second image has no object


def test_few_narrow_boxes_of_a_large_file_are_no_line():
    content = coco(4000)
    for i, each in enumerate(content['annotations']):
        each.update(image_id=1, bbox=[10, 10, 30, 20 if i > 3 else 0.4])
    assert lines(content, with_masks=False) == []
    content['annotations'][4]['bbox'][3] = 0
    assert line(content, with_masks=False).startswith('warns: 5 of 4000 annotations whose box is')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(area=0), f'{{}} with area 0 {{}}: {AREA}'),
        (dict(area=-3), f'{{}} with area 0 {{}}: {AREA}'),
        (dict(bbox=[40, 30, 0, 20]), f'{{}} whose box is narrower than 1 pixel {{}}: {GONE}; corr'),
        (dict(bbox=[40, 30, 5, -4]), f'{{}} whose box is narrower than 1 pixel {{}}: {GONE}; corr'),
        (
            dict(ignore=1),
            f'{{}} with ignore=1 {{}}: {GONE}, and pycocotools measures them; set isc',
        ),
        (
            dict(image_id=9),
            '{} whose image_id is none of the 2 images, such as 9 {}: nothing learns them; add '
            'these images or correct image_id',
        ),
        (
            dict(category_id=7),
            '{} whose category_id is none of the 2 categories, such as 7 {}: nothing learns them',
        ),
    ],
)
def test_lost_objects_are_a_line_and_an_end_if_all_are_lost(changes, message):
    some, every = line(changed(1, **changes)), line(changed(**changes))
    assert some.startswith(f'warns: {message.format(ONE, "(id 12)")}')
    assert every.startswith(f'stops: {message.format(ALL, IDS)}')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(image_id='1'),
            "{} whose image_id is text ('1'), where the id of images is a number (1) {}: write "
            'both as numbers',
        ),
        (
            dict(category_id='2'),
            "{} whose category_id is text ('2'), where the id of categories is a number (2) {}: wr",
        ),
        (
            dict(bbox=[40, 30, 30]),
            '{} with a bbox such as [40, 30, 30] {}: give each object its bo',
        ),
        (
            dict(bbox=[40, 30, float('nan'), 20]),
            '{} with a bbox such as [40, 30, nan, 20] {}: give',
        ),
        (dict(bbox=[40, 30, '30', 20]), "{} with a bbox such as [40, 30, '30', 20] {}: give each"),
        (
            dict(bbox=None),
            '{} without bbox {}: give each object its box [x, y, width, height] in p',
        ),
        (
            dict(area=None),
            '{} without area {}: give each object its area in pixels, of the mask or',
        ),
        (dict(area='600'), "{} with '600' as area {}: give each object its area in pixels"),
        (dict(image_id=[1]), '{} with [1] as image_id {}: give each its image_id'),
        (dict(iscrowd=2), '{} without iscrowd of 0 or 1 {}: pycocotools fails; add iscrowd=0'),
        (dict(area=float('nan')), '{} whose area is no finite number {}: give each object its ar'),
        (dict(iscrowd='0'), "{} with '0' as iscrowd {}: give each its iscrowd"),
        (dict(iscrowd=None), '{} without iscrowd of 0 or 1 {}: pycocotools fails; add iscrowd=0'),
        (
            dict(segmentation=[]),
            '{} without segmentation {}: the config learns masks; draw them, or take a config for ',
        ),
        (dict(segmentation=None), '{} without segmentation {}: the config learns masks; draw them'),
        (
            dict(segmentation=[40, 30, 70, 30, 70, 50]),
            '{} with a segmentation of another form {}: it takes polygons [[x1, y1, x2, y2, ...], ',
        ),
        (dict(segmentation=[[1, 2, 3, 4, 5, float('inf')]]), '{} with a segmentation of another f'),
        (dict(segmentation=[['1', '2', 3, 4, 5, 6]]), '{} with a segmentation of another form {}'),
        (
            dict(segmentation=dict(counts='a')),
            '{} with a segmentation of another form {}: it takes',
        ),
        (
            dict(segmentation=dict(size=[96, 64], counts='a')),
            '{} with RLE of another size than the image {}: its size is [height, width], and its c',
        ),
        (
            dict(segmentation=dict(size=[64, 96], counts=[9, 9])),
            '{} with RLE of another size than ',
        ),
        (
            dict(segmentation=[[10, 10, 20, 20]]),
            f'{{}} {FIRST} {{}}: pycocotools fails; draw their masks anew, or remove them',
        ),
        (dict(segmentation=[[]]), f'{{}} {FIRST} {{}}: pycocotools fails; draw their masks anew'),
        (dict(segmentation=[[1, 2], [1, 2, 3, 4, 5, 6]]), f'{{}} {FIRST} {{}}: pycocotools fails'),
    ],
)
def test_what_mmdet_or_pycocotools_fail_on_is_an_end(changes, message):
    assert line(changed(2, **changes)).startswith(f'stops: {message.format(ONE, "(id 13)")}')
    assert line(changed(**changes)).startswith(f'stops: {message.format(ALL, IDS)}')


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        (
            [[40, 30, 70, 50], [60, 10, 90, 30], [10, 40, 20, 60], [5, 5, 10, 10]],
            f'{ALL} whose bbox looks like [x1, y1, x2, y2] {IDS}: subtract x1 from x2 and '
            'y1 from y2',
        ),
        (
            [[0.4, 0.3, 0.2, 0.1], [0, 0, 1, 1], [0.5, 0.5, 0.1, 0.2], [0, 0.3, 0.3, 0.4]],
            f'{ALL} with all of bbox on 0-1 {IDS}: multiply by the width and height of the image',
        ),
        (
            [[60, 10, 50, 20], [40, 30, 30, 70], [120, 90, 10, 12], [10, 10, 20, 20]],
            '3 of 4 annotations whose box leaves the image (id 11, 12, 13): give the boxes and the '
            'sizes of images in the pixels of the same files',
        ),
    ],
)
def test_boxes_of_another_form_are_an_end(boxes, message):
    content = coco()
    for each, box in zip(content['annotations'], boxes, strict=True):
        each['bbox'] = box
    assert line(content) == f'stops: {message}'


def test_boxes_that_leave_their_image():
    inside = 'whose box leaves the image (id 14): correct their bbox'
    assert line(changed(3, bbox=[80, 10, 30, 20]), with_masks=False) == f'warns: {ONE} {inside}'
    outside = f'whose box is outside the image (id 14): {GONE}; correct their bbox'
    assert line(changed(3, bbox=[99, 10, 30, 20])) == f'warns: {ONE} {outside}'


def test_masks_beside_their_boxes():
    away = [[2, 2, 12, 2, 12, 12, 2, 12]]
    text = 'whose mask lies beside the box (id 11, 12): make them agree'
    assert line(changed(0, 1, segmentation=away)) == f'warns: {TWO} {text}'
    assert lines(changed(0, 1, segmentation=away), with_masks=False) == []


def test_crowds_alone_are_nothing_to_learn():
    text = f'stops: {ALL} with iscrowd=1 {IDS}: nothing is learned; set 0 for single objects'
    assert line(changed(iscrowd=1)) == text


def test_several_reasons_that_leave_nothing():
    content = changed(0, 1, area=0)
    for each in content['annotations'][2:]:
        each['iscrowd'] = 1
    *_, (stops, text) = lines(content)
    assert stops
    assert text == 'none of 4 annotations is learned: 2 with area 0, 2 with iscrowd=1'


def test_polygons_that_only_training_reads():
    short = changed(1, segmentation=[[10, 10, 20, 20]])
    text = f'whose polygons have {SHORT} (id 12): {GONE}; draw their masks anew'
    assert line(short, measured=False) == f'warns: {ONE} {text}'
    assert lines(short, with_masks=False) == []
    part = changed(
        1, segmentation=[*coco()['annotations'][0]['segmentation'], [41, 31, 42, 32, 43]]
    )
    text = (
        f'some of whose polygons have {SHORT} (id 12): mmdet leaves these parts out; draw them anew'
    )
    assert line(part) == f'warns: {ONE} {text}'
    assert lines(changed(0, iscrowd=None), measured=False) == []


def test_rle_for_loaders_of_polygons():
    rle = changed(0, segmentation=dict(size=[64, 96], counts=[1000, 144, 5000]))
    text = 'with RLE (id 11): poly2mask=False leaves them out; set poly2mask=True'
    assert (lines(rle), line(rle, takes_rle=False)) == ([], f'warns: {ONE} {text}')


def test_doubled_ids():
    content = coco()
    content['annotations'][1]['id'] = 11
    assert line(content) == 'stops: 1 id of several annotations (11): number the annotations anew'
    content = coco()
    content['images'][1]['id'] = 1
    assert lines(content)[0] == (True, '1 id of several images (1): number the images anew')


@pytest.mark.parametrize(
    ('key', 'change', 'message'),
    [
        (
            'images',
            dict(width=None),
            '1 of 2 images without width (id 1): give each image the heig',
        ),
        ('images', dict(height='64'), "1 of 2 images with '64' as height (id 1): give each image"),
        (
            'images',
            dict(height=0),
            '1 of 2 images with a height or width below 1 (id 1): give each',
        ),
        ('images', dict(id=None), '1 of 2 images without id (id None): give each its id'),
        (
            'categories',
            dict(name=None),
            '1 of 2 categories without name (id 1): give each its name',
        ),
    ],
)
def test_images_and_categories_are_whole(key, change, message):
    content = coco()
    content[key][0].update(change)
    assert line(content).startswith(f'stops: {message}')


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_lists_that_are_missing(key):
    text = f'stops: no {key}: nothing to learn or to measure'
    assert line(coco() | {key: []}) == line({k: v for k, v in coco().items() if k != key}) == text
    assert line(coco() | {key: [3]}) == f'stops: 3 is among {key}, which are dicts: remove it'


def test_objects_of_other_classes():
    assert lines(coco(), classes=['a']) == []
    text = 'stops: no object is of the classes c, but of a, b'
    assert line(coco(), classes=['c']) == text


# What is left, against mmdet itself


def spoiled():
    """A file in which mmdet leaves out objects for each of its reasons, and images too."""
    content = coco(20)
    content['images'] = [dict(id=i, file_name='a', height=64, width=96) for i in range(1, 10)]
    content['images'][1]['width'] = 20
    objects = content['annotations']
    for i, change in enumerate(
        (
            dict(area=0),
            dict(bbox=[40, 30, 0.5, 9]),
            dict(bbox=[99, 30, 9, 9]),
            dict(ignore=1),
            dict(iscrowd=1),
            dict(segmentation=[[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4]]),
            dict(image_id=99),
            dict(category_id=9),
        )
    ):
        objects[i].update(change)
    objects[9]['segmentation'] = dict(size=[64, 96], counts=[1000, 144, 5000])
    return content


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)),
        dict(filter_cfg=dict(filter_empty_gt=False, min_size=32)),
        dict(indices=3),
        dict(indices=-4, filter_cfg=dict(filter_empty_gt=True)),
        dict(indices=[0, 4, 5]),
    ],
)
@pytest.mark.parametrize('classes', [('a', 'b'), ('b',)])
@pytest.mark.parametrize('poly2mask', [True, False])
def test_what_is_left_is_what_mmdet_trains_on(options, classes, poly2mask, tmp_path):
    init_default_scope('mmdet')
    (tmp_path / 'a.json').write_text(json.dumps(spoiled()))
    with quiet_prints():
        data = CocoDataset(
            ann_file=str(tmp_path / 'a.json'),
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            serialize_data=False,
            **options,
        )
    load = LoadAnnotations(with_bbox=True, with_mask=True, poly2mask=poly2mask)
    pack = PackDetInputs(meta_keys=())
    objects = 0
    for i in range(len(data)):
        loaded = load(data.get_data_info(i) | dict(ori_shape=SIZE))
        objects += len(pack(loaded)['data_samples'].gt_instances)
    _, survey = surveyed(spoiled(), classes=classes, measured=False, takes_rle=poly2mask)
    filters = dict(filter_cfg=None, indices=None) | options
    assert kept_of(survey, **filters) == (len(data), objects)


def test_indices_on_which_mmengine_fails_are_refused(tmp_path):
    init_default_scope('mmdet')
    (tmp_path / 'a.json').write_text(json.dumps(coco()))
    given = dict(ann_file=str(tmp_path / 'a.json'), data_prefix=dict(img=''))
    for indices in (2, 9, -9, [-2, 1]):
        with quiet_prints():
            data = CocoDataset(**given, metainfo=dict(classes=('a', 'b')), indices=indices)
        assert len(taken(2, indices)) == len(data)
    for indices in ([0, 2], [-3]):
        with quiet_prints(), pytest.raises(IndexError):
            CocoDataset(**given, metainfo=dict(classes=('a', 'b')), indices=indices)
        with pytest.raises(ValueError, match=r'^indices has -?[23], but .* 2 images'):
            taken(2, indices)
