import pytest
import torch

from vit_backbones.devices import choose_device


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
