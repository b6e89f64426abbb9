"""tools/check_config.py: what would break or spoil a training has a line of its own."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import timm
import torch
from checked_configs import DETECTOR, ROOT, SEGMENTER, lines_of, write_segments
from conftest import load_tool
from mmengine.config import Config
from safetensors.torch import save_file
from torch import nn

from vit_backbones.checks.keys import unknown_findings
from vit_backbones.checks.recipe import class_findings
from vit_backbones.config.explain import describe
from vit_backbones.config.facts import Facts

SHIPPED = sorted(
    str(path.relative_to(ROOT / 'configs'))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in str(path)
)
QUICK = [
    'eomt/eomt_vit-ti_camvid.py',
    'eomt/eomt_vit-ti_nuclei.py',
    'mask2former_vit.py',
    'upernet_vit.py',
    'vit_adapter/upernet_vit-adapter-ti_camvid.py',
    'vitdet/mask-rcnn_vit-ti_nuclei.py',
]
FROZEN = re.compile('linear_vit-b-dinov2_ade20k|plain-mask_vit-[sbl]-dinov3|-frozen_')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights for the variables that name files of them, random ones."""
    folder = tmp_path_factory.mktemp('weights')
    small = 'vit_small_patch14_dinov2'
    models = dict(VIT_TINY='vit_tiny_patch16_224', DINOV2_SMALL=small, CAMVID_DINOV2=small)
    for variable, name in models.items():
        save_file(timm.create_model(name).state_dict(), folder / f'{variable}.safetensors')
    return {variable: str(folder / f'{variable}.safetensors') for variable in models}


@pytest.mark.parametrize(
    'name',
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED],
)
def test_shipped_configs_pass(name, check, weights, monkeypatch):
    for variable, path in weights.items():
        monkeypatch.setenv(variable, path)
    for variable in ('CAMVID_ROOT', 'NUCLEI_ROOT'):
        monkeypatch.delenv(variable, raising=False)
    place = 'model.backbone' + '.backbone' * name.startswith('vit_adapter')
    options = [f'{place}.pretrained=False']
    if FROZEN.search(name):  # random and frozen would be an error
        options.append(f'{place}.frozen_stages=-1')
    code, lines = check(str(ROOT / 'configs' / name), *options)
    assert lines_of(lines)
    assert code == 0


@pytest.mark.parametrize('config', ['seg.py', 'det.py'])
def test_what_is_in_order_has_no_line_but_of_missing_data(config, check):
    code, lines = check(config)
    assert lines_of(lines)
    assert code == 0


