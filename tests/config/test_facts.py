"""What checks learn of a config, and the walk over its dicts."""

from mmengine.config import Config

from vit_backbones.config.facts import Facts, learns_masks, nodes


def test_nodes__come_with_place_and_scope_before_those_inside_them():
    inner = dict(_scope_='mmdet', neck=dict(), heads=[dict(a=1), dict(a=2)])
    config = Config(dict(default_scope='mmseg', model=inner, other=(dict(),)))
    assert [(place, scope) for place, _, scope in nodes(config)] == [
        ('', 'mmseg'),
        ('model', 'mmdet'),
        ('model.neck', 'mmdet'),
        ('model.heads.0', 'mmdet'),
        ('model.heads.1', 'mmdet'),
        ('other.0', 'mmseg'),
    ]


def test_nodes__what_is_changed_when_it_comes_is_walked_as_it_is_then():
    tree = dict(a=dict(b=dict(c=dict())))
    for place, node, _ in nodes(tree):
        if place == 'a':
            node['b'] = dict(d=dict())
    assert tree == dict(a=dict(b=dict(d=dict())))
    assert [place for place, _, _ in nodes(tree)] == ['', 'a', 'a.b', 'a.b.d']


def test_nodes__what_is_closed_is_left_out():
    tree = dict(a=dict(b=dict()), c=[dict()])
    found = nodes(tree, closed=lambda node, key: key == 'c' or node.place == 'a')
    assert [place for place, _, _ in found] == ['', 'a']


def loader(*datasets):
    joined = dict(type='ConcatDataset', datasets=list(datasets))
    return dict(dataset=dict(type='RepeatDataset', dataset=joined))


def test_datasets_and_evaluators_are_those_of_the_splits():
    config = Config(
        dict(
            train_dataloader=loader(dict(type='A'), dict(type='B')),
            val_dataloader=dict(dataset=dict(type='C')),
            test_dataloader=None,
            val_evaluator=dict(type='D'),
            test_evaluator=[dict(type='E'), dict(type='F')],
        )
    )
    facts = Facts.of(config)
    place = 'train_dataloader.dataset.dataset.datasets'
    assert facts.datasets == dict(
        train=[(f'{place}.0', dict(type='A')), (f'{place}.1', dict(type='B'))],
        val=[('val_dataloader.dataset', dict(type='C'))],
        test=[],
    )
    assert facts.evaluators == dict(
        train=[], val=[dict(type='D')], test=[dict(type='E'), dict(type='F')]
    )
    assert list(Facts.of(config, ('val',)).datasets) == ['val']
    assert facts.every_dataset[-1][1] is config.val_dataloader.dataset


def test_weights_are_those_of_the_innermost_backbone_or_of_any_part():
    start = dict(type='Pretrained', checkpoint='a.pth')
    remote = dict(type='Pretrained', checkpoint='https://b.pth')
    vit = dict(type='ViT', pretrained=False)
    model = dict(backbone=dict(type='Adapter', backbone=vit), heads=[dict(init_cfg=start)])
    facts = Facts.of(Config(dict(model=model | dict(neck=dict(init_cfg=remote)))))
    assert [each.get('type') for each in facts.chain] == [None, 'Adapter', 'ViT']
    assert facts.starts == ['a.pth']
    assert not facts.names_weights
    assert Facts.of(Config(dict(model=model | dict(init_cfg=[start])))).names_weights
    vit['checkpoint_path'] = 'c.pth'
    assert Facts.of(Config(dict(model=model))).names_weights


def test_a_config_of_nothing_has_no_facts():
    facts = Facts.of(Config(dict()))
    assert (facts.scope, facts.load_from, facts.builtin_data) == (None, None, None)
    assert facts.every_dataset == facts.starts == []
    assert not facts.names_weights
    assert not facts.finds_unused


def test_panoptic_annotations_are_masks_by_default():
    pipeline = [dict(type='LoadPanopticAnnotations')]
    assert learns_masks(dict(dataset=dict(pipeline=pipeline)))
    pipeline[0]['with_mask'] = False
    assert not learns_masks(dict(dataset=dict(pipeline=pipeline)))
