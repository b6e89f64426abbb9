"""What a checkpoint may differ in from the config that tests or resumes it."""

import copy
import re
from functools import partial

import pytest
import torch
from checked_configs import SEGMENTER
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from toy_task import write_toy_config

from vit_backbones import ViTFeatBackbone
from vit_backbones.checks.preflight import fit_findings, load_from_findings
from vit_backbones.checks.resuming import RECORD, described_optimizer, resume_findings
from vit_backbones.config.facts import Facts
from vit_backbones.models.random_weights import redraw
from vit_backbones.models.trained import load_trained
from vit_backbones.sources.timm_build import build_timm

DECAY = dict(constructor='ViTLayerDecayConstructor', paramwise_cfg=dict(decay_rate=0.5))
PARAMWISE = dict(
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)


def config(backbone=None, **optim_wrapper):
    cfg = Config.fromstring(SEGMENTER, '.py')
    cfg.model.backbone.update(backbone or {})
    cfg.optim_wrapper.update(optim_wrapper)
    init_default_scope('mmseg')
    return cfg


def built(cfg):
    return redraw(MODELS.build(copy.deepcopy(cfg.model)))


def trained(cfg, folder, *, recorded=True, steps=1):
    """A checkpoint of a training, after a step without data."""
    model, path = built(cfg), folder / 'epoch_1.pth'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for _ in range(steps):
        wrapper.update_params(sum(p.square().sum() for p in model.parameters()))
    record = {RECORD: described_optimizer(model, wrapper.optimizer)} if recorded else {}
    content = dict(state_dict=model.state_dict(), optimizer=wrapper.state_dict(), meta=record)
    torch.save(content, path)
    return str(path)


def lines(cfg, path):
    return [(each.level, each.text) for each in resume_findings(built(cfg), cfg, path)]


def refusal(cfg, path):
    """The difference that stops a resume."""
    ((level, text),) = lines(cfg, path)
    assert level == 'error'
    start = re.escape(
        f'; resume with the config of its training, or start from its weights by '
        f'options=load_from={path}'
    )
    found = re.fullmatch(f'checkpoint {re.escape(repr(path))} cannot be resumed: (.*){start}', text)
    assert found, text
    return found[1]


def saved(model, folder, change=dict):
    path = str(folder / 'model.pth')
    torch.save(dict(state_dict=change(model.state_dict())), path)
    return path


def misfits(model, path, **options):
    return [(each.level, each.text) for each in fit_findings(model, path, **options)]


def timm_of(**more):
    return partial(build_timm, more=more)


def started(path, backbone=None, **options):
    cfg = config(backbone)
    cfg.merge_from_dict(dict(load_from=path, **options))
    found = load_from_findings(Facts.of(cfg), built(cfg))
    return [(each.level, each.text) for each in found]


SMALL = dict(depth=2, embed_dim=24, num_heads=3)
TABLES = [
    dict(),
    dict(use_rel_pos=True, window_size=2, window_block_indexes=[0]),
    dict(use_rel_pos=True),
    dict(with_cls_token=False, mask_padding=True),
    dict(model_name='beit_base_patch16_224', source=timm_of(**SMALL)),
    dict(model_name='swinv2_cr_tiny_224', source=timm_of(embed_dim=24, depths=(1, 1, 1, 1))),
    dict(model_name='vit_relpos_small_patch16_224', source=timm_of(**SMALL)),
    dict(model_name='convit_tiny', source=timm_of(**SMALL)),
]


@pytest.mark.parametrize('options', TABLES)
def test_what_loading_resamples_fits(options, tmp_path):
    """The check asks the model, and leaves it as it is."""
    small, large = (
        ViTFeatBackbone(**(dict(model_name='test_vit') | options), img_size=size)
        for size in (128, 192)
    )
    path = saved(nn.ModuleDict(dict(backbone=redraw(small))), tmp_path)
    whole = nn.ModuleDict(dict(backbone=redraw(large)))
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    assert misfits(whole, path) == []
    after = whole.state_dict()
    assert {n for n in before if torch.equal(before[n], after[n])} == before.keys()
    assert whole.load_state_dict(torch.load(path)['state_dict'], strict=False).missing_keys == []


LORA = dict(lora=dict(r=2))


@pytest.mark.parametrize(
    ('backbone', 'change'),
    [
        (None, dict),
        (None, lambda state: {n: t for n, t in state.items() if n.startswith('backbone.vit.')}),
        (None, lambda state: {f'module.{n}': t for n, t in state.items()}),
        (dict(img_size=(64, 160), in_channels=5), dict),
        (LORA, dict),
    ],
)
def test_a_start_needs_no_head_and_no_updates(backbone, change, tmp_path):
    assert started(saved(built(config()), tmp_path, change), backbone) == []


