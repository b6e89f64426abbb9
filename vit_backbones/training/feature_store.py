"""Maps of a frozen backbone on disk, a file a view."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import print_log
from safetensors.torch import load_file, save
from torch import Tensor

from vit_backbones.files import write_whole

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
_GB = 1e9

View = tuple[int, ...]


class FeatureCacheError(ValueError):
    """Features that cannot be kept, which only the first batch shows."""


class FeatureStore:
    """The maps of views of images, as they are computed.

    Args:
        folder: Of this backbone and these data only; made when the first maps are written.
        num_views: Views of all images.
        dtype: A key of `DTYPES`.
        max_gb: More than this is not written, in 10**9 bytes.
        about: Notes for whoever finds the folder, in `about.json`.
    """

    def __init__(
        self, folder: Path, num_views: int, dtype: str, max_gb: float, about: dict[str, object]
    ) -> None:
        self.folder, self.num_views, self.dtype, self.max_gb = folder, num_views, dtype, max_gb
        self.about = about
        self._checked = False
        self._room = 0.0  # bytes that this process may write before it looks again
        self._is_full = False

    def read(self, views: Sequence[View], size: tuple[int, int]) -> list[Tensor] | None:
        """Maps (B, C, h, w) of views in a batch of (H, W), or `None` if any are missing.

        Raises:
            FeatureCacheError: They take too much space.
        """
        paths = [self._path(view, size) for view in views]
        if not all(path.exists() for path in paths):
            return None
        try:
            files = [load_file(path) for path in paths]
        except Exception as error:  # damaged; the library's own type has no public name
            print_log(f'feature cache: computed anew, {error}', logger='current')
            return None
        if not self._checked:
            self._check_space(sum(each.nbytes for each in files[0].values()))
        return [torch.stack([each[name].float() for each in files]) for name in sorted(files[0])]

    def write(
        self, views: Sequence[View], size: tuple[int, int], maps: Sequence[Tensor]
    ) -> list[Tensor]:
        """Keep maps; gives them as `read` would.

        Raises:
            FeatureCacheError: They take too much space, or are beyond the type.
        """
        kept = [each.detach().to(DTYPES[self.dtype]) for each in maps]
        if not self._checked:
            self._check_space(sum(each[0].nbytes for each in kept))
        on_host = [each.cpu() for each in kept]
        if not all(each.isfinite().all() for each in on_host):
            raise FeatureCacheError(
                f'feature cache: some features are beyond {self.dtype}: set dtype="float32"'
            )
        for row, view in enumerate(views):
            own = {f'{level:03}': each[row].contiguous() for level, each in enumerate(on_host)}
            content = save(own)
            if self._has_room(len(content)):
                write_whole(self._path(view, size), content)
        return [each.float().contiguous() for each in kept]  # as files are

    def _has_room(self, num_bytes: int) -> bool:
        """Whether a file may still be written; the first batch shows too little.

        A view that batches pad to several sizes has a file for each.
        """
        if self._room < num_bytes and not self._is_full:
            self._room = (self.max_gb - _gigabytes(self.folder)) * _GB / get_world_size()
            self._is_full = self._room < num_bytes
            if self._is_full:
                print_log(
                    f'feature cache: {self.folder} has reached max_gb={self.max_gb}, since batches '
                    f'pad views to several sizes, and each is kept: what is new is computed and '
                    f'not kept; pad all images to one size, or raise max_gb',
                    logger='current',
                    level=logging.WARNING,
                )
        self._room -= num_bytes
        return not self._is_full

    def _path(self, view: View, size: tuple[int, int]) -> Path:
        name = '_'.join(map(str, view))
        return self.folder / f'{name}_{size[0]}x{size[1]}.safetensors'

    def _check_space(self, num_bytes: int) -> None:
        """Show the size of the whole cache before its first file is used, and refuse too much."""
        self._checked = True
        total = self.num_views * num_bytes / _GB
        held = _gigabytes(self.folder)
        place = next(each for each in self.folder.absolute().parents if each.exists())
        free = shutil.disk_usage(place).free / _GB
        size = (
            f'feature cache: {self.num_views} views of {num_bytes / 1e6:.3g} MB, {total:.3g} GB in '
            f'{self.folder}'
        )
        if total > self.max_gb:
            raise FeatureCacheError(
                f'{size}, above max_gb={self.max_gb}: raise it, or take fewer views'
            )
        if total - held > free:
            raise FeatureCacheError(
                f'{size}, where {free:.3g} GB are free: free some, or set folder'
            )
        if is_main_process():
            print_log(f'{size}, {held:.3g} GB of it there', logger='current')
            self._name_others()
            write_whole(self.folder / 'about.json', json.dumps(self.about, indent=2).encode())

    def _name_others(self) -> None:
        """Name caches of other weights, data or pipelines: nothing else deletes them."""
        notes = self.folder.parent.glob('*/about.json')
        others = sorted(note.parent for note in notes if note.parent != self.folder)
        if others:
            sizes = ', '.join(f'{each.name} ({_gigabytes(each):.3g} GB)' for each in others)
            print_log(
                f'feature cache: {self.folder.parent} also holds {sizes}, of other weights, data '
                f'or pipelines: delete those that no training needs',
                logger='current',
            )


def _gigabytes(folder: Path) -> float:
    return sum(each.stat().st_size for each in folder.glob('*.safetensors')) / _GB
