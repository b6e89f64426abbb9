"""The file of a COCO dataset: labels of its categories, objects, and what is learned."""

import json
from pathlib import Path

import pytest
from checked_configs import errors_of
from coco_data import NAMES, build, coco, config, write
from conftest import load_tool
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import init_default_scope

from vit_backbones.checks import coco_files
from vit_backbones.checks.coco_files import evaluator_findings, file_findings, kept_findings
from vit_backbones.checks.data import image_findings, start_findings
from vit_backbones.checks.recipe import class_order_findings
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts

ORDER = (
    "train_dataloader.dataset: labels follow the order of the categories in {}, so that 'cat' (4 "
    "objects) counts as 'dog', 'dog' (4 objects) counts as 'cat'; write "
    "metainfo.classes=('cat', 'dog', 'cow')"
)


def found(folder, content, split='train', **more):
    """The lines on the dataset of a COCO file, without their levels."""
    write(folder, content)
    lines = [str(each) for each in start_findings(build(config(folder, **more)), split)]
    return [line.replace(f'{folder}/', '') for line in lines]


def test_a_file_in_order_has_no_line(tmp_path):
    assert not found(tmp_path, coco())


def test_classes_in_another_order_are_an_error(tmp_path):
    lines = found(tmp_path, coco(), classes=('dog', 'cat', 'cow'))
    assert lines == ['error: ' + ORDER.format('boxes.json')]


def test_in_a_test_they_are_a_warning(tmp_path):
    (line,) = found(tmp_path, coco(), 'test', classes=('dog', 'cat', 'cow'), test_mode=True)
    assert line == 'warning: ' + ORDER.format('boxes.json').replace('train_', 'test_')


@pytest.mark.parametrize(('key', 'of'), [('category_id', 'categories'), ('image_id', 'images')])
def test_a_mistake_that_empties_the_dataset_is_named_itself(key, of, tmp_path):
    content = coco()
    for each in content['annotations']:
        each[key] = str(each[key])
    write(tmp_path, content)
    wanted = config(tmp_path, filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match='is text') as raised:
        build(wanted)
    line = describe(raised.value)
    assert f"whose {key} is text ('" in line
    assert f'where the id of {of} is a number' in line


def test_two_categories_of_one_name_are_an_error(tmp_path):
    content = coco(names=('cat', 'cat', 'cow'))
    assert found(tmp_path, content, classes=('cat', 'cow')) == [
        'error: train_dataloader.dataset: boxes.json has several categories of the name '
        "'cat' (ids 1, 2), and each gets a label of its own, so that 'cat' (4 objects) counts as "
        "'cow', 'cow' (4 objects) gets label 2, which no class has; merge them: one id a name"
    ]


def test_a_doubled_name_that_takes_the_place_of_a_missing_one_is_found(tmp_path):
    (line,) = found(tmp_path, coco(names=('cat', 'cat', 'cow')))
    assert "so that 'cat' (4 objects) counts as 'dog'; merge them" in line


def test_a_doubled_name_of_no_class_changes_no_label(tmp_path):
    content = coco(names=('cat', 'rest', 'rest'))
    assert found(tmp_path, content, classes=('cat',)) == [
        'warning: train_dataloader.dataset: 8 objects of boxes.json not learned, since '
        "metainfo.classes lacks their categories ('rest', 'rest')"
    ]


def test_a_misspelt_class_is_an_error_with_the_labels_that_shift(tmp_path):
    assert found(tmp_path, coco(), classes=('cat', 'dgo', 'cow')) == [
        "error: train_dataloader.dataset.metainfo.classes has 'dgo', which boxes.json does not "
        "list as categories ('cat', 'dog', 'cow'): these are never learned, so that 'cow' (4 "
        "objects) counts as 'dgo'; spell them alike"
    ]


def test_of_many_wrong_labels_the_first_are_named(tmp_path):
    content = coco()
    content['categories'] += [dict(id=i, name=f'kind {i}') for i in range(4, 14)]
    classes = [each['name'] for each in reversed(content['categories'])]
    (line,) = found(tmp_path, content, classes=classes)
    assert line.endswith(', and 9 more are wrong; write the classes in that order')


