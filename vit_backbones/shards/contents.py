"""What a shard gives: images as they lie in it, by key, or the reason why one is none."""

import io
from pathlib import Path
from typing import NamedTuple

SETTINGS = '_settings.json'  # marks the folder of a data set of embeddings
LARGEST = 256 * 2**20  # bytes of an image's file; a hostile size is refused before it is read


class ShardError(ValueError):
    """A shard that cannot be read as a whole; the message does not name it."""


class HeldFile(io.BytesIO):
    """The content of an image file; text of it is its name, for messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Sample(NamedTuple):
    """An image of a shard.

    Attributes:
        key: Its name in the shard.
        image: A file, or the reason why there is none.
    """

    key: str
    image: HeldFile | Path | str