@pytest.mark.parametrize('backbone', [None, LORA])
def test_a_start_that_lacks_parts_of_the_backbone_is_a_warning(backbone, tmp_path):
    def change(state):
        return {n: t for n, t in state.items() if '.blocks.1.mlp.' not in n and 'head' not in n}

    path = saved(built(config()), tmp_path, change)
    ((level, text),) = started(path, backbone)
    assert level == 'warning'
    assert re.sub('base_layer.', '', text) == (
        f'load_from={path!r} lacks 4 of 54 tensors of the backbone, which stay random: '
        f'backbone.vit.blocks.1.mlp.fc1.weight, backbone.vit.blocks.1.mlp.fc1.bias, '
        f'backbone.vit.blocks.1.mlp.fc2.weight, backbone.vit.blocks.1.mlp.fc2.bias'
    )
    assert started(path, backbone, resume=True) == []  # `fit_findings` has a line on it


def test_a_start_from_a_file_of_the_backbone_only_is_a_warning(tmp_path):
    path = saved(built(config()).backbone.vit, tmp_path)
    ((level, text),) = started(path, dict(checkpoint=path))
    assert level == 'warning'
    assert 'lacks 54 of 54 tensors of the backbone, which keep the values of its own start' in text
    assert text.endswith(', ...; a file of a backbone only is for its checkpoint=...')


def test_a_start_with_other_updates_is_an_error(tmp_path):
    path = saved(built(config(LORA)), tmp_path)
    assert started(path, LORA) == started(path) == []
    ((level, text),) = started(path, dict(lora=dict(r=3)))
    assert level == 'error'
    assert re.search(r'holds LoRA updates of r=2 .*, and this model has LoRA updates of r=3', text)


@pytest.mark.slow
def test_a_model_of_one_size_is_refused_with_its_reason(tmp_path):
    small, large = (ViTFeatBackbone('mixer_s32_224', img_size=size) for size in (128, 192))
    path = saved(nn.ModuleDict(dict(backbone=small)), tmp_path)
    ((level, text),) = misfits(nn.ModuleDict(dict(backbone=large)), path)
    assert level == 'error'
    assert text.startswith(
        f"checkpoint {path!r}: 'mixer_s32_224' is built for images of 192x192, and "
    )


@pytest.mark.parametrize('name', ['backbone.vit.blocks.2.attn.qkv.weight', 'more'])
def test_every_tensor_is_required(name, tmp_path):
    """One of 63, and a buffer, which the rule of 95 % let pass."""
    model = built(config())
    model.register_buffer('more', torch.ones(3))

    def without(state):
        return {key: tensor for key, tensor in state.items() if key != name}

    path = saved(model, tmp_path, without)
    assert misfits(model, path) == [
        (
            'error',
            f"checkpoint {path!r} lacks 1 of 65 tensors of the config's model: was it trained "
            f'with another config? Missing: {name}',
        )
    ]


def test_records_that_older_files_lack_are_not_required(tmp_path):
    model = nn.ModuleDict(dict(backbone=ViTFeatBackbone('test_vit'), norm=nn.BatchNorm2d(3)))

    def without(state):
        lacked = ('position_grid', 'weights_layout', 'num_batches_tracked')
        return {key: tensor for key, tensor in state.items() if not key.endswith(lacked)}

    assert misfits(model, saved(model, tmp_path, without)) == []


def test_the_prefix_of_several_processes_is_no_part_of_a_name(tmp_path):
    model = built(config())
    path = saved(model, tmp_path, lambda state: {f'module.{n}': t for n, t in state.items()})
    assert misfits(model, path) == []


def test_another_shape_is_named_with_both(tmp_path):
    path = saved(built(config()), tmp_path)
    cfg = config()
    cfg.model.decode_head.num_classes = 5
    assert misfits(built(cfg), path, resume=True) == [
        (
            'error',
            f"checkpoint {path!r} lacks 2 of 64 tensors of the config's model: was it trained "
            f'with another config? Missing: decode_head.conv_seg.weight (2x8x1x1 in the file, '
            f'5x8x1x1 here), decode_head.conv_seg.bias (2 in the file, 5 here); to train this '
            f'model from what fits, options=load_from={path}',
        )
    ]


def test_blocks_that_the_model_leaves_out_are_a_warning(tmp_path):
    path = saved(built(config()), tmp_path)
    assert misfits(built(config(dict(out_indices=(0, 1)))), path) == [
        (
            'warning',
            f"checkpoint {path!r} holds 24 tensors that the config's model lacks and leaves out: "
            f'was it trained with another config? backbone.vit.blocks.2.norm1.weight, '
            f'backbone.vit.blocks.2.norm1.bias, backbone.vit.blocks.2.attn.qkv.weight, ...',
        )
    ]