def test_classes_without_objects_and_objects_without_a_class_are_warnings(tmp_path):
    content = coco()
    for each in content['annotations']:
        each['category_id'] = max(2, each['category_id'])
    assert found(tmp_path, content, classes=('cat', 'dog')) == [
        "warning: train_dataloader.dataset: boxes.json has no object of 1 of 2 classes ('cat'): "
        'never learned; add objects, or leave them out',
        'warning: train_dataloader.dataset: 4 objects of boxes.json not learned, since '
        "metainfo.classes lacks their categories ('cow')",
    ]
    assert not found(tmp_path, content, 'val', classes=('cat', 'dog'), test_mode=True)


def test_classes_that_another_file_has_objects_of_have_no_line(tmp_path):
    parts = []
    for i in (1, 2, 3):
        content = coco()
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] == i]
        write(tmp_path, content, f'{i}.json')
        parts.append(config(tmp_path, name=f'{i}.json'))
    whole, some = (dict(type='ConcatDataset', datasets=each) for each in (parts, parts[:2]))
    assert not list(start_findings(build(whole), 'train'))
    assert [each.text.split(': ')[1] for each in start_findings(build(some), 'train')] == [
        f"{tmp_path}/{i}.json has no object of 1 of 3 classes ('cow')" for i in (1, 2)
    ]


@pytest.mark.parametrize('objects', [dict(annotations=[]), None])
def test_images_without_labels_of_a_semi_supervised_training_have_no_line(objects, tmp_path):
    content = coco()
    del content['annotations']
    write(tmp_path, content | (objects or {}), 'unlabelled.json')
    write(tmp_path, coco())
    empty = dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadEmptyAnnotations')])
    parts = [config(tmp_path), config(tmp_path, name='unlabelled.json') | empty]
    dataset = build(dict(type='ConcatDataset', datasets=parts))
    assert not list(start_findings(dataset, 'train'))
    assert [str(each) for each in kept_findings(dataset, 'train')] == [
        'note: train: 4 images with 12 of 12 objects'
    ]


def test_a_filter_of_its_own_is_not_counted(tmp_path):
    write(tmp_path, coco())
    dataset = build(config(tmp_path, serialize_data=False))
    dataset.data_list = dataset.data_list[:1]
    assert not list(kept_findings(dataset, 'train'))


def test_classes_of_which_the_file_has_none_are_one_line(tmp_path):
    for split in ('val', 'test'):
        (line,) = found(tmp_path, coco(), split, classes=('a', 'b'), test_mode=True)
        assert line == (
            f"error: {split}_dataloader.dataset.metainfo.classes has 'a', 'b', which boxes.json "
            "does not list as categories ('cat', 'dog', 'cow'): these are never measured; spell "
            'them alike'
        )


def test_classes_as_a_text_are_no_other_error(tmp_path):
    lines = found(tmp_path, coco(), classes='cat')
    assert not [line for line in lines if line.startswith('error')]


def test_masks_that_are_missing_are_one_line(tmp_path):
    content = coco()
    for each in content['annotations']:
        del each['segmentation']
    write(tmp_path, content)
    dataset = build(config(tmp_path))
    assert not list(image_findings(dataset, 'train'))
    (tmp_path / 'images/0.png').write_bytes(b'')
    (line,) = errors_of(image_findings(dataset, 'train'))
    assert line.startswith('1 train image cannot be decoded: ')


def test_a_dataset_that_sorts_the_categories_is_right_with_sorted_classes(tmp_path):
    content = coco()
    content['categories'].reverse()
    assert not found(tmp_path, content, type='Objects365V1Dataset')
    assert len(errors_of(start_findings(build(config(tmp_path)), 'train'))) == 1


@pytest.mark.parametrize(
    'wrapped',
    [
        lambda inner: dict(type='RepeatDataset', times=2, dataset=inner),
        lambda inner: dict(type='ConcatDataset', datasets=[inner, inner]),
        lambda inner: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=inner),
        lambda inner: dict(type='MultiImageMixDataset', dataset=inner, pipeline=[]),
        lambda inner: inner | dict(lazy_init=True),
    ],
)
def test_datasets_in_wrappers_and_lazy_ones_are_seen(wrapped, tmp_path):
    write(tmp_path, coco())
    dataset = build(wrapped(config(tmp_path, classes=('dog', 'cat', 'cow'))))
    (line,) = errors_of(start_findings(dataset, 'train'))
    assert line == ORDER.format(f'{tmp_path}/boxes.json')


