import re
from pathlib import Path

import pytest
from mmengine.config import Config

import vit_backbones  # noqa: F401  (registers the backbone)
from vit_backbones.config import options
from vit_backbones.config.loading import config_file, load_config
from vit_backbones.config.options import check_option
from vit_backbones.config.registries import arguments_of
from vit_backbones.heads import eomt, mask2former_loss

CONFIG = Config(
    dict(
        default_scope='mmengine',
        model=dict(
            type='MMDistributedDataParallel',
            neck=None,
            backbone=dict(type='ViTFeatBackbone', model_name='vit_tiny_patch16_224'),
            head=dict(loss_weight=1.0),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        train_dataloader=dict(dataset=dict(pipeline=[dict(type='A'), dict(type='B', p=0.5)])),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1.0)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        runner_type='FlexibleRunner',
        strategy=dict(type='ViTFSDPStrategy'),
    )
)


@pytest.mark.parametrize(
    'key',
    [
        'model.head.loss_weight',
        'model.backbone.drop_path_rate',
        'model.backbone.init_cfg.checkpoint',
        'model.head.type',
        'train_cfg.val_interval',
        'train_dataloader.batch_size',
        'train_dataloader.dataset.pipeline.0.type',
        'optim_wrapper.clip_grad.max_norm',
        'optim_wrapper.optimizer.weight_decay',
        'default_hooks.checkpoint.save_best',
        'default_hooks.curves.filename',
        'randomness.seed',
        'runner_type',
        'strategy.state_dict_cfg',
        'strategy.model_wrapper.sharding_strategy',
        'load_from',
    ],
)
def test_check_option__existing_keys_and_arguments_pass(key):
    check_option(CONFIG, key)


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        (
            'model.backbone.out_indces',
            r"'out_indces' is neither a key of 'model.backbone' nor an argument of "
            r"ViTFeatBackbone; did you mean 'out_indices'\?",
        ),
        ('modle.backbone.depth', r"'modle' is not a key of 'the config'; did you mean 'model'"),
        ('model.head.loss_wieght', "did you mean 'loss_weight'"),
        ('train_cfg.max_epoch', "did you mean 'max_epochs'"),
        ('train_dataloader.batchsize', "did you mean 'batch_size'"),
        ('optim_wrapper.optimizer.wieght_decay', "did you mean 'weight_decay'"),
        ('default_hooks.checkpoint.intervall', "did you mean 'interval'"),
        ('train_dataloader.dataset.pipeline.2.p', "list of 2, so an index from 0 to 1 .* got '2'"),
        ('train_dataloader.dataset.pipeline.x', "got 'x'"),
        ('model.neck.in_channels', "'model.neck' is None, which has no 'in_channels'"),
    ],
)
def test_check_option__unknown_names_are_refused(key, message):
    with pytest.raises(ValueError, match=re.escape(f'options={key}: ') + '.*' + message):
        check_option(CONFIG, key)


@pytest.mark.parametrize('key', ['decay_rate', 'custom_keys', 'custom_keys.backbone.decay_mult'])
def test_check_option__what_constructors_of_optimizers_read_passes(key):
    paramwise = dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.1)))
    config = Config(dict(optim_wrapper=dict(paramwise_cfg=paramwise)))
    check_option(config, f'optim_wrapper.paramwise_cfg.{key}')
    with pytest.raises(ValueError, match="did you mean '"):
        check_option(config, f'optim_wrapper.paramwise_cfg.{key[:-1]}')


