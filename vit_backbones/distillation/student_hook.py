"""Measure crops before a distillation, and write the student at its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from vit_backbones.checks.wiring import bare
from vit_backbones.files import write_whole
from vit_backbones.models.weight_files import weight_file
from vit_backbones.training.runner import QuietRunner
from vit_backbones.training.seeded_data import seeded
from vit_backbones.training.stopping import Stop

NOTES = 'distillation'  # in the `meta` of a checkpoint
STUDENT = 'student.safetensors'  # in the work dir
CROPS, OF_EACH = 256, 4  # in all, and of one image


@HOOKS.register_module()
class StartHook(Hook):
    """Let a `Distiller` start from a sample of crops of the training.

    After a resume its checkpoint holds all that was measured.

    Args:
        seed: Of the crops.
        batch_size: Crops at a time.
    """

    def __init__(self, seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size

    def before_train(self, runner: QuietRunner) -> None:
        """Measure; a stop is heeded after each batch."""
        if runner.iter:
            return
        dataset = runner.train_dataloader.dataset
        with seeded(self.seed):
            crops = torch.randperm(len(dataset)).repeat(OF_EACH)[:CROPS].tolist()
        runner.logger.info(f'measuring the features of {len(crops)} crops')
        bare(runner.model).start(self._batches(dataset, crops, runner.stop))

    def _batches(self, dataset: Any, crops: list[int], stop: Stop) -> Iterator[dict[str, Any]]:
        for first in range(0, len(crops), self.batch_size):
            stop.heed()
            batch = []
            for number, index in enumerate(crops[first : first + self.batch_size], first):
                with seeded(self.seed, number):
                    batch.append(dataset[index])
            yield pseudo_collate(batch)


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
