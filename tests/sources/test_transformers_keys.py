"""Checkpoints of transformers 4.x and 5.x, of encoders alone and of whole models."""

import pytest
import torch
from encoders import CONFIGS, backbone, equal_weights, library_model
from safetensors.torch import save_file

_VIT = {
    'layers.': 'encoder.layer.',
    'attention.q_proj': 'attention.attention.query',
    'attention.k_proj': 'attention.attention.key',
    'attention.v_proj': 'attention.attention.value',
    'attention.o_proj': 'attention.output.dense',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}
_BEIT = {
    '.relative_position_bias.': '.attention.attention.relative_position_bias.',
    'shared_position_bias': 'encoder.relative_position_bias',
    **_VIT,
}
_SWIN = {
    'attention.q_proj': 'attention.self.query',
    'attention.k_proj': 'attention.self.key',
    'attention.v_proj': 'attention.self.value',
    'attention.relative_position_bias.': 'attention.self.',
    **{new: old for new, old in _VIT.items() if new.startswith(('mlp', 'attention.o'))},
}
_DINOV2 = {
    **{new: old for new, old in _VIT.items() if new.startswith('attention')},
    'mlp.down_proj': 'mlp.weights_out',
}
# Prefix in the files of whole models, and how transformers 4.x spelled what 5.x has renamed
OLD_KEYS = {
    'vit': ('vit.', _VIT),
    'deit': ('deit.', _VIT),
    'dinov2': ('dinov2.', _DINOV2),
    'dinov2_swiglu': ('dinov2.', _DINOV2),
    'dinov2_with_registers': ('dinov2_with_registers.', _DINOV2),
    'dinov3_vit': ('', {'model.layer.': 'layer.'}),
    'siglip_vision_model': ('vision_model.', {}),
    'siglip2_vision_model': ('vision_model.', {}),
    'clip_vision_model': ('vision_model.', {}),
    'beit': ('beit.', _BEIT),
    'beit_shared': ('beit.', _BEIT),
    'vitdet': ('vitdet.', {}),
    'swin': ('swin.', _SWIN),
}


def old_layout(name, tensors):
    """Tensors under the keys of transformers 4.x, without a prefix."""
    tensors = dict(tensors)
    for key in [key for key in tensors if 'gate_proj' in key]:
        halves = tensors.pop(key), tensors.pop(key.replace('gate_proj', 'up_proj'))
        tensors[key.replace('gate_proj', 'weights_in')] = torch.cat(halves)
    renamed = {}
    for key, tensor in tensors.items():
        for new, old in OLD_KEYS[name][1].items():
            key = key.replace(new, old)
        renamed[key] = tensor
    return renamed


@pytest.mark.parametrize('whole', [False, True], ids=['encoder', 'whole model'])
@pytest.mark.parametrize('name', CONFIGS)
def test_every_tensor_of_the_4x_layout_is_loaded(name, whole, tmp_path):
    vit = library_model(name)
    prefix = OLD_KEYS[name][0] if whole else ''
    tensors = {prefix + k: t for k, t in old_layout(name, vit.state_dict()).items()}
    if prefix:
        tensors['classifier.weight'] = torch.zeros(10, 32)
    save_file(tensors, tmp_path / 'old.safetensors')
    assert equal_weights(backbone(name, checkpoint=tmp_path / 'old.safetensors'), vit)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_tensor_of_the_5x_layout_is_loaded(name, tmp_path):
    vit = library_model(name)
    torch.save(vit.state_dict(), tmp_path / 'new.pth')
    assert equal_weights(backbone(name, checkpoint=tmp_path / 'new.pth', out_indices=0), vit)