@pytest.mark.parametrize(
    ('scope', 'kind', 'dicts', 'key', 'typo', 'allowed'),
    [
        ('mmseg', 'SegEoMT', dict(test_cfg=dict(mode='whole')), 'crop_size', 'crop_sise', None),
        ('mmdet', 'EoMT', dict(test_cfg=dict(max_per_image=9)), 'iou_thr', 'iou_thre', None),
        ('mmdet', 'EoMT', dict(train_cfg=dict()), 'num_points', 'num_point', None),
        ('mmseg', 'SegEoMT', dict(train_cfg=dict()), 'num_points', 'num_point', None),
        ('mmdet', 'DETR', dict(test_cfg=dict(max_per_img=9)), 'max_per_img', 'mode', 'max_per_img'),
    ],
)
def test_check_option__keys_that_a_model_reads_pass(scope, kind, dicts, key, typo, allowed):
    config = Config(dict(default_scope=scope, model=dict(type=kind, **dicts)))
    (place,) = dicts
    check_option(config, f'model.{place}.{key}')
    known = f'allowed: {allowed}' if allowed else f"did you mean '{key}'?"
    message = f"options=model.{place}.{typo}: '{typo}' is not a key of 'model.{place}'; {known}"
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        check_option(config, f'model.{place}.{typo}')


def test_check_option__a_new_type_brings_its_arguments():
    changes = {'optim_wrapper.optimizer.type': 'SGD', 'optim_wrapper.optimizer.momentum': 0.9}
    check_option(CONFIG, 'optim_wrapper.optimizer.momentum', changes)
    with pytest.raises(ValueError, match='nor an argument of AdamW'):
        check_option(CONFIG, 'optim_wrapper.optimizer.momentum')


class _Closed:
    def __init__(self, a, *, b=1):
        pass


class _Passing(_Closed):
    def __init__(self, c, **kwargs):
        super().__init__(**kwargs)


class _Open:
    def __init__(self, d, **kwargs):
        pass


@pytest.mark.parametrize(
    ('taker', 'expected'),
    [(_Closed, ({'a', 'b'}, False)), (_Passing, ({'a', 'b', 'c'}, False)), (_Open, ({'d'}, True))],
)
def test_arguments_of__follows_kwargs_through_the_bases(taker, expected):
    assert arguments_of(taker) == expected


def test_load_config__applies_options(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('model = dict(depth=[1, 2])')
    assert load_config(path, ['model.depth=[3,4]']).model.depth == [3, 4]


@pytest.mark.parametrize(
    'value',
    [
        "[dict(type='EMAHook', momentum=0.5, nested=dict(a=(1, -2)))]",
        "[{'type': 'EMAHook', 'momentum': 0.5, 'nested': {'a': (1, -2)}}]",
    ],
)
def test_load_config__an_option_may_hold_dicts(tmp_path, value):
    (tmp_path / 'a.py').write_text('')
    hooks = load_config(tmp_path / 'a.py', [f'custom_hooks={value}']).custom_hooks
    assert hooks == [dict(type='EMAHook', momentum=0.5, nested=dict(a=(1, -2)))]
    assert hooks[0].type == 'EMAHook'


@pytest.mark.parametrize('value', ['[dict(type=EMAHook)]', "[dict(type='EMAHook']", '[dict(1)]'])
def test_load_config__dicts_of_an_option_that_are_no_literals_are_refused(tmp_path, value):
    (tmp_path / 'a.py').write_text('')
    message = (
        "options=custom_hooks: takes literals, strings in quotes, as [dict(type='EMAHook')], "
        f'got {value}'
    )
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        load_config(tmp_path / 'a.py', [f'custom_hooks={value}'])


def test_load_config__missing_file_names_the_closest(tmp_path):
    (tmp_path / 'mask2former_vit.py').write_text('')
    with pytest.raises(FileNotFoundError, match=r'does not exist; did you mean \S+mask2former_vit'):
        load_config(tmp_path / 'mask2fromer_vit.py')


@pytest.mark.parametrize('text', ['model = dict(', 'a = 1 / 0', "_base_ = 'nothing.py'"])
def test_load_config__broken_file_is_named(text, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config '\S+broken.py' cannot be read \(\w+: "):
        load_config(path)


def test_load_config__option_without_value_is_refused(tmp_path):
    Path(tmp_path / 'a.py').write_text('a = 1')
    with pytest.raises(ValueError, match="takes KEY=VALUE, got 'a'"):
        load_config(tmp_path / 'a.py', ['a'])


def test_a_folder_is_no_config_but_names_those_in_it(tmp_path):
    (tmp_path / 'a.py').touch()
    with pytest.raises(FileNotFoundError, match=r'is a folder; name a file in it: .*/a\.py$'):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('training.padding.detection', 'mmdet'),
        ('training.padding.segmentation', 'mmseg'),
        ('training.auxiliary.mask2former', 'mmdet'),
        ('training.auxiliary.encoder_decoder', 'mmseg'),
        ('heads.located_mask2former', 'mmdet'),
    ],
)
@pytest.mark.parametrize('allowed', [False, True])
def test_a_module_that_moved_is_named_by_its_new_path(tmp_path, old, new, allowed):
    imports = dict(imports=['vit_backbones', f'vit_backbones.{old}'], allow_failed_imports=allowed)
    (tmp_path / 'old.py').write_text(f'custom_imports = {imports}\n')
    with pytest.raises(ValueError, match=f"'vit_backbones.{old}' is now 'vit_backbones.{new}'"):
        load_config(tmp_path / 'old.py')


def test_a_module_that_moved_is_found_in_the_config_of_an_old_work_dir(tmp_path):
    imports = dict(imports=['vit_backbones.training.padding.detection'], allow_failed_imports=False)
    Config(dict(custom_imports=imports)).dump(str(tmp_path / 'saved.py'))
    with pytest.raises(ValueError, match=r"is now 'vit_backbones\.mmdet'"):
        load_config(tmp_path / 'saved.py')


def test_a_module_that_is_not_there_is_named(tmp_path):
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports=['no_such_module'])\n")
    with pytest.raises(ValueError, match=r'cannot be read .*Failed to import no_such_module'):
        load_config(tmp_path / 'mine.py')


