"""Image files as bad data sets hold them, each kind by its name."""

import io
import os

import numpy as np
from PIL import Image

SIZE = (64, 96)  # (H, W) of all but one
_EXIF = Image.Exif()
_EXIF[0x0112] = 6  # turned by a quarter


def pixels(mode='RGB', size=SIZE):
    """Noise, so that compressed files have bytes to lose."""
    channels = {'L': (), 'RGB': (3,), 'RGBA': (4,), 'CMYK': (4,)}[mode]
    noise = np.random.default_rng(0).integers(0, 256, (*size, *channels), dtype=np.uint8)
    return Image.fromarray(noise, mode if mode == 'CMYK' else None)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def _deep():
    values = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
    return Image.fromarray(values)


def _animated():
    frames = [pixels('L').convert('P') for _ in range(3)]
    return encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:])


# Content by name; the suffix may be that of another format
FILES = {
    'half.jpg': lambda: encoded(pixels(), 'JPEG')[:2000],
    'half.png': lambda: encoded(pixels(), 'PNG')[:9000],
    'empty.png': bytes,
    'text.png': lambda: b'404 not found\n',
    'png.jpg': lambda: encoded(pixels(), 'PNG'),
    'grey.png': lambda: encoded(pixels('L'), 'PNG'),
    'alpha.png': lambda: encoded(pixels('RGBA'), 'PNG'),
    'palette.png': lambda: encoded(pixels().quantize(16), 'PNG'),
    'cmyk.jpg': lambda: encoded(pixels('CMYK'), 'JPEG'),
    'deep.png': lambda: encoded(_deep(), 'PNG'),
    'turned.jpg': lambda: encoded(pixels(size=SIZE[::-1]), 'JPEG', exif=_EXIF),
    'animated.png': _animated,
    'long.png': lambda: encoded(pixels(size=(30, 900)), 'PNG'),
}
SPECIAL = ('folder.png', 'dangling.png', 'device.png')


def write_bad(path):
    """Write a file of `FILES` or `SPECIAL`, by its name."""
    if path.name == 'folder.png':
        path.mkdir()
    elif path.name == 'dangling.png':
        path.symlink_to('nowhere.png')
    elif path.name == 'device.png':
        os.mkfifo(path)
    else:
        path.write_bytes(FILES[path.name]())
