import pytest
from torch import nn

from vit_backbones.benchmark import peers
from vit_backbones.benchmark.peers import build_peer
from vit_backbones.benchmark.subjects import Setting, build_backbone, of_backbone

SIZE = (64, 96)


@pytest.fixture(scope='module')
def backbone():
    return build_backbone('test_vit', 'timm', SIZE, out_indices='even4')


@pytest.mark.parametrize('library', ['timm', 'mmseg', 'transformers'])
def test_peer_has_the_same_weights_and_gives_as_many_outputs(library, backbone):
    pytest.importorskip(library)
    peer = of_backbone(build_peer(library, backbone, SIZE), Setting(SIZE))
    outputs = peer.run()
    assert len(outputs) == 4
    assert all(64 in each.shape and each.shape[0] == 1 for each in outputs)
    assert peer.parameters == pytest.approx(sum(p.numel() for p in backbone.parameters()), rel=1e-3)


def test_torchvision_takes_squares(backbone):
    square = build_backbone('test_vit', 'timm', (64, 64))
    peer = build_peer('torchvision', square, (64, 64))
    heads = {m.num_heads for m in peer.modules() if isinstance(m, nn.MultiheadAttention)}
    assert heads == {square.vit.blocks[0].attn.num_heads}
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in square.parameters())
    with pytest.raises(ValueError, match='takes only squares'):
        build_peer('torchvision', backbone, SIZE)


def test_peer_is_as_deep_as_the_last_output(backbone):
    early = build_backbone('test_vit', 'timm', SIZE, out_indices=(0, 2))
    assert len(build_peer('mmseg', early, SIZE).layers) == 3


@pytest.mark.parametrize(
    ('library', 'model', 'reason'),
    [
        ('mmseg', 'vit_small_patch14_dinov2', 'has no LayerScale'),
        ('mmseg', 'test_vit4', 'has no such architecture'),  # registers, SwiGLU
        ('transformers', 'resnet10t', 'has no such architecture'),
    ],
)
def test_other_architectures_are_not_compared(library, model, reason):
    pytest.importorskip(library)
    with pytest.raises(ValueError, match=reason):
        build_peer(library, build_backbone(model, 'timm', (56, 56)), (56, 56))


def test_a_norm_in_front_of_the_blocks_is_another_architecture(backbone, monkeypatch):
    monkeypatch.setitem(backbone.vit._modules, 'norm_pre', nn.LayerNorm(64))
    with pytest.raises(ValueError, match='has no such architecture'):
        peers.plain_sizes(backbone)


def test_a_ratio_that_is_no_whole_number_is_not_rounded(backbone):
    plain = peers.plain_sizes(backbone)
    with pytest.raises(ValueError, match='takes no MLP of 100 channels in 64'):
        plain._replace(hidden=100).mlp_ratio  # noqa: B018


def test_library_that_is_missing_or_broken_says_so(backbone, monkeypatch):
    error = ModuleNotFoundError("No module named 'mmpretrain'", name='mmpretrain')

    def fail(name):
        raise error

    monkeypatch.setattr(peers, 'import_module', fail)
    with pytest.raises(ValueError, match=r'^is not installed$'):
        build_peer('mmpretrain', backbone, SIZE)
    error = TypeError('NoneType takes no arguments')
    with pytest.raises(ValueError, match=r'cannot be imported .*NoneType'):
        build_peer('mmpretrain', backbone, SIZE)
