"""Names of classes beside own data, and labels of another kind beside those that are used."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from own_files import DETECTOR, SEGMENTER, coco, write_coco, write_masks, write_voc, write_yolo

from vit_backbones.config.loading import load_config
from vit_backbones.own_data import use_own_data

BOXES = DETECTOR.replace('with_mask=True', 'with_mask=False')
NAMES = "cat\nbird's\n"  # those of `coco`, in the order of their ids


@pytest.fixture
def used(tmp_path, monkeypatch):
    """The line on own data."""
    monkeypatch.chdir(tmp_path)

    def use(text, data, **options):
        Path('a.py').write_text(text)
        return use_own_data(load_config('a.py'), Path(data), folder='lists', **options).summary

    return use


def splits(folder):
    """A folder with a COCO file of each split, of which that to validate on lists fewer classes."""
    write_coco(folder / 'annotations/instances_train.json', images=folder / 'images')
    few = coco(categories=[dict(id=7, name="bird's")])
    few['annotations'] = [each for each in few['annotations'] if each['category_id'] == 7]
    write_coco(folder / 'annotations/instances_val.json', few, images=folder / 'images')


LABELS = {
    'json': (lambda: write_coco(Path('d/objects.json')), 'd/objects.json', 'd/objects.json'),
    'folder': (lambda: write_coco(Path('d/objects.json')), 'd', 'd/objects.json'),
    'splits': (lambda: splits(Path('d')), 'd', 'd/annotations/instances_train.json'),
    'yolo': (lambda: write_yolo(Path('d')), 'd', 'd/data.yaml'),
}


@pytest.mark.parametrize('kind', LABELS)
@pytest.mark.parametrize(
    ('names', 'differ'),
    [
        ('cat\ndog', """2 and 2; the first to differ are 'dog' and "bird's\""""),
        ("bird's\ncat", """2 and 2; the first to differ are "bird's" and 'cat'"""),
        ('cat', """1 and 2; the first to differ are None and "bird's\""""),
        (f'{NAMES}dog', "3 and 2; the first to differ are 'dog' and None"),
        (f'{NAMES}\n\n', None),
    ],
)
def test_names_beside_objects_agree_with_them(kind, names, differ, used):
    write, data, source = LABELS[kind]
    write()
    Path('d/classes.txt').write_text(names)
    if differ is None:
        assert used(DETECTOR, data).endswith("2 classes: cat, bird's")
        return
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        used(DETECTOR, data)
    assert str(raised.value) == (
        f"'d/classes.txt' and '{source}' name other classes, {differ}: make them agree, or remove "
        f'the former'
    )
    assert not Path('lists').exists()


def test_names_beside_data_to_validate_on_agree_too(used):
    train, val = write_masks(Path('a')), write_masks(Path('b'))
    (train / 'classes.txt').write_text('road\nsky')
    (val / 'classes.txt').write_text('sky\nroad')
    message = "'b/classes.txt' and 'a' name other classes, 2 and 2; the first to differ are 'sky'"
    with pytest.raises(ValueError, match=message):
        used(SEGMENTER, train, val_data=val)
    (val / 'classes.txt').write_text('road\nsky\n')
    assert used(SEGMENTER, train, val_data=val).endswith('2 classes: road, sky')
    write_coco(Path('c/objects.json'))
    with pytest.raises(ValueError, match=r"^'b/classes.txt' and 'c/objects.json' name other cla"):
        used(DETECTOR, 'c/objects.json', val_data=write_coco(val / 'objects.json'))


@pytest.mark.parametrize('names', ['cat\ncat', "cat\n\nbird's"])
@pytest.mark.parametrize('write', [write_yolo, write_voc, lambda data: write_coco(data / 'a.json')])
def test_a_name_that_is_blank_or_twice_is_refused_in_all_formats(names, write, used):
    write(Path('d'))
    Path('d/classes.txt').write_text(names)
    with pytest.raises(ValueError, match=r"^'d/classes.txt': lines? (1 and 2 are both|2 is blank)"):
        used(BOXES, 'd')


def test_voc_reads_the_names_beside_its_labels(used):
    write_voc(Path('d'))
    Path('d/Annotations').rename('d/labels')
    Path('d/labels/classes.txt').write_text(f'dog\n{NAMES}')
    assert used(BOXES, 'd').endswith("3 classes: dog, cat, bird's")


