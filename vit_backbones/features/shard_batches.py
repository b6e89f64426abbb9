"""Batches of images of one size, from a stream of any length in bounded memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from vit_backbones.bits import bits_of
from vit_backbones.features.plan import Item, reason_of
from vit_backbones.images import Resize, UnreadableImageError
from vit_backbones.loaders import Reader
from vit_backbones.position import Grid
from vit_backbones.shards.contents import HeldFile, Sample

_WAITING = 4096  # images that wait for others of their size
_BYTES = 256 * 2**20  # that these hold


class Window:
    """Puts the images of one shard into batches of one size, which depend only on the shard.

    Attributes:
        keys: Of all samples, by index.
        unreadable: Reasons by index.
        deep: Number of images that lose bits.
    """

    def __init__(self, batch_size: int, resize: Resize, reader: Reader) -> None:
        self._batch_size, self._resize, self._reader = batch_size, resize, reader
        self.keys: list[str] = []
        self.unreadable: dict[int, str] = {}
        self._waiting: dict[Grid, list[Item]] = defaultdict(list)
        self._number = self._bytes = self.deep = 0

    def batches(self, samples: Iterable[Sample]) -> Iterator[list[Item]]:
        """All images that have a readable header, in batches, as soon as one is full."""
        for sample in samples:
            self.keys.append(sample.key)
            item = self._item(sample)
            if isinstance(item, str):
                self.unreadable[len(self.keys) - 1] = item
                continue
            bucket = self._waiting[item.size]
            bucket.append(item)
            self._number, self._bytes = self._number + 1, self._bytes + _held(item)
            if len(bucket) == self._batch_size:
                yield self._taken(item.size)
            elif self._number > _WAITING or self._bytes > _BYTES:
                yield self._taken(max(self._waiting, key=lambda size: len(self._waiting[size])))
        for size in list(self._waiting):
            yield self._taken(size)

    def _item(self, sample: Sample) -> Item | str:
        key, image = sample
        if isinstance(image, str):
            return image
        try:
            key.encode()
            shown = self._reader.size(image)
        except UnicodeEncodeError:
            return 'its name is not UTF-8'
        except UnreadableImageError as error:
            return reason_of(image, error)
        self.deep += self._reader.in_8_bits and bits_of(image) > 8
        return Item(len(self.keys) - 1, image, shown, self._resize(shown))

    def _taken(self, size: Grid) -> list[Item]:
        bucket = self._waiting.pop(size)
        self._number -= len(bucket)
        self._bytes -= sum(map(_held, bucket))
        return bucket


def _held(item: Item) -> int:
    return item.path.getbuffer().nbytes if isinstance(item.path, HeldFile) else 0
