"""Small data as users have them, COCO files and folders of masks, and configs to train."""

import json
import struct

import cv2
import numpy as np
from checked_configs import DETECTOR, SEGMENTER
from PIL import Image

NUMBER = 11  # images; three of them are held out
MORE = """
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**train_dataloader['dataset'], test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = {evaluator}
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(curves=None, pictures=None, checkpoint=dict(type='CheckpointHook'))
"""
SEGMENTER += MORE.format(evaluator="dict(type='IoUMetric')")
DETECTOR = DETECTOR.replace(
    "pipeline = [\n    dict(type='LoadImageFromFile'),",
    "pipeline = [\n    dict(type='LoadImageFromFile'),\n"
    "    dict(type='Resize', scale=(96, 64), keep_ratio=True),",
) + MORE.format(evaluator="dict(type='CocoMetric', ann_file='no.json', metric=['bbox'])")


def write_images(folder, names, size=(64, 96)):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 20 * i, np.uint8))


def coco(number=NUMBER, **changes):
    """Objects of two kinds, whose ids have gaps and are not in order; the last image has none."""
    images = [
        dict(id=i, file_name=f'{i:02d}.jpg', height=64, width=96) for i in reversed(range(number))
    ]
    box, square = [10, 10, 30, 20], [[10, 10, 40, 10, 40, 30, 10, 30]]
    annotations = [
        dict(id=i, image_id=i, category_id=(7, 2)[i % 2], bbox=box, segmentation=square)
        for i in range(number - 1)
    ]
    categories = [dict(id=7, name="bird's"), dict(id=2, name='cat')]
    return dict(images=images, annotations=annotations, categories=categories) | changes


def write_coco(path, content=None, images=None):
    content = coco() if content is None else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    write_images(images or path.parent / 'images', [f'{i:02d}.jpg' for i in range(NUMBER)])
    return path


def write_masks(folder, labels=(0, 1, 255), split='', palette=None, names='masks', number=NUMBER):
    write_images(folder / 'images' / split, [f'{i:02d}.png' for i in range(number)])
    (folder / names / split).mkdir(parents=True)
    for i in range(number):
        mask = Image.fromarray(np.resize(np.array(labels, np.uint8), (64, 96)))
        if palette:
            mask.putpalette(palette)
        mask.save(folder / names / split / f'{i:02d}.png')
    return folder


def write_yolo(folder, content=None, *, boxes=False, **changes):
    """The objects of a COCO content as a folder of YOLO, polygons unless only `boxes`."""
    content = coco() if content is None else content
    images = {each['id']: each for each in content['images']}
    ids = sorted(each['id'] for each in content['categories'])
    names = {each['id']: each['name'] for each in content['categories']}
    write_images(folder / 'images', sorted(each['file_name'] for each in images.values()))
    (folder / 'labels').mkdir()
    for each in images.values():
        (folder / 'labels' / each['file_name']).with_suffix('.txt').write_text('')
    for each in content['annotations']:
        image = images[each['image_id']]
        sides = image['width'], image['height']
        x, y, w, h = each['bbox']
        points = [x + w / 2, y + h / 2, w, h] if boxes else each['segmentation'][0]
        values = [point / sides[i % 2] for i, point in enumerate(points)]
        line = ' '.join([str(ids.index(each['category_id'])), *map(repr, values)])
        with open((folder / 'labels' / image['file_name']).with_suffix('.txt'), 'a') as file:
            file.write(f'{line}\n')
    yaml = dict(train='images', names=[names[each] for each in ids]) | changes
    (folder / 'data.yaml').write_text(json.dumps(yaml))  # JSON is YAML
    return folder


def write_voc(folder, content=None, images='JPEGImages'):
    """The objects of a COCO content as a folder of Pascal VOC, with pixels from 1."""
    content = coco() if content is None else content
    names = {each['id']: each['name'] for each in content['categories']}
    write_images(folder / images, sorted(each['file_name'] for each in content['images']))
    (folder / 'Annotations').mkdir()
    for image in content['images']:
        objects = [each for each in content['annotations'] if each['image_id'] == image['id']]
        shown = [voc_object(names[each['category_id']], each['bbox']) for each in objects]
        (folder / 'Annotations' / image['file_name']).with_suffix('.xml').write_text(
            f'<annotation><filename>{image["file_name"]}</filename><size>'
            f'<width>{image["width"]}</width><height>{image["height"]}</height><depth>3</depth>'
            f'</size>{"".join(shown)}</annotation>'
        )
    return folder


def voc_object(name, box):
    x, y, w, h = box
    corners = dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
    edges = ''.join(f'<{corner}>{value}</{corner}>' for corner, value in corners.items())
    return (
        f'<object><name>{name}</name><truncated>1</truncated><difficult>0</difficult>'
        f'<bndbox>{edges}</bndbox></object>'
    )


def write_tiff(path, array, *, planar=False, photometric=2, extra=0, nodata=None):
    """(H, W, bands) as a TIFF of one strip, or one per band where it is `planar`."""
    height, width, bands = array.shape
    strips = [array[..., i] for i in range(bands)] if planar else [array]
    content = [np.ascontiguousarray(strip).tobytes() for strip in strips]
    tags = {256: [width], 257: [height], 258: [8 * array.itemsize] * bands, 259: [1]}
    tags |= {262: [photometric], 273: [0] * len(content), 277: [bands], 278: [height]}
    tags |= {279: list(map(len, content)), 284: [1 + planar]}
    more = bands - (3 if photometric == 2 else 1)
    tags |= {338: [extra] * more} if more else {}
    tags[339] = [{'u': 1, 'i': 2, 'f': 3}[array.dtype.kind]] * bands
    texts = {42113: nodata.encode() + bytes(8)} if nodata else {}
    start = 8 + 2 + 12 * len(tags | texts) + 4
    packed = {tag: struct.pack(f'<{len(values)}I', *values) for tag, values in tags.items()} | texts
    data = start + sum(len(each) for each in packed.values() if len(each) > 4)
    offsets = [data + sum(map(len, content[:i])) for i in range(len(content))]
    packed[273] = struct.pack(f'<{len(offsets)}I', *offsets)
    directory, more = struct.pack('<H', len(packed)), b''
    for tag, each in packed.items():
        kind, number = (2, len(each)) if tag in texts else (4, len(each) // 4)
        place = each if len(each) == 4 else struct.pack('<I', start + len(more))
        more += each if len(each) > 4 else b''
        directory += struct.pack('<HHI', tag, kind, number) + place
    header = b'II*\0' + struct.pack('<I', 8) + directory + bytes(4) + more
    path.write_bytes(header + b''.join(content))


def write_bands(folder, bands=4, numbers=np.uint16, number=6, **options):
    """A folder of masks of three classes beside TIFFs, whose arrays it returns too."""
    write_masks(folder, labels=(0, 1, 2), number=number)
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 9000, (64, 96, bands)).astype(numbers) for _ in range(number)]
    for i, array in enumerate(arrays):
        (folder / f'images/{i:02d}.png').unlink()
        write_tiff(folder / f'images/{i:02d}.tif', array, **options)
    return folder, arrays
