"""The size that a dataset lists against that of the decoded image."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_data import PIPELINE, build, coco, config, write
from PIL import Image

from vit_backbones.checks.data import few_findings, image_findings

STORED = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')


def found(folder, content=None, *, size=(96, 64), orientation=1, **more):
    """The lines on images of a size (width, height) and an EXIF orientation, listed as 96x64."""
    content = content or coco(number=2)
    write(folder, content)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for image in content['images']:
        image['file_name'] = image['file_name'].replace('.png', '.jpg')
        picture = Image.fromarray(np.full((*size[::-1], 3), 90, np.uint8))
        picture.save(folder / 'images' / image['file_name'], exif=exif)
    (folder / 'boxes.json').write_text(json.dumps(content))
    lines = [str(each) for each in image_findings(build(config(folder, **more)), 'val')]
    return [line.replace(f'{folder}/', '') for line in lines]


def line_of(sizes, fix):
    """The error on both images."""
    first, second = (f'images/{i}.jpg is {sizes}' for i in range(2))
    return (
        f'error: val_dataloader.dataset: 2 of 2 images have another size than boxes.json lists '
        f'({first}; {second}), {fix}'
    )


@pytest.mark.parametrize('orientation', [1, 0])
def test_equal_sizes_have_no_line(orientation, tmp_path):
    assert not found(tmp_path, orientation=orientation)


def test_boxes_of_stored_pixels_under_exif(tmp_path):
    fix = (
        'which is that of the stored pixels, before their EXIF orientation turns them: remove '
        'this tag from the files, or read stored pixels in every pipeline, by '
        "LoadImageFromFile(color_type='color_ignore_orientation')"
    )
    assert found(tmp_path, orientation=6) == [line_of('64x96, not 96x64', fix)]


def test_the_fix_reads_stored_pixels(tmp_path):
    found(tmp_path, orientation=6)
    wanted = config(tmp_path) | dict(pipeline=[STORED, *PIPELINE[1:]])
    assert not list(image_findings(build(wanted), 'val'))


def test_boxes_of_turned_pixels_without_exif(tmp_path):
    found(tmp_path, size=(64, 96), orientation=6)
    assert not list(image_findings(build(config(tmp_path)), 'val'))
    wanted = config(tmp_path) | dict(pipeline=[STORED, *PIPELINE[1:]])
    (line,) = image_findings(build(wanted), 'val')
    assert line.text.endswith(
        'is 64x96, not 96x64), which is that after their EXIF orientation turns them, and the '
        "pipeline reads stored pixels: use LoadImageFromFile(color_type='color')"
    )


@pytest.mark.parametrize(
    ('size', 'orientation', 'fix'),
    [
        (
            (64, 96),
            1,
            "which has width and height in each other's place: correct it, or turn the images",
        ),
        (
            (48, 32),
            1,
            'which is of another scale: list the size of these images, and scale boxes and masks '
            'likewise',
        ),
        (
            (96, 80),
            1,
            'so that boxes and masks lie elsewhere: list the objects of these images anew',
        ),
    ],
)
def test_each_difference_has_its_fix(size, orientation, fix, tmp_path):
    sizes = f'{size[0]}x{size[1]}, not 96x64'
    assert found(tmp_path, size=size, orientation=orientation) == [line_of(sizes, fix)]


def test_a_turn_that_keeps_the_size_is_a_warning(tmp_path):
    assert found(tmp_path, orientation=3) == [
        'warning: val_dataloader.dataset: 2 of 2 images have an EXIF orientation (images/0.jpg, '
        'images/1.jpg), which turns them when they are decoded and keeps their size: see that the '
        'listed objects are turned too, or remove the tag'
    ]


def test_a_turn_that_the_pipeline_ignores_has_no_line(tmp_path):
    found(tmp_path, orientation=3)
    wanted = config(tmp_path) | dict(pipeline=[STORED, *PIPELINE[1:]])
    assert not list(image_findings(build(wanted), 'val'))


def test_one_image_among_others_is_named(tmp_path):
    content = coco(number=3)
    write(tmp_path, content)
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / 'images/1.png')
    line = next(image_findings(build(config(tmp_path)), 'val'))
    assert line.text.replace(f'{tmp_path}/', '').startswith(
        'val_dataloader.dataset: 1 of 3 images has another size than boxes.json lists '
        '(images/1.png is 12x10, not 96x64), so that'
    )


def test_a_training_asks_some_of_its_images(tmp_path):
    write(tmp_path, coco(number=40, size=(64, 96)))
    (line,) = few_findings(build(config(tmp_path)), 'train')
    assert ': 20 of 20 images looked at have another size than ' in line.text
    Path(tmp_path / 'images/0.png').unlink()  # the training skips it
    (line,) = few_findings(build(config(tmp_path)), 'train')
    assert ': 19 of 19 images looked at have another size than ' in line.text
