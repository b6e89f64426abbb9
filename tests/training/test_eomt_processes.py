"""Two processes have the gradients of one, and none of EoMT's parameters is unused."""

import pytest
import torch
from eomt_models import CLASSES, detector, images, objects, training_at
from mmengine.model import MMDistributedDataParallel
from torch.multiprocessing import start_processes

SIZE = (32, 48)


def fixed_points(*size, device):
    """The same places for each output, image and object."""
    drawn = torch.rand(size[-1], 2, generator=torch.Generator().manual_seed(0))
    return drawn.expand(*size, 2)


# Two processes weigh the classes of their own queries: equal weights give equal sums
EQUAL = dict(type='CrossEntropyLoss', loss_weight=2.0, class_weight=[1.0] * (CLASSES + 2))


def model_and_samples(counts):
    model = detector(dict(num_blocks=2, loss_cls=EQUAL)).train()
    model.panoptic_head.draw_points = fixed_points
    return model, images(*SIZE), objects(SIZE, counts)


def gradients(model, x, samples):
    """Of a training's first iteration, in which all masks are on."""
    training_at(0, 100)
    sum(model(x, samples, mode='loss').values()).backward()
    return {name: each.grad for name, each in model.named_parameters()}


def work(rank, folder, counts):
    torch.set_num_threads(1)  # those of OpenMP do not survive a fork
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    model, x, samples = model_and_samples(counts)
    parallel = MMDistributedDataParallel(model, find_unused_parameters=False)
    found = gradients(parallel, x[rank : rank + 1], samples[rank : rank + 1])
    if rank == 0:
        torch.save({name: each.clone() for name, each in found.items()}, folder / 'gradients.pth')
    gradients(parallel, x[rank : rank + 1], samples[rank : rank + 1])  # PyTorch's error is here


@pytest.mark.parametrize('counts', [(2, 2), (3, 0), (0, 1), (0, 0)])
def test_two_processes_have_the_gradients_of_one(counts, tmp_path):
    start_processes(work, (tmp_path, counts), nprocs=2, start_method='fork')
    found = torch.load(tmp_path / 'gradients.pth')
    model, x, samples = model_and_samples(counts)
    expected = gradients(model, x, samples)
    assert [name for name, each in expected.items() if each is None] == []
    found = {name.removeprefix('module.'): each for name, each in found.items()}
    scale = max(each.abs().max() for each in expected.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale.item())