WRONG = {
    'strides': (
        'det.py',
        ['model.neck.out_strides=[8,16,32,64]'],
        'error: the neck gives maps of strides [8, 16, 32, 64, 128], but rpn_head.prior_gen',
        'error: the neck gives maps of strides [8, 16, 32, 64], but roi_head.bbox_roi_extractor is',
        'error: the neck gives maps of strides [8, 16, 32, 64], but roi_head.mask_roi_extractor is',
    ),
    'classes': (
        'seg.py',
        ['model.decode_head.num_classes=3'],
        'error: model.decode_head is for 3 classes, but train_dataloader.dataset has 2 (road, sky)'
        ': set model.decode_head.num_classes=2',
    ),
    'classes of a detector': (
        'det.py',
        ['train_dataloader.dataset.metainfo.classes=[cat,dog]'],
        'error: model.roi_head.bbox_head is for 3 classes, but train_dataloader.dataset has 2',
        'error: model.roi_head.mask_head is for 3 classes, but train_dataloader.dataset has 2',
    ),
    'one class without its comma': (
        'seg.py',
        ['train_dataloader.dataset.metainfo.classes=road'],
        "error: train_dataloader.dataset.metainfo.classes is the text 'road': write ('road',)",
    ),
    'a class that the head ignores': (
        'seg.py',
        ['model.decode_head.ignore_index=0'],
        "warning: model.decode_head.ignore_index=0 is the label of class 'road', which is never "
        'learned: leave ignore_index out to learn it',
    ),
    'fp16 under DINOv3': (
        'seg.py',
        [
            'model.backbone.model_name=vit_small_patch16_dinov3',
            'model.decode_head.in_channels=[384,384]',
            'optim_wrapper.type=AmpOptimWrapper',
        ],
        'error: optim_wrapper.dtype=None is float16, in which vit_small_patch16_dinov3 overflows to'
        " NaN: set optim_wrapper.dtype='bfloat16'",
    ),
    'padding': (
        'seg.py',
        ['model.backbone.patch_size=14'],
        'warning: data_preprocessor.size is (64, 96), no multiple of',
    ),
    'frozen without weights': (
        'seg.py',
        ['model.backbone.frozen_stages=2'],
        'error: model.backbone has no weights, and frozen_stages=2 keeps random ones',
    ),
    'find_unused_parameters': (
        'seg.py',
        ['find_unused_parameters=True'],
        'warning: find_unused_parameters=True costs time in every step',
    ),
    'a missing checkpoint': (
        'seg.py',
        ['model.backbone.checkpoint=no.pth', 'model.data_preprocessor.mean=[0.0,0.0,0.0]'],
        "error: model: checkpoint 'no.pth' does not exist",
        'warning: data_preprocessor.mean is [0.0, 0.0, 0.0], but the weights of test_vit expect',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_mistake_has_its_own_lines(case, check):
    config, options, *beginnings = WRONG[case]
    code, lines = check(config, *options)
    assert lines_of(lines, *beginnings)
    assert code == any(each.startswith('error') for each in beginnings)


def test_a_fault_of_both_steps_is_reported_once(check):
    validated = (
        "val_dataloader, val_cfg = train_dataloader, dict()\nval_evaluator = dict(type='IoUMetric')"
    )
    Path('seg.py').write_text(f'{SEGMENTER}\n{validated}')
    lines = check('seg.py', 'model.decode_head.in_index=[0,2]')[1]
    assert lines_of(
        lines,
        'error: decode_head.in_index=[0, 2], but the backbone gives 2 maps',
        'error: a training step on two drawn images fails: IndexError',
    )


def test_two_mistakes_are_both_reported(check):
    code, lines = check('seg.py', *WRONG['classes'][1], *WRONG['padding'][1])
    assert lines_of(lines, WRONG['classes'][2], WRONG['padding'][2])
    assert lines[-1] == 'seg.py: 1 error, 2 warnings'  # the data are not there
    assert code == 1


SIGLIP = """
model['backbone'] = dict(
    type='ViTFeatBackbone', model_name='vit_base_patch16_siglip_224.webli', out_indices=0,
    norm='all', checkpoint='siglip.safetensors',
)
model['decode_head'].update(in_channels=[768], in_index=[0])
model['data_preprocessor'].update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
"""


def test_mean_of_imagenet_under_siglip_is_told(check):
    """The weights are those of the first of its blocks, all that `out_indices` leaves."""
    vit = timm.create_model('vit_base_patch16_siglip_224', depth=1)
    save_file(vit.state_dict(), 'siglip.safetensors')
    Path('siglip.py').write_text(SEGMENTER + SIGLIP)
    code, lines = check('siglip.py')
    assert lines_of(
        lines,
        'warning: data_preprocessor.mean is [123.68, 116.28, 103.53], but the weights of vit_base_',
        'warning: data_preprocessor.std is [5',
    )
    assert code == 0
    code, lines = check('siglip.py', 'model.backbone.model_name=vit_base_patch16_siglip_224')
    assert lines_of(
        lines, 'note: nothing shows which mean and std the weights of vit_base_patch16_'
    )
    assert code == 0


def test_random_weights_are_told_unless_they_are_meant(check):
    Path('random.py').write_text(SEGMENTER.replace('pretrained=False, ', ''))
    code, lines = check('random.py')
    assert lines_of(
        lines, 'warning: model.backbone has no weights and starts from random ones: give'
    )
    assert code == 0
    assert lines_of(check('random.py', 'model.backbone.pretrained=False')[1])


def test_a_whole_model_to_load_brings_weights_of_unknown_mean(check):
    save = dict(state_dict=dict(a=torch.zeros(1)))
    torch.save(save, 'whole.pth')
    Path('whole.py').write_text(SEGMENTER.replace('pretrained=False, ', ''))
    mean = 'model.data_preprocessor.mean=[0.0,0.0,0.0]'
    lines = check('whole.py', 'load_from=whole.pth', mean)[1]
    assert lines_of(lines, "warning: load_from='whole.pth' lacks 54 of 54 tensors of the backbone,")


def test_keys_that_nothing_reads_are_told(check):
    typos = SEGMENTER.replace('batch_size=2', 'batchsize=2').replace('max_epochs', 'max_epoch')
    typos = typos.replace("'LoadAnnotations'", "'LoadAnotations'") + 'find_unused_paramters = True'
    Path('typos.py').write_text(typos)
    code, lines = check('typos.py')
    assert lines_of(
        lines,
        "error: 'batchsize' is not a key of 'train_dataloader'; did you mean 'batch_size'?",
        "error: 'max_epoch' is neither a key of 'train_cfg' nor an argument of EpochBased",
        "error: train_dataloader.dataset.pipeline.1: 'LoadAnotations' is not in the mmseg::trans",
        "warning: 'find_unused_paramters' is not a key of 'the config'; did you mean",
    )
    assert code == 1


@pytest.mark.parametrize(
    ('text', 'advice'),
    [
        (
            "ViTFeatBackbone.__init__() got an unexpected keyword argument 'outstride'",
            "; did you mean 'out_stride'?",
        ),
        (
            "ViTFeatBackbone.__init__() got an unexpected keyword argument 'depth_of_it_all'",
            '; if the config replaces an inherited dict, add _delete_=True to it',
        ),
        (
            'end should be larger than begin, but got begin=2, end=2',
            ': a schedule of param_scheduler begins when the training has ended',
        ),
    ],
)
def test_errors_of_the_libraries_get_their_fix(text, advice):
    assert describe(TypeError(text)).startswith(text + advice)


def test_a_class_of_a_toolbox_without_its_scope_is_told_so():
    import_module('mmdet.datasets')
    config = Config.fromstring(DETECTOR.replace("default_scope = 'mmdet'", ''), '.py')
    lines = [each.text for each in unknown_findings(Facts.of(config))]
    advice = "write 'mmdet.CocoDataset', or default_scope = 'mmdet' for the whole config"
    assert any(line.endswith(f"registry, but in mmdet's: {advice}") for line in lines)


def test_wrong_path_or_option_is_exit_code_2(folder, capsys):
    main = load_tool('check_config').main
    assert main(['sge.py']) == 2
    assert main(['seg.py', '--cfg-options', 'model.bakcbone.depth=1']) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "error: config 'sge.py' does not exist; did you mean seg.py?"
    assert errors[1].startswith("error: --cfg-options model.bakcbone.depth: 'bakcbone' is neither")


def test_a_training_is_refused_by_the_same_line(check, train, capsys):
    option = WRONG['classes'][1]
    write_segments(1)
    _, lines = check('seg.py', *option)
    assert train(['seg.py', '--cfg-options', *option]) == 2
    assert capsys.readouterr().err.splitlines() == [lines[0]]


def test_weights_that_mmengine_downloads_are_left_to_it(check, no_network):
    remote = dict(type='Pretrained', checkpoint='https://example.org/a.pth')
    Path('remote.py').write_text(SEGMENTER + f"model['decode_head']['init_cfg'] = {remote}")
    assert lines_of(check('remote.py')[1])
    assert not no_network


@pytest.mark.parametrize('kind', ["'ViTFeatBackbone'", 'ViTFeatBackbone'])
def test_a_backbone_downloads_no_init_cfg_itself(kind, check):
    start = (
        "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='https://a.org/a.pth')"
    )
    text = SEGMENTER.replace("'ViTFeatBackbone'", kind)
    Path('own.py').write_text(f'from vit_backbones import ViTFeatBackbone\n{text}{start}')
    (line, _) = check('own.py')[1]
    assert line == "error: checkpoint 'https://a.org/a.pth' is no local file: download it first"


@pytest.mark.parametrize(('dtype', 'number'), [('float16', 1), ('bfloat16', 0)])
def test_float16_under_mask2former_is_warned_of(dtype, number, check):
    config = str(ROOT / 'configs/mask2former_vit.py')
    code, lines = check(
        config, 'optim_wrapper.type=AmpOptimWrapper', f'optim_wrapper.dtype={dtype}'
    )
    assert lines_of(lines, *["warning: optim_wrapper.dtype='float16' is float16, in"] * number)
    assert code == 0


class STDCHead(nn.Module):
    num_classes = 2  # edges and the rest


def _panoptic(number):
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.Module()
    model.roi_head.bbox_head.num_classes = number
    model.auxiliary_head = STDCHead()
    loader = dict(dataset=dict(type='CocoPanopticDataset'))
    config = Config(dict(default_scope='mmdet', train_dataloader=loader))
    return [each.text for each in class_findings(Facts.of(config, ('train',)), model)]


def test_heads_of_things_know_no_stuff_and_those_of_edges_neither():
    assert not _panoptic(80)
    (text,) = _panoptic(133)
    assert text.startswith('model.roi_head.bbox_head is for 133 classes, but train_dataloader.data')
    assert 'has 80 (person' in text


def test_a_config_without_a_model_is_told(check):
    Path('base.py').write_text('train_cfg = dict(by_epoch=True, max_epochs=1)')
    assert lines_of(check('base.py')[1], 'error: the config has no model')


def test_low_rank_updates_of_random_weights_are_refused(check):
    pytest.importorskip('peft')
    text = SEGMENTER.replace('pretrained=False, ', 'lora=dict(r=2), ')
    Path('lora.py').write_text(text)
    code, lines = check('lora.py')
    assert lines_of(lines, 'error: model.backbone has no weights, and lora keeps random ones')
    assert code == 1


@pytest.mark.parametrize('option', ['load_from=5', 'builtin_data=True', 'model=[1]'])
def test_a_value_of_a_wrong_type_is_an_error_with_a_line(option, check):
    code, lines = check('seg.py', option)
    assert code == 1
    assert lines[0].startswith('error: ')
