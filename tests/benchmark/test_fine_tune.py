"""Backbones in the place of a config's own."""

from pathlib import Path

import pytest
import torch
from checked_configs import errors_of
from mmengine.config import Config
from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR
from mmengine.registry import MODELS

from vit_backbones.benchmark.fine_tune import plan_training
from vit_backbones.checks.wiring import wiring_findings
from vit_backbones.config.loading import use_scope
from vit_backbones.models.chosen import Choice

CONFIGS = Path(__file__).parents[2] / 'configs'
CAMVID = CONFIGS / 'linear_probe/linear-finetuned_vit-ti_camvid.py'
TINY = Choice('test_vit', random_weights=3)


def plan(config=CAMVID, *options, choice=TINY, epochs=1, images=367):
    """The config of a training, read back from its text."""
    training = plan_training(config, options, choice, epochs, images)
    return Config.fromstring(training.config, '.py')


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        ('linear_probe/linear_vit-ti_camvid.py', ()),
        ('upernet_vit.py', ('model.backbone.patch_size=16',)),  # a neck of one map
        ('upernet/upernet_vit-ti_camvid.py', ('model.backbone.out_indices=[0,1,-2,-1]',)),
        ('mask2former/mask2former_vit-ti_camvid.py', ('model.backbone.out_indices=[0,1,-2,-1]',)),
    ],
)
def test_neck_and_head_take_the_maps_of_another_width(config, options):
    planned = plan(CONFIGS / config, *options)
    use_scope(planned)
    assert not errors_of(wiring_findings(MODELS.build(planned.model)))
    assert planned.model.backbone.model_name == 'test_vit'
    assert planned.model.backbone.frozen_stages == -1


def test_normalisation_is_that_of_the_backbone(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text(
        'model = dict(data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0] * 3), backbone=dict('
        "type='ViTFeatBackbone', model_name='test_vit', norm='none', out_indices=0))"
    )
    planned = plan(choice=Choice(config=str(path), random_weights=0))
    preprocessor = planned.model.data_preprocessor
    assert preprocessor.mean == [1.0, 2.0, 3.0]
    assert preprocessor.std == [4.0] * 3
    assert not preprocessor.bgr_to_rgb
    assert planned.model.backbone.out_indices == -1  # of the recipe, as is the norm
    assert planned.model.backbone.norm == 'last'


def test_rates_are_those_of_the_config_in_fewer_epochs():
    """Ten epochs of 20 iterations, squeezed into one of 200."""

    def rates(schedules, epoch_length):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        built = [
            kind.build_iter_from_epoch(optimizer, **options, epoch_length=epoch_length)
            for kind, options in zip((LinearLR, CosineAnnealingLR), schedules, strict=True)
        ]
        found = []
        for _ in range(200):
            found.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for each in built:
                each.step()
        return torch.tensor(found)

    def options(config, end):
        left_out = ('type', 'convert_to_iter_based')
        given = [
            {k: v for k, v in each.items() if k not in left_out} for each in config.param_scheduler
        ]
        given[1].setdefault('end', end)
        return given

    before, after = Config.fromfile(CAMVID), plan()
    assert after.train_cfg.max_epochs == 1
    assert torch.equal(rates(options(before, 10), 20), rates(options(after, 1), 200))


def test_other_epochs_and_weights_are_other_trainings():
    asked = [(TINY, 1), (TINY, 2), (TINY._replace(random_weights=4), 1)]
    trainings = [plan_training(CAMVID, (), choice, epochs, 367) for choice, epochs in asked]
    assert len({each.folder for each in trainings}) == 3


@pytest.mark.parametrize(
    ('config', 'options', 'line'),
    [
        (CONFIGS, (), 'configs is a folder'),
        (CONFIGS / 'linear_probe/linear_vit-b-dinov2_ade20k.py', (), 'counts iterations'),
        (CONFIGS / 'vit_adapter/upernet_vit-adapter-ti_camvid.py', (), "is 'ViTAdapter'"),
        (CAMVID, ('model.backbone.out_indices=[2,11]',), 'out_indices'),
        (CAMVID, ('param_scheduler.0.type=MultiStepLR', 'param_scheduler.0.milestones=[3]'), 'mil'),
    ],
)
def test_what_does_not_fit_is_refused(config, options, line):
    with pytest.raises(ValueError, match=line):
        plan(config, *options)
