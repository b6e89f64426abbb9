"""Parts that do not fit are refused, naming both sides."""

import re

import pytest
import timm
from checked_configs import errors_of
from mmcv.transforms import Pad
from mmdet.models.necks import FPN
from mmdet.models.roi_heads import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator
from mmengine.config import Config
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmseg.models import SegDataPreProcessor
from torch import nn

import vit_backbones  # noqa: F401  (mmcv's operators come first)
from vit_backbones import SimpleFeaturePyramid, ViTAdapter, ViTFeatBackbone
from vit_backbones.checks.preprocessing import preprocessing_findings
from vit_backbones.checks.recipe import label_findings, metric_findings, pad_findings
from vit_backbones.checks.wiring import padding_findings, wiring_findings
from vit_backbones.config.facts import Facts


class _Decoder(nn.Module):
    in_index = (0, 1)
    in_channels = (32, 32)


class _Segmenter(BaseModel):
    def __init__(self, backbone: nn.Module, neck: nn.Module | None, head: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.neck, self.decode_head = backbone, neck, head

    def forward(self) -> None:
        """Nothing is run here."""


def _vit(**options: object) -> ViTFeatBackbone:
    return ViTFeatBackbone('vit_tiny_patch16_224', **{'out_indices': (0, 1), **options})


def _neck(channels: int = 192, strides: int = 16) -> SimpleFeaturePyramid:
    return SimpleFeaturePyramid(
        [channels] * 2, 32, in_strides=strides, out_strides=(8, 16), norm_cfg=None
    )


def _check_refused(model: nn.Module, message: str) -> None:
    first = errors_of(wiring_findings(model))[0]
    assert re.search(message, first), first


def test_what_fits_passes() -> None:
    assert not [*wiring_findings(_Segmenter(_vit(), _neck(), _Decoder()))]


@pytest.mark.parametrize(
    ('backbone', 'neck', 'message'),
    [
        (dict(out_type='cls'), {}, r"backbone\.out_type='cls' under a neck.*'featmap'"),
        (dict(pool='avg'), {}, r"backbone\.pool='avg' under a neck.*no pool"),
        ({}, dict(channels=64), r'channels \[192, 192\], but neck\.in_channels is \[64, 64\]'),
        ({}, dict(strides=8), r'strides \[16, 16\], but neck\.in_strides is \[8, 8\]'),
        (dict(out_indices=0), {}, r'channels \[192\], but neck\.in_channels is \[192, 192\]'),
    ],
)
def test_neck_that_does_not_fit(backbone: dict, neck: dict, message: str) -> None:
    _check_refused(_Segmenter(_vit(**backbone), _neck(**neck), _Decoder()), message)


def test_heads_that_concatenate_maps_pass() -> None:
    """mmseg keeps the sum of the channels that a config gives."""
    head = _Decoder()
    head.input_transform, head.in_channels = 'resize_concat', 384
    assert not [*wiring_findings(_Segmenter(_vit(), None, head))]
    head.in_channels = 192
    _check_refused(
        _Segmenter(_vit(), None, head), r'channels \[384\], but decode_head\.in_channels'
    )


def test_masked_padding_needs_someone_to_tell_the_sizes() -> None:
    _check_refused(
        _Segmenter(_vit(mask_padding=True), None, _Decoder()), "use type='SizedDetDataPreprocessor'"
    )


def test_what_an_adapter_gives_is_checked() -> None:
    adapter = ViTAdapter(_vit(out_indices='even4'), num_heads=6)
    _check_refused(
        _Segmenter(adapter, None, _Decoder()),
        r'channels \[192, 192\], but decode_head\.in_channels',
    )
    adapter.backbone.out_type = 'cls'
    _check_refused(
        _Segmenter(adapter, None, _Decoder()), r"backbone\.out_type='cls' under a decode_head"
    )


def test_head_that_does_not_fit() -> None:
    _check_refused(
        _Segmenter(_vit(), None, _Decoder()), r'channels \[192, 192\], but decode_head\.in_channels'
    )


def test_out_type_under_a_head_alone() -> None:
    _check_refused(
        _Segmenter(_vit(out_type='raw'), None, _Decoder()), r"out_type='raw' under a decode_head"
    )


def test_other_backbones_pass() -> None:
    assert not [*wiring_findings(_Segmenter(nn.Identity(), _neck(), None))]


def test_auxiliary_heads_are_checked_too() -> None:
    model = _Segmenter(_vit(), _neck(), _Decoder())
    model.auxiliary_head = nn.ModuleList([_Decoder(), _Decoder()])
    model.auxiliary_head[1].in_channels = (64, 32)
    _check_refused(model, r'channels \[32, 32\], but auxiliary_head.in_channels')


def test_anchors_of_other_strides_are_refused() -> None:
    model = _Segmenter(_vit(), _neck(), None)
    model.rpn_head = nn.Module()
    model.rpn_head.prior_generator = AnchorGenerator([4, 8, 16], [1.0], [8])
    _check_refused(model, r'strides \[8, 16\], but rpn_head.prior_generator is')


def _with_preprocessor(mean: float, name: str = 'vit_base_patch16_siglip_224') -> _Segmenter:
    vit = ViTFeatBackbone.from_module(timm.create_model(name, depth=1, num_classes=0))
    model = _Segmenter(vit, None, None)
    model.data_preprocessor = ImgDataPreprocessor([mean] * 3, [127.5] * 3)
    return model


def _mask2former(neck: nn.Module | None) -> _Segmenter:
    model = _Segmenter(_vit(), neck, None)
    model.panoptic_head = nn.Module()
    model.panoptic_head.pixel_decoder = nn.Module()
    model.panoptic_head.pixel_decoder.strides = [4, 8]
    return model


def test_equal_strides_under_mask2former_are_warned_of() -> None:
    (found,) = wiring_findings(_mask2former(None))
    assert found.level == 'warning'
    assert found.text.startswith('the backbone gives maps of strides [16, 16] to a panoptic_head')


def test_strides_of_a_neck_under_mask2former_are_refused() -> None:
    _check_refused(_mask2former(_neck()), r'strides \[8, 16\], but panoptic_head.pixel_decoder')


def test_mean_that_the_weights_do_not_expect_is_warned_of() -> None:
    (found,) = preprocessing_findings(_with_preprocessor(123.7))
    assert found.level == 'warning'
    assert found.text.startswith('data_preprocessor.mean is [123.7')
    assert 'weights of VisionTransformer expect [127.5' in found.text


def test_mean_that_the_weights_expect_is_not() -> None:
    assert not [*preprocessing_findings(_with_preprocessor(127.5))]


def test_random_weights_expect_nothing() -> None:
    model = _with_preprocessor(0.0)
    model.backbone = _vit()
    assert not [*preprocessing_findings(model)]
    assert [*preprocessing_findings(model, expects=True)]


def test_every_mistake_is_found() -> None:
    """Channels and strides of the neck, and the head behind it."""
    head = _Decoder()
    head.in_channels = (64, 64)
    found = [*wiring_findings(_Segmenter(_vit(), _neck(64, 8), head))]
    assert [each.text.split(', but ')[1].split(' is ')[0] for each in found] == [
        'neck.in_channels',
        'neck.in_strides',
        'decode_head.in_channels',
    ]


def _two_stages(neck: nn.Module, strides: list[int]) -> _Segmenter:
    model = _Segmenter(_vit(), neck, None)
    model.roi_head = nn.Module()
    model.roi_head.bbox_roi_extractor = SingleRoIExtractor(
        dict(type='RoIAlign', output_size=7), 32, strides
    )
    return model


def test_strides_of_regions_are_compared_with_the_first_maps() -> None:
    assert not [*wiring_findings(_two_stages(_neck(), [8]))]
    (found,) = wiring_findings(_two_stages(_neck(), [4, 8]))
    assert 'strides [8, 16], but roi_head.bbox_roi_extractor is [4, 8]' in found.text


def test_an_fpn_keeps_the_strides_of_its_inputs() -> None:
    model = _two_stages(FPN([192, 192], 32, num_outs=3), [16, 16, 32])
    assert not [*wiring_findings(model)]
    (found,) = wiring_findings(_two_stages(FPN([192, 192], 32, num_outs=2), [4, 8]))
    assert 'the neck gives maps of strides [16, 16], but roi_head' in found.text


def _padded(options: dict, **sizes: object) -> _Segmenter:
    model = _Segmenter(_vit(**options), None, None)
    model.data_preprocessor = nn.Module()
    vars(model.data_preprocessor).update(sizes)
    return model


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        (dict(pad_size_divisor=32), r'pad_size_divisor is 32, no multiple of .* 14x14'),
        (dict(size=(512, 518)), r'size is \(512, 518\), no multiple'),
        (dict(size=None, size_divisor=16), 'size_divisor is 16'),
    ],
)
def test_padding_that_is_no_multiple_of_the_patch(sizes: dict, message: str) -> None:
    (found,) = padding_findings(_padded(dict(patch_size=14), **sizes))
    assert found.level == 'warning'
    assert re.search(message, found.text)