def test_panoptic_files_have_names_but_no_objects(tmp_path):
    content = coco()
    segments = [dict(id=9, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)]
    content['annotations'] = [dict(image_id=0, file_name='0.png', segments_info=segments)]
    for each in content['categories']:
        each['isthing'] = 1
    more = dict(thing_classes=NAMES, stuff_classes=())
    write(tmp_path, content)
    wanted = config(tmp_path, type='CocoPanopticDataset')
    wanted['metainfo'] |= more
    wanted['data_prefix'] = dict(img='images/', seg='images/')
    assert [each.text.split(': ', 2)[2] for each in start_findings(build(wanted), 'train')] == [
        'never learned; add objects, or leave them out'
    ]
    wanted['metainfo']['classes'] = NAMES[::-1]
    (line,) = errors_of(start_findings(build(wanted), 'train'))
    assert line.startswith('train_dataloader.dataset: labels follow the order of the categories')


def test_mistakes_in_the_objects_are_named_with_their_file(tmp_path):
    content = coco()
    for each in content['annotations']:
        each['area'] = 0
    lines = found(tmp_path, content)
    assert {line[:19] for line in lines if line.startswith('error')} == {'error: boxes.json: '}


def test_lists_of_images_to_test_on_need_no_annotations(tmp_path):
    content = coco()
    del content['annotations']
    assert not found(tmp_path, content, 'test', test_mode=True)


def test_a_file_that_stops_mmdet_is_an_error_of_its_own(tmp_path):
    content = coco()
    content['annotations'][0]['id'] = 2
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r'boxes\.json: .*\bid\b'):
        build(config(tmp_path))


@pytest.mark.parametrize('key', ['id', 'image_id', 'category_id', 'area', 'bbox'])
def test_a_key_that_mmdet_needs_is_named_with_the_annotation(key, tmp_path):
    content = coco()
    del content['annotations'][3][key]
    write(tmp_path, content)
    with pytest.raises(ValueError, match=rf'boxes\.json: 1 of 12 annotations without {key}\b'):
        build(config(tmp_path))


def test_text_and_numbers_as_names_are_told_apart(tmp_path):
    lines = found(tmp_path, coco(names=(1, 2, 3)), classes=('1', '2', '3'))
    assert lines[-1] == (
        "error: train_dataloader.dataset.metainfo.classes has '1', '2', '3', which boxes.json does "
        'not list as categories (1, 2, 3): these are never learned; spell them alike'
    )
    assert not found(tmp_path, coco(names=(1, 2, 3)), classes=(1, 2, 3))


ORDERS = {
    ('cat', 'cow', 'dog'): ('error', 'cow', 'dog', 1),
    ('cat', 'dog', 'sheep'): ('warning', 'sheep', 'cow', 2),
}


@pytest.mark.parametrize('classes', ORDERS)
def test_one_label_must_have_one_name_in_all_datasets(classes, tmp_path):
    facts = facts_of(tmp_path, classes=classes)
    level, name, other, label = ORDERS[classes]
    assert [str(each) for each in class_order_findings(facts)] == [
        f'{level}: val_dataloader.dataset.metainfo.classes has {name!r} as label {label}, but '
        f'train_dataloader.dataset has {other!r}: give both the same classes in the same order'
    ]


@pytest.mark.parametrize('classes', [NAMES, NAMES[:2]])
def test_equal_classes_and_other_numbers_have_no_line_on_order(classes, tmp_path):
    assert not list(class_order_findings(facts_of(tmp_path, classes=classes)))


def test_an_emptied_dataset_says_which_names_are_wrong(tmp_path):
    write(tmp_path, coco())
    wanted = config(tmp_path, classes=('Cat', 'Dog', 'Cow'), filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match=r"has 'Cat', 'Dog', 'Cow', which .* does not list"):
        build(wanted)


