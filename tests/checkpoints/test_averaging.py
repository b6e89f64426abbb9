"""Files with several copies of a model: the one that its authors evaluate is read, and named."""

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from redraw import backbone, redraw, timm_vit
from torchvision.models import VisionTransformer

from vit_backbones import ViTFeatBackbone
from vit_backbones.checkpoints import names, read_checkpoint, sections
from vit_backbones.sources.torchvision_vit import wrap_torchvision

SMALL = dict(depth=2, width=24)


@pytest.fixture(scope='module')
def weights():
    """Those of the copy to take, and of another one."""
    return tuple(redraw(timm_vit(**SMALL), seed=seed).state_dict() for seed in (1, 2))


def below(prefix, tensors):
    return {f'{prefix}.{name}': tensor for name, tensor in tensors.items()}


def report_of(vit, taken):
    """The report of a backbone that has all tensors of a copy, without their number."""
    same = [torch.equal(tensor, taken[name]) for name, tensor in vit.vit.state_dict().items()]
    return vit.load_report.removeprefix('loaded 30 of 30 tensors, ') if all(same) else 'another'


# The copy that is evaluated, and the other one, as sections of a file
SECTIONS = [
    ('state_dict_ema', 'state_dict'),  # timm
    ('state_dict', 'ema_state_dict'),  # MMEngine, which swaps them
    ('model_ema', 'model'),
    ('ema_model', 'model'),
    ('teacher', 'student'),
    ('target_encoder', 'encoder'),
    ('online_network', 'target_network'),
    ('module_ema', 'module'),
]


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize(('taken', 'left'), SECTIONS)
def test_sections(taken, left, first, weights, tmp_path):
    content = {taken: weights[0], left: weights[1], 'optimizer': {'state': {0: {}}}, 'epoch': 3}
    content = content if first else dict(reversed(content.items()))
    torch.save(content, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert report_of(vit, weights[0]) == f"resized 0; took its '{taken}', not its '{left}'"


def test_names_and_sections_are_of_the_same_file(weights, tmp_path):
    content = {'state_dict': {'b': torch.ones(3)}, 'state_dict_ema': {'a': torch.ones(2)}}
    torch.save(content, tmp_path / 'a.pth')
    assert names(tmp_path / 'a.pth') == {'a': (2,)}
    assert read_checkpoint(tmp_path / 'a.pth').keys() == {'a'}
    assert sections(tmp_path / 'a.pth') == content.keys()


def test_an_average_with_its_own_section_is_opened(weights, tmp_path):
    """As detectors of the RT-DETR family write it."""
    content = {'model': weights[1], 'ema': {'module': weights[0], 'updates': 7}}
    torch.save(content, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert report_of(vit, weights[0]) == "resized 0; took its 'ema', not its 'model'"


def test_an_average_of_any_name_is_found_by_its_tensors(weights, tmp_path):
    """And a part of it is none."""
    head = {'0.weight': torch.ones(2)}
    content = {'model': weights[1], 'ema_state': below('module', weights[0]), 'teacher_head': head}
    torch.save(content, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert report_of(vit, weights[0]) == "resized 0; took its 'ema_state', not its 'model'"
    torch.save({'model': weights[1], 'teacher_head': head}, tmp_path / 'a.pth')
    assert report_of(backbone(**SMALL, checkpoint=tmp_path / 'a.pth'), weights[1]) == 'resized 0'


@pytest.mark.parametrize('empty', [None, {}, {'updates': 3}])
def test_a_section_without_weights_is_no_copy(empty, weights, tmp_path):
    torch.save({'model': weights[0], 'model_ema': empty}, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert report_of(vit, weights[0]) == 'resized 0'


# The same as prefixes of one section, and whether the report names layout and prefix already
PREFIXES = [
    ('teacher.backbone', 'student.backbone'),
    ('module.base_encoder', 'module.momentum_encoder'),  # MoCo v3
    ('encoder_q', 'encoder_k'),  # MoCo
    ('online_encoder.net', 'target_encoder.net'),  # BYOL
    ('backbone', 'momentum_backbone'),  # solo-learn
    ('backbone', 'momentum_encoder.module.0'),  # mmpretrain
    ('backbone.vit', 'student_backbone.vit'),  # Lightly's DINO
    ('backbone.vit', 'teacher_backbone.vit'),  # and BYOL
    ('teacher_backbone.vit', 'student_backbone.vit'),  # and DINOv2
    ('model_ema.backbone', 'teacher.backbone'),  # DINOv3
    ('teacher', 'student'),
    ('net_ema', 'net'),
]


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize(('taken', 'left'), PREFIXES)
def test_prefixes(taken, left, first, weights, tmp_path):
    content = below(taken, weights[0]) | below(left, weights[1]) | {'head.w': torch.ones(2)}
    content = content if first else dict(reversed(content.items()))
    torch.save({'state_dict': content}, tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    copies = report_of(vit, weights[0]).replace('under ', 'took its ').replace(".'", "'")
    assert f"took its '{taken}', not " in copies
    assert copies.endswith(f"'{left}'")


@pytest.mark.parametrize(
    ('taken', 'left'), [('module.base_encoder', 'module.momentum_encoder'), ('teacher', 'student')]
)
def test_prefixes_of_sources_that_read_their_own_keys(taken, left, tmp_path):
    def build(name, options):
        return wrap_torchvision(VisionTransformer(64, 16, 2, 2, 32, 64))

    both = [
        redraw(VisionTransformer(64, 16, 2, 2, 32, 64), seed=seed).state_dict() for seed in (1, 2)
    ]
    torch.save(below(left, both[1]) | below(taken, both[0]), tmp_path / 'a.pth')
    vit = ViTFeatBackbone('vit', source=build, checkpoint=tmp_path / 'a.pth')
    assert torch.equal(vit.vit.class_token, both[0]['class_token'])
    assert vit.load_report.endswith(f"; took its '{taken}', not its '{left}'")


def test_a_teacher_of_another_width_is_no_copy(weights, tmp_path):
    """As in a distillation."""
    other = timm_vit(depth=2, width=48).state_dict()
    torch.save(below('teacher', other) | below('student', weights[0]), tmp_path / 'a.pth')
    vit = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    assert report_of(vit, weights[0]) == 'resized 0'


def test_a_taken_copy_that_does_not_fit_is_named(weights, tmp_path):
    other = timm_vit(depth=2, width=48).state_dict()
    torch.save({'teacher': other, 'student': weights[0]}, tmp_path / 'a.pth')
    expected = r"\(took its 'teacher', not its 'student'\) is of another size: the file is 48 wide,"
    with pytest.raises(ValueError, match=expected):
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')


def test_a_copy_that_lacks_a_tensor_is_not_filled_from_the_other(weights, tmp_path):
    less = {name: t for name, t in weights[0].items() if name != 'blocks.1.attn.proj.bias'}
    torch.save(below('teacher', less) | below('student', weights[1]), tmp_path / 'a.pth')
    expected = r"\(took its 'teacher', .* missing: blocks\.1\.attn\.proj\.bias"
    with pytest.raises(ValueError, match=expected):
        backbone(**SMALL, checkpoint=tmp_path / 'a.pth')


def test_what_mmengines_hook_saves_is_the_average(tmp_path):
    """It swaps the average into `state_dict`."""
    vit = backbone(**SMALL)
    hook = EMAHook()
    hook.src_model, hook.ema_model = vit, ExponentialMovingAverage(vit, momentum=0.5)
    first = {name: tensor.clone() for name, tensor in vit.vit.state_dict().items()}
    hook.ema_model.update_parameters(vit)
    with torch.no_grad():
        vit.vit.cls_token += 2
    hook.ema_model.update_parameters(vit)
    content = dict(state_dict=vit.state_dict())
    hook.before_save_checkpoint(None, content)
    torch.save(content, tmp_path / 'a.pth')
    loaded = backbone(**SMALL, checkpoint=tmp_path / 'a.pth')
    torch.testing.assert_close(loaded.vit.cls_token.data, first['cls_token'] + 1)
    assert loaded.load_report.endswith("; took its 'state_dict', not its 'ema_state_dict'")
