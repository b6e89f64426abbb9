"""With every socket refused nothing but `pretrained=True` misses the network."""

import pytest

from vit_backbones import ViTFeatBackbone

TINY_CONFIG = dict(model_type='vit', hidden_size=48, num_hidden_layers=2, num_attention_heads=3)


@pytest.mark.parametrize(
    'options',
    [
        dict(model_name='vit_tiny_patch16_224'),
        dict(model_name='swin_tiny_patch4_window7_224'),
        dict(model_name='vit_b_32', source='torchvision', out_indices=0),
        dict(model_name='vit_b_32', source='lightly', out_indices=0),
        dict(model_name=TINY_CONFIG, source='transformers'),
        dict(arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)),
    ],
    ids=str,
)
def test_building_needs_no_network(options, no_network):
    if options.get('source') == 'transformers':
        pytest.importorskip('transformers')
    ViTFeatBackbone(**options)
    assert not no_network


@pytest.mark.parametrize(
    ('name', 'source'), [('vit_tiny_patch16_224', 'timm'), ('vit_b_32', 'torchvision')]
)
def test_pretrained_weights_that_cannot_be_had_are_one_line(
    name, source, no_network, monkeypatch, tmp_path
):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(RuntimeError, match=f'no pretrained weights for {name!r}') as caught:
        ViTFeatBackbone(name, source=source, pretrained=True)
    assert no_network
    assert '\n' not in str(caught.value)