@pytest.mark.parametrize(
    ('options', 'sizes'),
    [
        ({}, dict(pad_size_divisor=32)),
        ({}, dict(pad_size_divisor=1)),
        ({}, dict(size=(64, 96))),
        (dict(patch_size=14, out_stride=16), dict(pad_size_divisor=32)),
    ],
)
def test_padding_that_suits(options: dict, sizes: dict) -> None:
    assert not [*padding_findings(_padded(options, **sizes))]


def test_models_of_one_size_get_no_other() -> None:
    model = _padded({}, size=(64, 96))
    beit = timm.create_model('beit_base_patch16_224', depth=1)
    model.backbone = ViTFeatBackbone.from_module(beit)
    (found,) = padding_findings(model)
    assert found.level == 'error'
    assert 'only images of 224x224, and data_preprocessor.size is (64, 96)' in found.text
    model.data_preprocessor.size = (220, 224)
    assert not [*padding_findings(model)]


@pytest.mark.parametrize(
    ('count', 'channels', 'wrong'), [(3, 3, False), (1, 4, False), (4, 4, False), (3, 4, True)]
)
def test_means_go_with_the_channels(count, channels, wrong):
    model = _Segmenter(_vit(in_channels=channels), None, _Decoder())
    model.data_preprocessor = SegDataPreProcessor(mean=[1.0] * count, std=[1.0] * count)
    assert errors_of(preprocessing_findings(model)) == wrong * [
        f'data_preprocessor.{name} has 3 values, and the backbone takes 4 channels: give one for '
        f'each'
        for name in ('mean', 'std')
    ]


