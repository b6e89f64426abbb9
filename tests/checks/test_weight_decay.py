"""Options of weight decay that MMEngine's constructor drops are reported, and no others."""

import copy
from pathlib import Path

import pytest
from checked_configs import SEGMENTER
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import vit_backbones  # noqa: F401
from vit_backbones.checks.weight_decay import weight_decay_findings
from vit_backbones.config.facts import Facts

TENTH = dict(backbone=dict(lr_mult=0.1))
OURS = (
    "write constructor='ViTLayerDecayConstructor' and add decay_rate=1.0 to paramwise_cfg, which "
    'keep both'
)
LONGER = 'give them longer custom_keys with a decay_mult'


def built(paramwise, constructor=None, backbone=None):
    cfg = Config.fromstring(SEGMENTER, '.py')
    cfg.model.backbone.update(backbone or {})
    cfg.optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05), paramwise_cfg=paramwise
    )
    if constructor:
        cfg.optim_wrapper.constructor = constructor
    init_default_scope('mmseg')
    return cfg, MODELS.build(copy.deepcopy(cfg.model))


def lines(cfg, model):
    return [str(each) for each in weight_decay_findings(Facts.of(cfg), model)]


@pytest.mark.parametrize(
    ('options', 'number', 'first', 'fix'),
    [
        (dict(norm_decay_mult=0), 18, 'norm1.weight', OURS),
        (dict(bias_decay_mult=0.0), 26, 'proj.bias', OURS),
        (dict(norm_decay_mult=0, bias_decay_mult=0), 35, 'proj.bias', OURS),
        (dict(flat_decay_mult=0.5), 35, 'proj.bias', LONGER),
    ],
)
def test_what_the_keys_match_decays_and_is_counted(options, number, first, fix):
    cfg, model = built(dict(options, custom_keys=TENTH))
    (line,) = lines(cfg, model)
    names = ' and '.join(sorted(options))
    start = f'warning: optim_wrapper.paramwise_cfg: {names} do not reach {number} parameters that '
    assert line.startswith(f'{start}custom_keys match, and which decay in full (backbone.vit.')
    assert first in line
    assert line.endswith(f'...): {fix}')
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decays = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    inside = [decays[id(p)] for p in model.backbone.parameters()]
    assert inside == [0.05] * len(inside)


def test_the_fix_is_one():
    cfg, model = built(
        dict(norm_decay_mult=0, bias_decay_mult=0, decay_rate=1.0, custom_keys=TENTH),
        'ViTLayerDecayConstructor',
    )
    assert lines(cfg, model) == []
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {
        id(p): (g['lr'], g['weight_decay']) for g in optimizer.param_groups for p in g['params']
    }
    found = {rates[id(p)] for n, p in model.backbone.named_parameters() if p.ndim == 1}
    assert list(found) == [(pytest.approx(1e-5), 0.0)]


@pytest.mark.parametrize(
    ('paramwise', 'backbone'),
    [
        (dict(norm_decay_mult=0), {}),
        (dict(custom_keys=TENTH), {}),
        (dict(norm_decay_mult=1, custom_keys=TENTH), {}),
        # stated, as in the Mask2Former of mmdet and mmseg
        (dict(norm_decay_mult=0, custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=1.0))), {}),
        (dict(norm_decay_mult=0, custom_keys=dict(query_embed=dict(lr_mult=1))), {}),
        (dict(norm_decay_mult=0, custom_keys=TENTH), dict(frozen_stages=4, norm='none')),
    ],
)
def test_no_false_alarm(paramwise, backbone):
    assert lines(*built(paramwise, backbone=backbone)) == []


def test_a_model_without_a_vit_gets_advice_that_it_can_follow():
    cfg, _ = built(dict(norm_decay_mult=0, custom_keys=TENTH))
    model = nn.ModuleDict(dict(backbone=nn.BatchNorm2d(3)))
    (line,) = lines(cfg, model)
    assert line.endswith(
        f'2 parameters that custom_keys match, and which decay in full (backbone.'
        f'weight, backbone.bias): {LONGER}'
    )


def test_the_check_of_a_config_shows_it(check):
    more = "\noptim_wrapper['optimizer']['weight_decay'] = 0.05\n"
    more += f"optim_wrapper['paramwise_cfg'] = dict(norm_decay_mult=0, custom_keys={TENTH})"
    Path('seg.py').write_text(SEGMENTER + more)
    code, found = check('seg.py')
    shown = [line for line in found if 'norm_decay_mult do not reach 18 parameters' in line]
    assert (code, len(shown)) == (0, 1)
