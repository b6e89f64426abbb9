"""See the content of each COCO file that mmdet's datasets read, without reading it again.

`CocoDataset` and its kin read their file by `COCOAPI`, and drop the content once they have parsed
it. `LVISDataset` has an API of its own, and is left alone.
"""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vit_backbones.files import parsed

_OWNER = 'mmdet.datasets.base_det_dataset'


@contextlib.contextmanager
def watched_coco(see: Callable[[Any, Any], Any]) -> Iterator[list[Any]]:
    """Call `see` with each dataset of mmdet that reads a COCO file meanwhile, and the content.

    The content of a file that mmdet cannot read may be of any type, and that of one that is no JSON
    is the parser's exception. The result becomes the dataset's `coco_survey`, so it should be
    small; all of them are yielded, as a list that grows.
    """
    seen: list[Any] = []
    base = getattr(sys.modules.get(_OWNER), 'BaseDetDataset', None)
    if base is None:
        yield seen
        return
    full_init = base.full_init

    def watched_init(self: Any) -> None:
        if self._fully_initialized or not hasattr(type(self), 'COCOAPI'):
            full_init(self)
            return

        def read(*args: Any, **kwargs: Any) -> Any:
            try:
                coco = type(self).COCOAPI(*args, **kwargs)
            except Exception:  # of a file without some key
                with contextlib.suppress(Exception):
                    seen.append(see(self, _content(Path(self.ann_file))))
                raise
            self.coco_survey = see(self, coco.dataset)
            seen.append(self.coco_survey)
            return coco

        self.COCOAPI = read  # before that of the class
        try:
            with _without_collection():
                full_init(self)
        finally:
            del self.COCOAPI

    base.full_init = watched_init
    try:
        yield seen
    finally:
        base.full_init = full_init


def _content(path: Path) -> Any:
    """What a file holds, or the exception of its parser."""
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        return error


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Leave garbage collection out: each one walks the millions of objects of a large file."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
