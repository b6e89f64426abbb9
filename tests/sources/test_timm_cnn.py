"""timm's convolutional networks, which run as its models with stages do."""

from functools import cache, partial

import pytest
import timm
import torch
from redraw import copy_weights, error, images, pad, redraw

from vit_backbones import ViTFeatBackbone

# name: channels, strides
NETWORKS = {
    'resnet18': ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    'convnext_atto': ((40, 80, 160, 320), (4, 8, 16, 32)),
    'mobilenetv3_small_050': ((16, 8, 16, 24, 288), (2, 4, 8, 16, 32)),
    'resnetv2_50': ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),  # with a final norm
}


@cache
def stock(name):
    """timm's own, with running statistics that show whether they are used."""
    network = redraw(timm.create_model(name), gain=0.5).eval()
    generator = torch.Generator().manual_seed(3)
    for key, buffer in network.named_buffers():
        if 'running' in key:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network


@pytest.mark.parametrize('size', [(64, 96), (75, 130)], ids=str)
@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_maps_equal_timms_on_the_padded_image(name, size):
    channels, strides = NETWORKS[name]
    ours = ViTFeatBackbone(name, out_indices=range(len(channels))).eval()
    copy_weights(ours.vit, stock(name).state_dict())
    x = images(*size)
    timms = partial(stock(name).forward_intermediates, pad(x, 32), intermediates_only=True)
    expected = timms()[:-1] + timms(indices=1, norm=True)
    outputs = ours(x)
    assert all(error(*both) <= 1 for both in zip(outputs, expected, strict=True))
    assert (ours.out_channels, ours.strides) == (channels, strides)
    assert tuple(out.shape[1] for out in outputs) == channels


@pytest.mark.parametrize(
    ('stages', 'frozen'),
    [(-1, []), (0, ['conv1', 'bn1']), (2, ['conv1', 'bn1', 'layer1'])],
    ids=str,
)
def test_frozen_stages_keep_the_statistics_of_their_norms(stages, frozen):
    """The first of five stages is the stem's activation, the stem lies in front of it."""
    resnet = ViTFeatBackbone('resnet18', out_indices=-1, frozen_stages=stages)
    redraw(resnet).train()
    before = {key: tensor.clone() for key, tensor in resnet.vit.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in resnet.parameters() if p.requires_grad], lr=0.1)
    resnet(images(64, 96, batch=2))[0].square().mean().backward()
    optimizer.step()
    changed = {k for k, tensor in resnet.vit.state_dict().items() if not before[k].equal(tensor)}
    assert before.keys() - changed == {k for k in before if k.split('.')[0] in frozen}


def test_every_parameter_that_is_left_gets_a_gradient():
    resnet = redraw(ViTFeatBackbone('resnet18', out_indices=(1, 2))).train()
    sum(out.square().mean() for out in resnet(images(64, 96))).backward()
    assert not [n for n, p in resnet.named_parameters() if p.requires_grad and p.grad is None]
    assert not hasattr(resnet.vit.fc, 'weight')


def test_layers_count_from_the_stem():
    convnext = ViTFeatBackbone('convnext_atto', out_indices=-1)
    names = ('vit.stem.0.weight', 'vit.stages.0.blocks.0.gamma', 'vit.stages.3.blocks.1.gamma')
    assert [convnext.get_layer_depth(name) for name in names] == [(0, 6), (1, 6), (4, 6)]