def test_keys_that_recipes_leave_out_are_those_that_eomt_reads():
    assert set(options._READ['EoMT', 'model.train_cfg']) == set(mask2former_loss._TRAIN_CFG)
    given = set(eomt._TEST_CFG) | {'instance_on', 'panoptic_on'}
    assert set(options._READ['EoMT', 'model.test_cfg']) == given


def test_a_config_of_a_package_has_the_name_that_bases_have():
    named = load_config('vit_backbones::upernet/upernet_vit-ti_camvid.py')
    path = Path(__file__).parents[2] / 'configs/upernet/upernet_vit-ti_camvid.py'
    assert Path(named.filename).resolve() == path
    assert named.pretty_text == load_config(path).pretty_text
    assert load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model.type
    assert config_file('vit_backbones::/upernet_vit.py').is_file()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'vit_backbones::upernet/upernet_vit-ti_camvi.py',
            "config 'vit_backbones::upernet/upernet_vit-ti_camvi.py' does not exist; did you mean "
            'vit_backbones::upernet/upernet_vit-ti_camvid.py or vit_backbones::',
        ),
        (
            'vit_backbones::',
            "config 'vit_backbones::' is a folder; name a file in it: "
            'vit_backbones::mask2former_vit.py, vit_backbones::upernet_vit.py',
        ),
        ('mmdett::a.py', "config 'mmdett::a.py': the package 'mmdett' is not installed"),
        ('timm::a.py', "config 'timm::a.py': the package 'timm' ships no configs"),
        ('a.b::c.py', "config 'a.b::c.py': the package 'a.b' is not installed"),
    ],
)
def test_a_wrong_config_of_a_package_is_named_as_given(name, message):
    with pytest.raises(FileNotFoundError) as error:
        load_config(name)
    assert str(error.value).startswith(message)


def test_a_file_comes_before_a_package_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mmdet::a.py').write_text('x = 1\n')
    assert load_config('mmdet::a.py').x == 1
