"""The parameter groups of every recipe: `python tests/test_parameter_groups.py` writes them anew.

A change of `parameter_groups.json` is a change of published settings: compare it with the header.
"""

import json
import re
from collections import Counter, defaultdict
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings

import vit_backbones  # noqa: F401 (mmcv's operators)
from vit_backbones.config.loading import load_config
from vit_backbones.terminal import silence

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
GOLDEN = Path(__file__).with_suffix('.json').with_stem('parameter_groups')
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts
)
# All of it decays, as in the sources
UNTOUCHED = [
    'linear_probe/linear_vit-b-dinov2_ade20k.py',
    *(n for n in NAMES if n.startswith(('eomt/', 'plain_mask/', 'vit_adapter/mask2former'))),
]
TENTHS = [
    'mask2former/mask2former_vit-ti_nuclei.py',
    'upernet/upernet_vit-ti_camvid.py',
    'vit_adapter/upernet_vit-adapter-ti_camvid.py',
]


@cache
def rates(name):
    """(learning rate, weight decay) of each parameter that learns, by its name."""
    cfg = deepcopy(load_config(CONFIGS / name))
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    vit = cfg.model.backbone.get('backbone', cfg.model.backbone)
    vit.update(pretrained=False, checkpoint=None)
    with torch.device('meta'), silence():
        model = MODELS.build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    given = {id(p): g for g in optimizer.param_groups for p in g['params']}
    return {
        key: (float(f'{given[id(p)]["lr"]:.4g}'), given[id(p)]['weight_decay'])
        for key, p in model.named_parameters()
        if p.requires_grad
    }


def summary(name):
    """Numbers of tensors by learning rate and weight decay, and the rates of three."""
    found = rates(name)
    counts = Counter(found.values())
    groups = defaultdict(list)
    for rate, decay in sorted(counts):
        groups[f'{rate:g}'].append(f'{counts[rate, decay]} decay by {decay:g}')
    inside = [key for key in found if '.vit.' in key]
    shown = [key for key in inside if key.endswith(('vit.pos_embed', 'patch_embed.proj.weight'))]
    shown += [key for key in inside if key.endswith('norm1.weight')][-1:]
    named = {key: 'lr {:g}, decay {:g}'.format(*found[key]) for key in shown}
    return {rate: ', '.join(parts) for rate, parts in groups.items()} | named


@pytest.mark.parametrize('name', NAMES)
def test_parameter_groups_are_the_known_ones(name):
    assert summary(name) == json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize('name', [name for name in NAMES if name not in UNTOUCHED])
def test_biases_and_norms_of_every_part_have_no_weight_decay(name):
    """What MMEngine's constructor drops for the parameters that `custom_keys` match."""
    decayed = {key for key, (_, decay) in rates(name).items() if decay}
    assert decayed
    assert not {
        key for key in decayed if re.search(r'(^|[._])(bias|norm\w*\.weight|gn\.\w+)$', key)
    }


@pytest.mark.parametrize('name', TENTHS)
def test_a_loaded_backbone_learns_at_a_tenth_of_the_rate(name):
    found = {key: rate for key, (rate, _) in rates(name).items() if 'conv_seg' not in key}
    inside = {rate for key, rate in found.items() if '.vit.' in key}
    outside = {float(f'{0.1 * rate:g}') for key, rate in found.items() if '.vit.' not in key}
    assert len(inside) == 1
    assert inside == outside


if __name__ == '__main__':
    GOLDEN.write_text(json.dumps({name: summary(name) for name in NAMES}, indent=1) + '\n')