def facts_of(tmp_path, *, classes=NAMES, **more):
    datasets = dict(train=config(tmp_path), val=config(tmp_path, classes=classes))
    loaders = {f'{split}_dataloader': dict(dataset=each) for split, each in datasets.items()}
    return Facts.of(Config(dict(default_scope='mmdet', **loaders, **more)), ('train', 'val'))


def test_a_dataset_may_be_given_as_a_class(tmp_path):
    write(tmp_path, coco())
    init_default_scope('mmdet')
    facts = facts_of(tmp_path, classes=('dog', 'cat', 'cow'))
    for _, wanted in facts.datasets['val']:
        wanted['type'] = CocoDataset
    (line,) = map(str, file_findings(facts, 'val'))
    assert line.startswith(f'error: val_{ORDER.format(tmp_path / "boxes.json")[6:]}')


def test_large_files_are_left_out_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_files, '_LARGEST', 0.001)
    write(tmp_path, coco())
    size = (tmp_path / 'boxes.json').stat().st_size / 1e6
    assert [str(each) for each in file_findings(facts_of(tmp_path), 'train')] == [
        f'note: {tmp_path}/boxes.json has {size:.0f} MB and was not read: data=True reads it'
    ]


@pytest.mark.parametrize('kind', ['CocoMetric', 'mmdet.CocoMetric', CocoMetric])
def test_the_file_of_an_evaluator_must_have_the_labels_too(kind, tmp_path):
    write(tmp_path, coco())
    content = coco()
    content['categories'].reverse()
    write(tmp_path, content, 'other.json')
    evaluator = dict(type=kind, ann_file=str(tmp_path / 'boxes.json'))
    assert not list(evaluator_findings(facts_of(tmp_path, val_evaluator=evaluator), 'val'))
    evaluator['ann_file'] = str(tmp_path / 'other.json')
    (line,) = errors_of(evaluator_findings(facts_of(tmp_path, val_evaluator=evaluator), 'val'))
    assert line.startswith('val_evaluator: labels follow the order of the categories in')
    evaluator['sort_categories'] = True
    assert not list(evaluator_findings(facts_of(tmp_path, val_evaluator=evaluator), 'val'))


@pytest.mark.slow
def test_check_finds_the_same_with_and_without_the_images(check, train, capsys):
    write('.', coco())
    option = 'train_dataloader.dataset.metainfo.classes=[dog,cat,cow]'
    without = check('det.py', option)
    assert without == check('det.py', option, flags=['--data'])
    assert without[1] == [
        'error: ' + ORDER.format('boxes.json'),
        'note: train: 4 images with 12 of 12 objects',
        'det.py: 1 error, no warning',
    ]
    assert train(['det.py', '--cfg-options', option]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == without[1][0]


def test_the_note_counts_what_is_trained_on(check):
    content = coco()
    content['annotations'][0]['iscrowd'] = 1
    content['annotations'][4]['segmentation'] = [[1, 1, 2, 2]]
    content['annotations'][11]['bbox'] = [0, 0, 0.5, 9]
    write('.', content)
    for flags in ((), ('--data',)):
        lines = check('det.py', 'train_dataloader.dataset.indices=3', flags=flags)[1]
        assert 'note: train: 3 images with 7 of 12 objects' in lines


def test_a_prediction_warns_of_wrong_labels(tmp_path, monkeypatch, capsys):
    from trained_models import write_detector, write_images

    monkeypatch.chdir(tmp_path)
    names = write_detector(tmp_path)
    write(tmp_path, coco(names=('dog', 'cat', 'cow')))
    (image,) = write_images('new', (64, 96))
    load_tool('predict').main([*names, str(image), '--out', 'out', '--no-pictures'])
    given = capsys.readouterr()
    assert 'loading annotations' not in given.out
    assert given.err.splitlines() == [
        'warning: test_dataloader.dataset: labels follow the order of the categories in '
        "boxes.json, so that 'dog' (4 objects) counts as 'cat', 'cat' (4 objects) counts as "
        "'dog'; write metainfo.classes=('dog', 'cat', 'cow')"
    ]
    assert json.loads(Path('out/predictions.json').read_text())['categories']
