"""Images of users as small pictures."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from vit_backbones.images import UnreadableImageError, read_image
from vit_backbones.pictures.canvas import Tile, thumbnail, unreadable
from vit_backbones.shards.found import held_at


def readable(path: str | Path) -> np.ndarray | None:
    """Read an image (H, W, 3) from a file or `SHARD/KEY`, or give `None` if that fails."""
    with contextlib.suppress(UnreadableImageError):
        return read_image(path if Path(path).exists() else held_at(str(path)) or path)
    return None


def tile_of(path: str | Path, caption: str = '', *, frame: bool = False) -> Tile:
    """Make the tile of an image, a grey one if it cannot be read."""
    pixels = readable(path)
    picture = unreadable() if pixels is None else thumbnail(Image.fromarray(pixels))
    return Tile(picture, Path(path).name, caption, frame)
