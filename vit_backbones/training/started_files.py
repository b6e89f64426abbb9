"""The files that a start writes before anything is trained, taken back if it is refused."""

import contextlib
import logging
import shutil
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.utils import ManagerMixin

from vit_backbones.files import write_whole

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
        old = (self._config, *self._lists())
        self._replaced = {each: each.read_bytes() for each in old if each.is_file()}

    def remove(self) -> None:
        """Remove them, and the folders that this leaves empty; old configs and lists come back."""
        if not is_main_process():
            return
        log = _log_folder()
        new = {self._config, self._folder / DATASET, *self._lists(), log} - self._held
        if log in new:
            _forget_run()
        for path in new & set(self._entries()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for path, content in self._replaced.items():
            write_whole(path, content)
        emptied = [path for path in self._entries() if path not in self._held and path.is_dir()]
        for folder in (*emptied, *self._made):  # the innermost first
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def _entries(self) -> list[Path]:
        entries = list(self._folder.iterdir()) if self._folder.is_dir() else []
        return [*entries, *self._lists()]

    def _lists(self) -> list[Path]:
        return list((self._folder / DATASET).glob('*'))


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
