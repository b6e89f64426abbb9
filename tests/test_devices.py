import numpy as np
import pytest
import torch

from vit_backbones.devices import choose_device, upload


def test_a_device_may_be_named():
    assert choose_device('cpu') == torch.device('cpu')


def test_without_a_gpu(no_gpu):
    assert choose_device(None) == torch.device('cpu')
    with pytest.raises(ValueError, match=r'^device=cuda:1: PyTorch finds no GPU here'):
        choose_device('cuda:1')


@pytest.mark.parametrize('name', ['gpu', 'cpu:x', 'xpu'])
def test_what_is_no_device_is_one_line(name):
    with pytest.raises(ValueError, match=f'^device={name}: .*$'):
        choose_device(name)


def test_an_array_is_uploaded_as_it_is():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert torch.equal(upload(array, torch.device('cpu')), torch.arange(6).view(2, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_an_array_is_uploaded_without_a_wait():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    torch.cuda.set_sync_debug_mode('error')
    try:
        found = upload(array, torch.device('cuda'))
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert torch.equal(found.cpu(), torch.arange(6).view(2, 3))
