"""Trainings in two processes: a config, and ranks that are forks of this process.

It has imported all that they need.
"""

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from conftest import load_tool

# Needs base, a config with the drawn shapes, and batch
SEGMENTER = """
_base_ = {base!r}
default_scope = 'mmseg'
builtin_data = dict(_delete_=True, root='data/shapes', num_train=8, num_val=2)
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3,
                           size=(128, 192)),
    backbone=dict(
        type='ViTFeatBackbone', model_name='vit_tiny_patch16_224', out_indices=(0, 1), norm='all'
    ),
    decode_head=dict(
        type='FCNHead', in_channels=[192, 192], in_index=[0, 1], input_transform='resize_concat',
        channels=384, num_convs=0, concat_input=False, dropout_ratio=0.0, num_classes=9,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs'),
    ]),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=0.1),
    optimizer=dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=0.1),
    constructor='ViTLayerDecayConstructor', paramwise_cfg=dict(decay_rate=0.7),
)
param_scheduler = None
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2, val_interval=2)
randomness = dict(seed=0)
"""
FSDP = """
runner_type = 'FlexibleRunner'
strategy = dict(type='ViTFSDPStrategy')
"""


def free_port():
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        return bound.getsockname()[1]


class TwoProcesses:
    """`tools/train.py` without `torchrun`, in a folder, as rank 0 and 1 on the CPU.

    Args:
        folder: Where they run, and write their output.
        arguments: Of the tool.
        number: 1 for a process without others.
    """

    def __init__(self, folder, *arguments, number=2):
        self.folder, self.number, port = Path(folder), number, free_port()
        # Whoever forks must not have used threads
        self.main = load_tool('train').main
        self.pids = [self._fork(rank, port, arguments) for rank in range(number)]

    def _fork(self, rank, port, arguments):
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        code = 1
        with contextlib.suppress(BaseException):
            try:
                code = self._run(rank, port, arguments)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _run(self, rank, port, arguments):
        os.chdir(self.folder)
        for name, number in (('out', 1), ('err', 2)):
            file = os.open(f'{name}{rank}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, 'w', closefd=False) for number in (1, 2))
        torch.set_num_threads(1)
        torch.cuda.is_available = lambda: False
        if self.number == 1:
            return self.main(arguments)
        given = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=self.number, MASTER_PORT=port)
        os.environ |= {name: str(value) for name, value in given.items()}
        os.environ['MASTER_ADDR'] = '127.0.0.1'
        return self.main([*arguments, '--launcher', 'pytorch'])

    def wait(self, seconds, ranks=None):
        """Exit codes once these ended, negative for signals; `None` for one that is killed then."""
        until, codes = time.monotonic() + seconds, [None] * self.number
        ranks = range(self.number) if ranks is None else ranks
        while any(codes[rank] is None for rank in ranks) and time.monotonic() < until:
            for rank, pid in enumerate(self.pids):
                if codes[rank] is None and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    codes[rank] = os.waitstatus_to_exitcode(ended[1])
            time.sleep(0.02)
        for rank, pid in enumerate(self.pids):
            if codes[rank] is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return codes

    def said(self, rank, stream='err'):
        """Lines that a process wrote."""
        return (self.folder / f'{stream}{rank}').read_text().splitlines()
