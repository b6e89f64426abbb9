"""Heads of mmseg with one output: their losses, their threshold, and the classes they are for."""

import pytest
from checked_configs import ROOT, SEGMENTER
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from vit_backbones.checks.one_output import one_output_findings
from vit_backbones.checks.recipe import class_findings
from vit_backbones.config.facts import Facts

SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
HEAD = dict(num_classes=2, out_channels=1, threshold=0.5, loss_decode=SIGMOID)
FIX = (
    "take dict(type='CrossEntropyLoss', use_sigmoid=True) or dict(type='LovaszLoss', "
    "loss_type='binary', reduction='none'), or leave out_channels=1 out"
)
ONE = 'error: model.decode_head.out_channels=1'


@pytest.fixture
def found(tmp_path):
    """Findings on the segmenter with changes of its head and of itself."""

    def find(head, *, classes=('road', 'sky'), splits=('train',), **model):
        path = tmp_path / 'seg.py'
        path.write_text(SEGMENTER)
        config = Config.fromfile(path)
        init_default_scope('mmseg')
        config.model.decode_head.update(head)
        config.model.update(model)
        config.train_dataloader.dataset.metainfo.classes = classes
        facts, built = Facts.of(config, splits), MODELS.build(config.model)
        checks = (class_findings, one_output_findings)
        return [str(each) for check in checks for each in check(facts, built)]

    return find


LEARNS = {
    'sigmoid': SIGMOID,
    'hinge': dict(type='LovaszLoss', loss_type='binary', reduction='none'),
    'both': [SIGMOID, dict(type='LovaszLoss', loss_type='binary', reduction='none')],
    'weighted': SIGMOID | dict(class_weight=[3.0], loss_weight=0.4, avg_non_ignore=True),
    'one that fails on a CPU': dict(type='FocalLoss'),
}


@pytest.mark.parametrize('case', LEARNS)
def test_a_loss_that_learns_has_no_line(case, found):
    assert found(HEAD | dict(loss_decode=LEARNS[case])) == []


def test_two_outputs_are_left_to_their_losses(found):
    assert found(dict(num_classes=2, loss_decode=dict(type='DiceLoss'))) == []


FAULTS = {
    'softmax': (dict(type='CrossEntropyLoss'), 'CrossEntropyLoss takes no such output'),
    'dice': (dict(type='DiceLoss'), 'DiceLoss falls as objects are missed'),
    'dice without sigmoid': (
        dict(type='DiceLoss', use_sigmoid=False),
        'DiceLoss falls as objects are missed',
    ),
    'tversky': (dict(type='TverskyLoss'), 'TverskyLoss is equal for any output'),
    'hinge of classes': (
        dict(type='LovaszLoss', reduction='none'),
        'LovaszLoss takes no such output',
    ),
    'ohem': (dict(type='OhemCrossEntropy'), 'OhemCrossEntropy takes no such output'),
    'second of two': ([SIGMOID, dict(type='DiceLoss')], 'DiceLoss falls as objects are missed'),
}


@pytest.mark.parametrize('case', FAULTS)
def test_a_loss_that_does_not_learn_is_an_error(case, found):
    loss, fault = FAULTS[case]
    assert found(HEAD | dict(loss_decode=loss)) == [f'{ONE}, and its {fault}: {FIX}']


def test_auxiliary_heads_are_tried_too(found):
    head = dict(
        type='FCNHead', in_channels=64, in_index=0, channels=8, num_convs=1, num_classes=2,
        norm_cfg=dict(type='GN', num_groups=1), out_channels=1,
        loss_decode=dict(type='DiceLoss'),
    )  # fmt: skip
    right = head | dict(loss_decode=SIGMOID)
    assert found(HEAD, auxiliary_head=right) == []
    line = f', and its DiceLoss falls as objects are missed: {FIX}'
    assert found(HEAD, auxiliary_head=head) == [f'error: model.auxiliary_head.out_channels=1{line}']
    assert found(HEAD, auxiliary_head=[right, head]) == [
        f'error: model.auxiliary_head.1.out_channels=1{line}'
    ]


def test_a_test_asks_no_loss(found):
    assert found(HEAD | dict(loss_decode=dict(type='DiceLoss')), splits=('test',)) == []


def test_a_missing_threshold_is_warned_of(found):
    line = 'warning: model.decode_head.out_channels=1 without a threshold: mmseg takes 0.3; set '
    assert found(HEAD | dict(threshold=None)) == [f'{line}threshold=0.5 for the likelier class']


@pytest.mark.parametrize('threshold', [0, 1, 127, '0.5'])
def test_a_threshold_is_a_probability(threshold, found):
    assert found(HEAD | dict(threshold=threshold)) == [
        f'error: model.decode_head.threshold={threshold!r} is compared with a probability: set it '
        f'between 0 and 1, such as 0.5'
    ]


def test_one_output_is_for_two_classes(found):
    line = f'{ONE} is for two classes, and num_classes is 3: leave it out'
    assert found(HEAD | dict(num_classes=3), classes=('a', 'b', 'c')) == [line]


SINGLE = (
    "is for 1 class, the only one it can find: name the background too, as in classes=('background'"
    ", 'object'), and set num_classes=2"
)
BINARY = (
    ", out_channels=1, threshold=0.5 and loss_decode=dict(type='CrossEntropyLoss', "
    'use_sigmoid=True)'
)


@pytest.mark.parametrize('classes', [('sky',), ('road', 'sky')])
@pytest.mark.parametrize('loss', [SIGMOID, dict(type='CrossEntropyLoss')])
def test_a_head_for_one_class_gets_the_whole_fix(loss, classes, found):
    head = dict(num_classes=1, loss_decode=loss)
    line = f'error: model.decode_head {SINGLE}{BINARY}'
    assert found(head, classes=classes) == [line]


def test_an_auxiliary_head_for_one_class_is_found(found):
    head = dict(
        type='FCNHead', in_channels=64, in_index=0, channels=8, num_convs=1, num_classes=1,
        norm_cfg=dict(type='GN', num_groups=1),
    )  # fmt: skip
    line = f'error: model.auxiliary_head {SINGLE}{BINARY}'
    assert found(HEAD, auxiliary_head=head) == [line]


def test_queries_have_no_single_output():
    config = Config.fromfile(ROOT / 'configs/mask2former/mask2former_vit-ti_camvid.py')
    head = nn.Module()  # the one of Mask2Former has these and no `loss_decode`
    head.num_classes = head.out_channels = 1
    model = nn.Module()
    model.decode_head = head
    facts = Facts.of(config, ('train',))
    assert [each.text for each in one_output_findings(facts, model)] == [
        f'model.decode_head {SINGLE}'
    ]


def test_softmax_over_one_output_is_found_before_a_step(check):
    code, lines = check('seg.py', 'model.decode_head.out_channels=1')
    assert code == 1
    assert lines[0] == f'{ONE}, and its CrossEntropyLoss takes no such output: {FIX}'