def moved(source, *names):
    for name in names:
        shutil.move(f'{source}/{name}', f'd/{name}')


@pytest.mark.parametrize(
    ('add', 'told'),
    [
        (lambda: moved(write_voc(Path('o')), 'Annotations'), 'Annotations/ (Pascal VOC)'),
        (lambda: moved(write_yolo(Path('o')), 'labels'), 'labels/ (YOLO)'),
        (lambda: moved(write_yolo(Path('o')), 'labels', 'data.yaml'), 'data.yaml (YOLO)'),
        (lambda: write_coco(Path('d/objects.json'), images=Path('o')), 'objects.json (COCO)'),
        (lambda: Path('d/notes.json').write_text('{}'), None),
        (lambda: Path('d/a.yaml').write_text('['), None),
    ],
)
def test_other_labels_beside_masks_are_named(add, told, used):
    write_masks(Path('d'))
    add()
    line = used(SEGMENTER, 'd')
    assert line.endswith('class_0, class_1' + (f'; {told} is not used' if told else ''))


def test_a_text_beside_masks_in_labels_is_no_label(used):
    write_masks(Path('d'), names='labels')
    Path('d/labels/classes.txt').write_text('road\nsky')
    Path('d/classes.txt').write_text('road\nsky')
    assert used(SEGMENTER, 'd').endswith('2 classes: road, sky')


def test_masks_beside_objects_are_named(used):
    write_masks(Path('d'))
    shutil.rmtree('d/images')
    write_coco(Path('d/objects.json'))
    line = used(DETECTOR, 'd')
    assert re.search(r"2 classes: cat, bird's; masks/ \(masks\) is not used$", line)


WEIGHED = SEGMENTER + "\nmodel['decode_head']['loss_decode']['class_weight'] = [0.5, 2.0]"
PLACE = 'model.decode_head.loss_decode.class_weight'


def weights_of(text, tmp_path, monkeypatch, options=()):
    """The weights that own data of three classes leave in a config, and the lines on them."""
    monkeypatch.chdir(tmp_path)
    Path('a.py').write_text(text)
    cfg = load_config('a.py', options)
    data = write_masks(Path(tempfile.mkdtemp(dir=tmp_path)), labels=(0, 1, 2))
    lines = use_own_data(cfg, data, folder='lists', options=options).warnings
    loss = cfg.model.decode_head.loss_decode
    return loss.get('class_weight'), [line for line in lines if 'weight' in line]


def test_weights_that_are_asked_for_stay(tmp_path, monkeypatch):
    for text in (SEGMENTER, WEIGHED):
        options = [f'{PLACE}=[1,5,0.5]']
        assert weights_of(text, tmp_path, monkeypatch, options) == ([1, 5, 0.5], [])


def test_weights_of_the_recipes_classes_are_left_out_with_a_line(tmp_path, monkeypatch):
    weights, (line,) = weights_of(WEIGHED, tmp_path, monkeypatch)
    assert weights == [1.0] * 3
    assert line == (
        f"{PLACE}: the recipe's weights are for its own classes, so yours weigh 1 each; set 3 "
        f'values there to change that'
    )
    assert weights_of(SEGMENTER, tmp_path, monkeypatch) == (None, [])
    for one_for_all in (
        WEIGHED.replace('[0.5, 2.0]', '1.0'),
        WEIGHED.replace('[0.5, 2.0]', 'None'),
    ):
        assert weights_of(one_for_all, tmp_path, monkeypatch)[1] == []
    equal = WEIGHED.replace('0.5, 2.0', '1.0, 1')
    assert weights_of(equal, tmp_path, monkeypatch) == ([1.0] * 3, [])


def test_the_recipes_weights_stay_for_its_own_classes(tmp_path, monkeypatch):
    text = SEGMENTER.replace('num_classes=2', 'num_classes=3')
    text += "\nmodel['decode_head']['loss_decode']['class_weight'] = [0.5, 2.0, 1.0]"
    for names, kept in [('class_0', [0.5, 2.0, 1.0]), ('road', [1.0] * 3)]:
        classes = (names, 'class_1', 'class_2')
        own = f"\ntrain_dataloader['dataset']['metainfo'] = dict(classes={classes})"
        assert weights_of(text + own, tmp_path, monkeypatch)[0] == kept
