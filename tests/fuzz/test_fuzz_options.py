"""Any `key=value` options for a config."""

import pytest
from fuzzing import Fuzz, one
from hypothesis import strategies as st
from mmengine.config import Config

from vit_backbones.config import load_config

CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['vit_backbones.mmdet'])
lr = 1e-4
model = dict(
    type='MaskRCNN',
    backbone=dict(type='ViTFeatBackbone', model_name='test_vit', out_indices=(1, 3)),
    neck=dict(type='SimpleFeaturePyramid', in_channels=64, norm_cfg=dict(type='LN2d')),
    test_cfg=dict(rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5))),
)
train_dataloader = dict(
    batch_size=2, dataset=dict(type='CocoDataset', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
    ]),
)
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=lr), paramwise_cfg=dict(custom_keys={}))
param_scheduler = [dict(type='LinearLR', start_factor=0.1), dict(type='MultiStepLR')]
custom_hooks = [dict(type='EMAHook')]
"""
KEYS = one(
    *('model.backbone.out_indices', 'model.backbone.model_name', 'model.neck.norm_cfg'),
    *('model.neck.in_channels', 'model.test_cfg.rcnn.score_thr', 'train_cfg.max_epochs'),
    *('train_dataloader.batch_size', 'train_dataloader.dataset.pipeline.1.scale', 'work_dir'),
    *('param_scheduler.0.start_factor', 'param_scheduler.1.milestones', 'optim_wrapper.optimizer'),
    *('custom_hooks', 'custom_hooks.0.type', 'optim_wrapper.optimizer.lr', 'default_hooks', 'seed'),
    *('optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult', 'randomness.seed', 'resume'),
    *('train_dataloader.dataset.indices', 'model.backbone.drop_path_rate', 'load_from'),
)
WRONG_KEYS = one(
    *(
        '',
        '.',
        '..',
        'lr',
        'model.',
        '.model',
        'model..backbone',
        'modle.backbone',
        'param_scheduler',
    ),
    *('param_scheduler.2.x', 'param_scheduler.-1.x', 'param_scheduler.x', 'model.backbone.0'),
    *(
        'model.type.x',
        'train_cfg.max_epochs.x.y',
        'model.backbone.model_name.0',
        ' model',
        'model ',
    ),
    *(
        'train_dataloader.dataset.pipeline.\u0661.scale',
        'train_dataloader.dataset.pipeline.².scale',
    ),
    *(
        '_base_',
        '_delete_',
        'custom_imports',
        'default_scope',
        '__class__',
        'model.__dict__',
        'ключ',
    ),
    *(
        'custom_hooks.0',
        'custom_hooks.00.type',
        'model.backbone._delete_',
        'keys',
        'items',
        'a' * 999,
    ),
    *(
        'model.keys',
        '.'.join('a' * 500),
        'model.backbone.' + '.'.join('b' * 99),
        '\n',
        'a\nb',
        '\0',
    ),
    *('model', 'model.backbone', 'train_dataloader.dataset.pipeline', 'env_cfg', '--cfg-options'),
)
LITERALS = one(
    *('1', '0', '-1', '2.5', '1e-4', 'True', 'none', 'None', 'null', 'nan', 'inf', '-inf', '1_000'),
    *(
        'test_vit',
        '"quoted"',
        "'x'",
        'a b',
        'x=y',
        '=',
        '==',
        '[2,5]',
        '(1,2)',
        '[]',
        '()',
        '[(1,2)]',
    ),
    *(
        '[1,[2,[3]]]',
        'dict(type="SGD",lr=1)',
        '{}',
        "{'a': 1}",
        "[dict(type='EMAHook')]",
        '1,2',
        ',',
    ),
    *('dict(lr_mult=0.1)', '0x10', '1e999', '1' * 5000, '1j', 'b"x"', '...', '[1, 2]', '1,(2,3)'),
)
WRONG_LITERALS = one(
    *(
        '',
        '[',
        ']',
        ')',
        '(',
        '[1,2',
        '(1,2))',
        '[)',
        '{',
        '}',
        '{1',
        'dict(',
        'dict()x',
        "{'a'",
        '[[]',
    ),
    *(
        'dict(1)',
        'dict(**x)',
        'dict(a=b)',
        'dict(a=1',
        '{[]: 1}',
        '{{}}',
        '{1, 2}',
        '{...}',
        "{'a': x}",
    ),
    *(
        '[' * 200 + ']' * 200,
        '(' * 3000 + ')' * 3000,
        '{' * 200 + '}' * 200,
        '[' * 5000,
        '{"a":' * 150,
    ),
    *(
        'dict(a=' * 120 + '1' + ')' * 120,
        '{1:' + '-' * 5000 + '1}',
        'dict(a=1,a=2)',
        '\n',
        '[\n1]',
        '\0',
    ),
    *(
        '{\0}',
        "dict(a='\ud800')",
        '\ud800',
        '{"x": "\\ud800"}',
        "{'a':1}\n{'b':2}",
        '{{1:2}:3}',
        'dict(a=1j)',
    ),
    *(
        'dict(a=' + '9' * 5000 + ')',
        '{1:2}[1]',
        'dict.x(1)',
        '{lambda: 1}',
        "{f'{x}': 1}",
        '{*x}',
        '{**{}}',
    ),
    *(
        "__import__('os')",
        'dict(__class__=1)',
        'dict(_delete_=True)',
        "dict(type='No')",
        '{1: 2}',
        '{None: 1}',
    ),
)


def texts():
    return st.text(st.characters(exclude_categories=()), max_size=12)


@st.composite
def options(draw):
    """Up to three options, most of keys that are read."""
    found = []
    for _ in range(draw(one(1, 1, 1, 2, 3))):
        kind = draw(st.integers(0, 9))
        key = draw(WRONG_KEYS) if kind == 0 else draw(texts()) if kind == 1 else draw(KEYS)
        value = draw(WRONG_LITERALS) if kind in (2, 3) else draw(texts() if kind == 4 else LITERALS)
        found.append(draw(one(f'{key}={value}', *[f'{key}={value}'] * 15, key, value)))
    return found


def attempt_in(folder):
    path = folder / 'config.py'
    path.write_text(CONFIG)
    before = sorted(folder.rglob('*'))

    def attempt(drawn):
        config = load_config(path, drawn)
        assert sorted(folder.rglob('*')) == before
        assert isinstance(config, Config)
        text = config.pretty_text
        last = dict(option.partition('=')[::2] for option in drawn)
        for key, value in last.items():
            if value.isascii() and value.isdigit() and len(value) < 100:
                assert value_at(config, key) == int(value), text

    return attempt


def value_at(node, key):
    for part in key.split('.'):
        node = node[int(part) if isinstance(node, (list, tuple)) else part]
    return node


def test_any_options(tmp_path):
    assert Fuzz(attempt_in(tmp_path)).run(options()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_options(tmp_path):
    assert Fuzz(attempt_in(tmp_path)).run(options(), slow=True) == []