def test_a_wrapper_that_mmengine_does_not_open_is_refused(tmp_path):
    """Its loading takes nothing from it and only logs so."""
    model, path = built(config()), str(tmp_path / 'model.pth')
    torch.save(dict(model=model.state_dict()), path)
    assert misfits(model, path) == [
        (
            'error',
            f"checkpoint {path!r} has no 'state_dict' of tensors, which MMEngine reads, but "
            f'model: save it as dict(state_dict=...)',
        )
    ]


def test_a_model_of_another_image_size_predicts_as_after_loading_by_hand(tmp_path):
    model = built(config(dict(img_size=128)))
    path = saved(model, tmp_path)
    (tmp_path / 'seg.py').write_text(SEGMENTER + "model['backbone']['img_size'] = 192\n")
    loaded = load_trained(str(tmp_path / 'seg.py'), path, device='cpu').model
    expected = built(config(dict(img_size=192)))
    expected.load_state_dict(model.state_dict())
    theirs = expected.state_dict()
    assert {n for n, t in loaded.state_dict().items() if torch.equal(t, theirs[n])} == set(theirs)


@pytest.mark.parametrize('recorded', [True, False])
@pytest.mark.parametrize('options', [{}, PARAMWISE, DECAY])
def test_the_same_config_goes_on(options, recorded, tmp_path):
    cfg = config(dict(frozen_stages=2), **options)
    assert lines(cfg, trained(cfg, tmp_path, recorded=recorded)) == []


def test_freezing_that_changed_is_named(tmp_path):
    path = trained(config(dict(frozen_stages=1), **PARAMWISE), tmp_path)
    found = refusal(config(dict(frozen_stages=2), **PARAMWISE), path)
    assert found == (
        'its optimizer has 46 parameters in 46 groups, that of the config 34 parameters in 34 '
        'groups: 12 learn no more (backbone.vit.blocks.1.norm1.weight, '
        'backbone.vit.blocks.1.norm1.bias, backbone.vit.blocks.1.attn.qkv.weight, ...)'
    )


def test_other_layers_of_the_same_shapes_are_found_by_their_names(tmp_path):
    def chosen(index):
        cfg = config(**PARAMWISE)
        model = built(cfg)
        model.requires_grad_(False)
        model.backbone.vit.blocks[index].requires_grad_(True)
        return cfg, model

    cfg, model = chosen(0)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    path = str(tmp_path / 'epoch_1.pth')
    record = {RECORD: described_optimizer(model, wrapper.optimizer)}
    torch.save(dict(optimizer=wrapper.state_dict(), meta=record), path)
    assert not list(resume_findings(model, cfg, path))
    (found,) = resume_findings(chosen(3)[1], cfg, path)
    assert '12 learn no more (backbone.vit.blocks.0.norm1.weight, ' in found.text
    assert 'and 12 learn now (backbone.vit.blocks.3.norm1.weight, ' in found.text


def test_layer_decay_that_came_is_named(tmp_path):
    path = trained(config(), tmp_path)
    found = refusal(config(**DECAY), path)
    assert found == (
        'its optimizer has 62 parameters in 1 group, that of the config 62 parameters in 12 '
        'groups: the same parameters in other groups (layer decay or custom_keys)'
    )


def test_lora_that_came_or_went_is_named(tmp_path):
    pytest.importorskip('peft')
    lora = dict(lora=dict(r=2))
    path = trained(config(**PARAMWISE), tmp_path)
    found = refusal(config(lora, **PARAMWISE), path)
    assert ' learn now (backbone.vit.blocks.0.attn.qkv.lora_A.default.weight, ' in found
    path = trained(config(lora, **PARAMWISE), tmp_path)
    found = refusal(config(**PARAMWISE), path)
    assert ' learn no more (backbone.vit.blocks.0.attn.qkv.lora_A.default.weight, ' in found


def test_an_older_file_without_names_is_compared_by_numbers(tmp_path):
    path = trained(config(**PARAMWISE), tmp_path, recorded=False)
    found = refusal(config(dict(frozen_stages=0), **PARAMWISE), path)
    assert found == (
        'its optimizer has 62 parameters in 62 groups, that of the config 58 parameters in 58 '
        'groups (frozen layers, layer decay, LoRA or custom_keys changed)'
    )


def test_an_older_file_without_names_is_compared_by_shapes(tmp_path):
    path = trained(config(), tmp_path, recorded=False)
    cfg = config()
    whole = built(cfg)
    model = nn.ModuleList([whole.decode_head, whole.backbone])  # another order
    (found,) = resume_findings(model, cfg, path)
    assert "its optimizer's state at the place of 0.conv_seg.weight is of shape (" in found.text