_LINE = (
    'warning: {}_dataloader.dataset.pipeline.{} is Pad, whose padding counts as image: '
    'backbone.mask_padding=True does not mask it; leave Pad out, the data_preprocessor pads'
)


@pytest.mark.parametrize(
    ('pipeline', 'place'),
    [
        ([dict(type='LoadImageFromFile'), dict(type='Pad', size_divisor=32)], '1'),
        ([dict(type='mmdet.Pad', size=(64, 64))], '0'),
        ([dict(type='RandomApply', transforms=[dict(type='Resize'), dict(type=Pad)])],
         '0.transforms.1'),
        ([dict(type='TestTimeAug', transforms=[[dict(type='Pad')], [dict(type='Resize')]])],
         '0.transforms.0.0'),
        ([dict(type='RandomCrop', crop_size=(64, 64)), dict(type='PackSegInputs')], None),
        ([dict(type='PadNothing')], None),
    ],
)  # fmt: skip
@pytest.mark.parametrize('split', ['train', 'val'])
def test_pad_switches_mask_padding_off(pipeline, place, split):
    loader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))
    facts = Facts.of(Config({f'{split}_dataloader': loader}))
    model = _Segmenter(_vit(mask_padding=True), None, _Decoder())
    expected = [] if place is None else [_LINE.format(split, place)]
    lines = [str(each).replace('dataset.dataset', 'dataset') for each in pad_findings(facts, model)]
    assert lines == expected
    model.backbone = _vit()
    assert list(pad_findings(facts, model)) == []


