"""Write the student at the end, and let a checkpoint know what it was distilled from."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.checks.wiring import bare
from vit_backbones.files import write_whole
from vit_backbones.models.weight_files import weight_file

NOTES = 'distillation'  # in the `meta` of a checkpoint
STUDENT = 'student.safetensors'  # in the work dir


@HOOKS.register_module()
class StudentHook(Hook):
    """Write `student.safetensors` into the work dir at the end of a distillation.

    Args:
        notes: What a resume has to have too; kept in each checkpoint.
        metadata: Texts for the metadata of the file.
    """

    def __init__(self, notes: dict[str, Any], metadata: dict[str, str]) -> None:
        self.notes, self.metadata = dict(notes), dict(metadata)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint is of."""
        checkpoint['meta'][NOTES] = self.notes

    def after_train(self, runner: Runner) -> None:
        """Write the student."""
        if is_main_process():
            content = weight_file(bare(runner.model).backbone, **self.metadata)
            write_whole(Path(runner.work_dir) / STUDENT, content)
