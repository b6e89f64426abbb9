"""The files that a start writes before anything is trained, taken back if it is refused."""

import contextlib
import logging
import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin

DATASET = 'dataset'  # folder in a work dir for the lists of own data


class StartedFiles:
    """What one start writes into a work dir: its log, a copy of its config, lists of own data.

    Made before it starts. Only these are ever removed, since another training may run in the same
    folder.

    Args:
        work_dir: May be missing.
        config_name: Name of the copy of the config.
    """

    def __init__(self, work_dir: str | Path, config_name: str) -> None:
        self._folder = Path(work_dir).absolute()
        self._config = self._folder / config_name
        self._held = set(self._entries())
        self._made = [each for each in (self._folder, *self._folder.parents) if not each.exists()]
        self._replaced = self._config.read_bytes() if self._config.is_file() else None

    def remove(self) -> None:
        """Remove them, and the folders that this leaves empty; the old config comes back."""
        if not is_main_process():
            return
        log = _log_folder()
        new = {self._config, self._folder / DATASET, log} - self._held
        if log in new:
            _forget_run()
        for path in new & set(self._entries()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self._replaced is not None:
            self._config.write_bytes(self._replaced)
        emptied = [path for path in self._entries() if path not in self._held and path.is_dir()]
        for folder in (*emptied, *self._made):  # the innermost first
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def _entries(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []


def _log_folder() -> Path | None:
    """Folder of MMEngine's current log file, if there is one."""
    handlers = MMLogger.get_current_instance().handlers
    files = [each.baseFilename for each in handlers if isinstance(each, logging.FileHandler)]
    return Path(files[0]).parent if files else None


def _forget_run() -> None:
    """Let MMEngine set up the log anew for a run of the same name, one of the same second."""
    name, kinds = MMLogger.get_current_instance().instance_name, [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.pop(name, None)