@pytest.mark.parametrize(
    ('split', 'pack', 'number'),
    [('train', 'PackSegInputs', 0), ('val', 'PackSegInputs', 1), ('test', 'mmseg.PackSegInputs', 1),
     ('val', 'PackDetInputs', 0)],
)  # fmt: skip
@pytest.mark.parametrize('pad', ['Pad', 'PadWithBlack'])
def test_mmseg_never_takes_the_padding_of_a_test_pipeline_off(pad, split, pack, number):
    pipeline = [dict(type='Resize'), dict(type=pad, size=(64, 64)), dict(type=pack)]
    facts = Facts.of(Config({f'{split}_dataloader': dict(dataset=dict(pipeline=pipeline))}))
    found = pad_findings(facts, _Segmenter(_vit(), None, _Decoder()))
    assert list(map(str, found)) == number * [
        f'warning: {split}_dataloader.dataset.pipeline.1 is {pad}, and mmseg stretches '
        f'predictions of padded images to the size of the file: leave {pad} out, and give '
        f'model.data_preprocessor test_cfg=dict(size_divisor=...), whose padding it takes off'
    ]


_LABELS, _RESIZE = dict(type='LoadAnnotations', with_bbox=True), dict(type='mmdet.Resize')


@pytest.mark.parametrize(
    ('pipeline', 'evaluator', 'number'),
    [
        ([_LABELS, _RESIZE], dict(type='VOCMetric'), 1),
        ([_LABELS, _RESIZE], [dict(type='CocoMetric'), dict(type='mmdet.VOCMetric')], 1),
        ([_LABELS, _RESIZE], dict(type='Evaluator', metrics=[dict(type='VOCMetric')]), 1),
        ([_RESIZE, _LABELS], dict(type='VOCMetric'), 0),
        ([_RESIZE], dict(type='VOCMetric'), 0),
        ([_LABELS, _RESIZE], dict(type='CocoMetric'), 0),  # it reads the file
    ],
)
def test_boxes_that_a_metric_takes_from_the_pipeline_keep_the_size_of_the_file(
    pipeline, evaluator, number
):
    loader = dict(dataset=dict(type='VOCDataset', pipeline=pipeline))
    facts = Facts.of(Config(dict(val_dataloader=loader, val_evaluator=evaluator)))
    assert list(map(str, metric_findings(facts))) == number * [
        'warning: val_dataloader.dataset.pipeline resizes annotations, and VOCMetric compares them '
        'with predictions in pixels of the file: move LoadAnnotations behind Resize'
    ]


@pytest.mark.parametrize(
    ('types', 'number'),
    [
        (('LoadImageFromFile', 'mmseg.PackSegInputs'), 1),
        (('mmdet.LoadImageFromFile', 'RandomFlip', 'PackDetInputs'), 1),
        (('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs'), 0),
        (('LoadImageFromFile', 'LoadEmptyAnnotations', 'PackDetInputs'), 0),
        (('LoadImageAndMask', 'PackSegInputs'), 0),
        (('LoadImageFromFile', 'PackToy'), 0),
    ],
)
def test_a_training_loads_labels(types, number):
    pipeline = [dict(type=each) for each in types]
    loader = dict(dataset=dict(pipeline=pipeline))
    facts = Facts.of(Config(dict(train_dataloader=loader, val_dataloader=loader)))
    assert list(map(str, label_findings(facts))) == number * [
        'warning: train_dataloader.dataset.pipeline loads no labels: add LoadAnnotations behind '
        'LoadImageFromFile'
    ]