def test_an_older_file_is_named_by_shards(tmp_path):
    """FSDP's state has names for numbers."""
    cfg = config(**PARAMWISE)
    path = trained(cfg, tmp_path, recorded=False)
    content = torch.load(path)
    names = [name for name, _ in built(cfg).named_parameters()]
    groups = content['optimizer']['param_groups']
    for name, group in zip(names, groups, strict=True):
        group['params'] = [name]
    content['optimizer']['state'] = {
        names[i]: each for i, each in content['optimizer']['state'].items()
    }
    torch.save(content, path)
    assert lines(cfg, path) == []
    groups[5]['params'] = ['backbone.vit.other']
    torch.save(content, path)
    assert ': 1 learn no more (backbone.vit.other) and 1 learn now (' in refusal(cfg, path)


@pytest.mark.parametrize('recorded', [True, False])
def test_another_image_size_has_positions_of_another_shape(recorded, tmp_path):
    path = trained(config(dict(img_size=128)), tmp_path, recorded=recorded)
    cfg = config(dict(img_size=192))
    assert list(fit_findings(built(cfg), path, resume=True)) == []
    assert refusal(cfg, path) == (
        "its optimizer's state at the place of backbone.vit.pos_embed is of shape (1, 65, 64), "
        'the parameter of (1, 145, 64) (another img_size, or other layers that learn)'
    )


@pytest.mark.parametrize(
    ('recorded', 'message'),
    [
        (True, 'its optimizer is AdamW, that of the config SGD'),
        (
            False,
            'its optimizer is no SGD as that of the config, it has no momentum, dampening, '
            'nesterov',
        ),
    ],
)
def test_another_class_of_optimizer_is_named(recorded, message, tmp_path):
    path = trained(config(), tmp_path, recorded=recorded)
    assert refusal(config(optimizer=dict(type='SGD', lr=0.1)), path) == message


def test_adam_and_adamw_differ_only_by_name(tmp_path):
    path = trained(config(optimizer=dict(type='Adam', lr=1e-4)), tmp_path)
    assert refusal(config(), path) == 'its optimizer is Adam, that of the config AdamW'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(optimizer=dict(type='AdamW', lr=2e-4)), 'lr=0.0002 (the file has 0.0001)'),
        (
            dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.2)),
            'weight_decay=0.2 (the file has 0.01)',
        ),
        (
            dict(optimizer=dict(type='AdamW', lr=1e-4, betas=(0.8, 0.999))),
            'betas=(0.8, 0.999) (the file has (0.9, 0.999))',
        ),
    ],
)
def test_options_that_the_file_overrides_are_a_warning(options, message, tmp_path):
    path = trained(config(), tmp_path)
    ((level, text),) = lines(config(**options), path)
    assert level == 'warning'
    assert text == (
        f'a resumed training keeps the options of the optimizer in {path!r}, and those of the '
        f'config change nothing: {message}; to use them, start from its weights by '
        f'load_from={path}'
    )


def test_another_decay_rate_is_a_warning(tmp_path):
    path = trained(config(**DECAY), tmp_path)
    other = dict(DECAY, paramwise_cfg=dict(decay_rate=0.7))
    ((level, text),) = lines(config(**other), path)
    assert level == 'warning'
    assert re.search(r'lr=1.6\d+e-05 \(the file has 3.125e-06\)', text)


def test_a_rate_in_the_middle_of_its_schedule_is_compared_by_its_start(tmp_path):
    path = trained(config(), tmp_path)
    content = torch.load(path)
    (group,) = content['optimizer']['param_groups']
    group['initial_lr'], group['lr'] = group['lr'], 1e-7
    torch.save(content, path)
    assert lines(config(), path) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['optim_wrapper.optimizer.type=SGD'], 'its optimizer is AdamW, that of the config SGD'),
        (['model.bias=False'], 'its optimizer has 2 parameters in 1 group, that of the config 1 '),
    ],
)
def test_a_resume_that_would_mix_up_states_is_one_line(options, message, train, tmp_path, capsys):
    path = write_toy_config(tmp_path)
    assert train([path, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    capsys.readouterr()
    for more in (['--resume'], ['--cfg-options', 'resume=True']):
        given = [*more, '--cfg-options', *options] if '--resume' in more else [*more, *options]
        assert train([path, *given]) == 2
        printed = capsys.readouterr()
        start = re.escape("error: checkpoint 'work_dirs/toy/epoch_1.pth' cannot be resumed: ")
        assert re.fullmatch(f'{start}{message}.*\n', printed.err), printed.err
        assert 'Epoch(train)' not in printed.out


def test_a_resumed_training_says_that_it_keeps_the_rate_of_the_file(train, tmp_path, capsys):
    path = write_toy_config(tmp_path)
    assert train([path, '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    assert train([path, '--resume', '--cfg-options', 'optim_wrapper.optimizer.lr=0.5']) == 0
    assert 'change nothing: lr=0.5 (the file has 0.05); to use them' in capsys.readouterr().out
