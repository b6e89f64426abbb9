"""Checkpoints of a training with LoRA: what every way of loading makes of them."""

from pathlib import Path

import pytest
import torch
from conftest import load_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from redraw import backbone, error, images, redraw

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import read_checkpoint
from vit_backbones.models.chosen import Choice, load_backbone
from vit_backbones.models.trained import load_trained

pytest.importorskip('peft')
LORA = dict(r=2, alpha=6, targets=('qkv', 'fc1'))
OTHERS = {
    'r': (dict(LORA, r=3), r'r=2 in 4 layers \(fc1, qkv\), and this model has .* r=3 in 4 layers'),
    'targets': (dict(LORA, targets='qkv'), r'this model has LoRA updates of r=2 in 2 layers \(qkv'),
    'alpha': (dict(LORA, alpha=16), 'alpha=6, and this model has alpha=16: give lora alpha=6'),
}


def vit(**options):
    return backbone('test_vit', depth=2, norm='all', **options)


def without_alpha(tensors):
    return {name: tensor for name, tensor in tensors.items() if not name.endswith('lora_alpha')}


@pytest.fixture
def tuned(tmp_path):
    """A backbone after a training with LoRA, and the file of it."""
    trained = vit(lora=LORA)
    torch.save(trained.state_dict(), tmp_path / 'lora.pth')
    return trained, str(tmp_path / 'lora.pth')


@pytest.fixture
def segmenter(folder):
    """A segmenter after a training with LoRA; `seg_lora.py` and `epoch_1.pth` are its files."""
    plain = Path('seg.py').read_text().replace('(1, 3)', '(1, 5)')
    Path('seg.py').write_text(plain)
    Path('seg_lora.py').write_text(plain + "model['backbone']['lora'] = dict(r=2, alpha=3)\n")
    config = Config.fromfile('seg_lora.py')
    init_default_scope('mmseg')
    model = redraw(MODELS.build(config.model), 5).eval()
    torch.save(dict(meta=dict(epoch=1), state_dict=model.state_dict()), 'epoch_1.pth')
    return model


def start(way, path, **options):
    """A backbone that starts from a file, as its argument or as MMEngine loads it."""
    if way == 'checkpoint':
        return vit(checkpoint=path, **options)
    begun = redraw(vit(**options), seed=9)
    begun.load_state_dict(torch.load(path), strict=False)
    return begun


WAYS = ['checkpoint', 'load_from']


@torch.no_grad()
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('lora', [LORA, None], ids=['lora', 'plain'])
def test_it_starts_a_model_with_the_same_updates_and_merges_into_a_plain_one(way, lora, tuned):
    trained, path = tuned
    begun, x = start(way, path, lora=lora), images(48, 64)
    assert error(begun(x)[0], trained(x)[0]) <= 1
    if lora:
        assert all(torch.equal(begun.state_dict()[n], t) for n, t in trained.state_dict().items())
    assert begun.state_dict().keys() == vit(lora=lora).state_dict().keys()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(('lora', 'message'), OTHERS.values(), ids=OTHERS)
def test_other_updates_are_refused(way, lora, message, tuned):
    with pytest.raises(ValueError, match=message):
        start(way, tuned[1], lora=lora)


@torch.no_grad()
@pytest.mark.parametrize('way', WAYS)
def test_without_a_record_of_alpha_only_a_model_with_updates_can_know_it(way, tuned, tmp_path):
    """As in files of earlier versions."""
    trained, old = tuned[0], str(tmp_path / 'old.pth')
    torch.save(without_alpha(trained.state_dict()), old)
    x = images(48, 64)
    assert torch.equal(start(way, old, lora=LORA)(x)[0], trained(x)[0])
    message = r'LoRA updates of r=2 in 4 layers \(fc1, qkv\) but not their alpha, .* lora=dict'
    with pytest.raises(ValueError, match=message):
        start(way, old)


@torch.no_grad()
def test_a_model_of_tools_is_the_trained_one(segmenter):
    loaded = load_backbone(Choice(config='seg_lora.py', checkpoint='epoch_1.pth'))
    x = images(50, 80)
    for one, other in zip(loaded.backbone(x), segmenter.backbone(x), strict=True):
        assert torch.equal(one, other)
    model = load_trained('seg_lora.py', 'epoch_1.pth', device='cpu').model
    assert torch.equal(model(x), segmenter(x))


@torch.no_grad()
def test_a_plain_config_gets_merged_weights(segmenter):
    x = images(50, 80)
    loaded = load_backbone(Choice(config='seg.py', checkpoint='epoch_1.pth')).backbone
    segmenter.backbone.merge_lora()
    assert torch.equal(loaded(x)[1], segmenter.backbone(x)[1])
    model = MODELS.build(Config.fromfile('seg.py').model).eval()
    load_checkpoint(model, 'epoch_1.pth')
    assert torch.equal(model(x), segmenter(x))
    assert model.state_dict().keys() == segmenter.state_dict().keys()


@torch.no_grad()
def test_an_exported_file_is_the_trained_model(segmenter):
    options = ['--config', 'seg_lora.py', '--checkpoint', 'epoch_1.pth', '--size', '48', '64']
    assert load_tool('export_onnx').main([*options, '--out', 'vit.pt']) == 0
    x, exported = images(48, 64), torch.jit.load('vit.pt')
    assert error(exported(x)[1], segmenter.backbone(x)[1]) <= 1
    assert not [name for name in exported.state_dict() if 'lora' in name or 'base_layer' in name]


@torch.no_grad()
def test_a_converted_checkpoint_is_plain_and_merged(segmenter):
    options = ['epoch_1.pth', 'plain.safetensors', '--model', 'test_vit']
    assert not load_tool('convert_checkpoint').main(options)
    assert not [name for name in read_checkpoint('plain.safetensors') if 'lora' in name]
    options = dict(out_indices=(1, 5), norm='all', checkpoint='plain.safetensors')
    plain, x = ViTFeatBackbone('test_vit', **options).eval(), images(48, 64)
    segmenter.backbone.merge_lora()
    assert torch.equal(plain(x)[1], segmenter.backbone(x)[1])


@torch.no_grad()
def test_positions_of_a_training_at_another_size_are_resampled(tuned):
    """Under the names of layers with updates."""
    larger = redraw(vit(lora=LORA, img_size=(64, 96)), seed=9)
    larger.load_state_dict(torch.load(tuned[1]))
    again = vit(lora=LORA, img_size=(64, 96), checkpoint=tuned[1])
    x = images(64, 96)
    assert torch.equal(larger(x)[0], again(x)[0])
    assert torch.equal(larger.vit.pos_embed, again.vit.pos_embed)


def test_a_process_that_sees_no_state_loads_it(tuned, monkeypatch):
    """FSDP gathers the state for the first process only."""
    trained, again = tuned[0], redraw(vit(lora=LORA), seed=9)
    with monkeypatch.context() as hidden:
        hidden.setattr(again.vit, 'state_dict', dict)
        again.load_state_dict(torch.load(tuned[1]))
    assert all(torch.equal(again.state_dict()[n], t) for n, t in trained.state_dict().items())
