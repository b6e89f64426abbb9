"""A frozen backbone's features on disk: the same training, without running the backbone again."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from eomt_models import detector
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn import functional

from vit_backbones import ViTFeatBackbone
from vit_backbones.models.random_weights import redraw
from vit_backbones.training import feature_store
from vit_backbones.training.feature_cache_hook import FeatureCacheHook
from vit_backbones.training.fixed_views import FixedViews
from vit_backbones.training.runner import QuietRunner

IMAGES, VIEWS, SIZE = 6, 2, (32, 48)


@DATASETS.register_module()
class NoisyImages(BaseDataset):
    """Each time an image comes up, it has other noise, of all three generators."""

    def __init__(self, root):
        self.root = root
        super().__init__(serialize_data=False)

    def load_data_list(self):
        label = f'{self.root}/label.png'
        images = [f'{self.root}/{i}.txt' for i in range(IMAGES)]
        return [dict(img_path=image, seg_map_path=label) for image in images]

    def prepare_data(self, idx):
        noise = torch.randn(3, *SIZE) + float(np.random.rand()) + random.random()
        return dict(inputs=noise + idx, data_samples=BaseDataElement(label=torch.tensor(idx)))


class Regressor(BaseModel):
    """A linear layer on the features of a frozen backbone."""

    def __init__(self, frozen_stages=6, **options):
        super().__init__()
        self.backbone = ViTFeatBackbone('test_vit', frozen_stages=frozen_stages, **options)
        self.head = nn.Linear(self.backbone.out_channels[-1], 1)

    def forward(self, inputs, data_samples, mode='tensor'):
        (maps,) = self.backbone(torch.stack(inputs))
        labels = torch.stack([each.label for each in data_samples]).float()
        return dict(loss=(self.head(maps.mean((2, 3))).squeeze(1) - labels).square().mean())


class Watch(Hook):
    """Notes losses, and counts the runs of the ViT itself."""

    def __init__(self):
        self.losses, self.runs = [], 0

    def before_run(self, runner):
        runner.model.backbone.vit.patch_embed.register_forward_pre_hook(self._count)

    def _count(self, *_):
        self.runs += 1

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


@pytest.fixture
def data(tmp_path):
    for index in range(IMAGES):
        (tmp_path / f'{index}.txt').write_text('x')
    (tmp_path / 'label.png').write_text('x')
    return tmp_path


def trained(
    data,
    work_dir,
    *,
    workers=0,
    epochs=4,
    weights=0,
    model=None,
    kind=Runner,
    cfg=None,
    hooks=(),
    **options,
):
    model = redraw(Regressor()) if model is None else model
    with torch.no_grad():
        next(model.backbone.vit.parameters()).add_(weights)
    watch, folder = Watch(), str(data / 'cache')
    cache = dict(type=FeatureCacheHook, views=VIEWS, folder=folder) | options
    loader = dict(
        batch_size=2,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=True, seed=0),
        dataset=dict(type='NoisyImages', root=str(data)),
    )
    loops = cfg or dict(by_epoch=True, max_epochs=epochs)
    sampler = 'DefaultSampler' if loops['by_epoch'] else 'InfiniteSampler'
    loader['sampler'].update(type=sampler)
    runner = kind(
        model,
        str(data / work_dir),
        train_dataloader=loader,
        train_cfg=loops,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        custom_hooks=[cache, watch, *hooks],
        default_hooks=dict(checkpoint=None, logger=None),
        randomness=dict(seed=0),
        experiment_name=f'{data.name}_{work_dir}',
        log_level='ERROR',
    )
    runner.train()
    return watch, runner


def files(data):
    return sorted((data / 'cache').glob('*/*.safetensors'))


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-6), ('float16', 1e-2)])
def test_losses_are_those_without_a_cache(dtype, tolerance, data, monkeypatch):
    first, _ = trained(data, 'a', dtype=dtype)
    again, _ = trained(data, 'b', dtype=dtype)
    monkeypatch.setattr(FeatureCacheHook, '_kept', lambda self, forward, store: forward)
    plain, _ = trained(data, 'c', dtype=dtype)
    assert first.losses == again.losses
    assert first.losses == pytest.approx(plain.losses, rel=tolerance)
    assert plain.runs == len(plain.losses) == 12
    assert again.runs == 0
    assert len(files(data)) <= IMAGES * VIEWS


def test_views_that_are_missing_or_damaged_are_computed(data):
    first, _ = trained(data, 'a')
    kept = files(data)
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:20])
    before = {path: path.stat().st_mtime_ns for path in kept[2:]}
    again, _ = trained(data, 'b')
    assert first.losses == again.losses
    assert 1 <= again.runs <= 4
    assert files(data) == kept
    assert kept[1].stat().st_size > 20
    assert sum(before[path] == path.stat().st_mtime_ns for path in before) >= len(before) - 4


@pytest.mark.parametrize('change', ['weights', 'data', 'labels', 'seed'])
def test_what_the_features_depend_on_has_a_folder_of_its_own(change, data):
    trained(data, 'a', epochs=1)
    if change == 'data':
        (data / '3.txt').write_text('another image')
    if change == 'labels':
        (data / 'label.png').write_text('another')
    given = dict(weights=1) if change == 'weights' else {}
    again, _ = trained(data, 'b', epochs=1, **given, **(dict(seed=1) if change == 'seed' else {}))
    assert again.runs == 3
    assert len({path.parent for path in files(data)}) == 2


@pytest.mark.parametrize(
    'place', ['model.backbone', 'model.data_preprocessor', 'train_dataloader.dataset', 'precision']
)
def test_configs_and_precision_have_folders_of_their_own(place):
    def name(change):
        config = Config(dict(model=dict(backbone={}, data_preprocessor={})))
        config.merge_from_dict({'train_dataloader.dataset': dict(pipeline=[dict(type='Resize')])})
        wrapper = SimpleNamespace(cast_dtype=torch.float16)
        if change == 'precision':
            wrapper.cast_dtype = torch.bfloat16
        elif change:
            config.merge_from_dict({f'{change}.more': 1})
        runner = SimpleNamespace(cfg=config, optim_wrapper=wrapper)
        return FeatureCacheHook(views=1)._fingerprint(runner, nn.Identity(), [])

    assert name(None) == name(None) != name(place)


def test_images_between_the_iterations_are_not_kept():
    hook, sample = FeatureCacheHook(views=1), BaseDataElement(metainfo=dict(view=(0, 0, 0)))
    run = hook._kept(lambda images: (images,), store=None)  # of validations
    hook.before_train_iter(None, 0, dict(data_samples=[sample]))
    hook.after_train_iter(None, 0)
    assert run(torch.ones(1, 3, 4, 4))[0].shape == (1, 3, 4, 4)


def test_worker_processes_give_the_same_views(data):
    trained(data, 'a', epochs=8)
    again, _ = trained(data, 'b', epochs=2, workers=1)
    assert again.runs <= 1  # a view may not have come up before


@pytest.mark.parametrize('workers', [0, 1])
def test_iteration_based_trainings_have_views_too(workers, data):
    loops = dict(by_epoch=False, max_iters=5)
    watch, _ = trained(data, 'a', workers=workers, kind=QuietRunner, cfg=loops)
    assert len(watch.losses) == 5


def test_workers_that_already_run_are_refused(data):
    message = r'^feature cache: the workers of an iteration-based training already run: train by '
    with pytest.raises(ValueError, match=message):
        trained(data, 'a', workers=1, cfg=dict(by_epoch=False, max_iters=5))


@pytest.mark.slow
def test_a_compiled_backbone_reads_files_uncompiled(data):
    model, graphs = redraw(Regressor()), []
    model.backbone.compile(backend=lambda graph, inputs: graphs.append(graph) or graph)
    first, _ = trained(data, 'a', model=model)
    assert not graphs
    again, _ = trained(data, 'b')
    assert again.losses == first.losses
    assert again.runs == 0


def test_model_and_data_are_left_as_they_were(data):
    _, runner = trained(data, 'a', epochs=1)
    assert 'forward' not in vars(runner.model.backbone)
    assert 'prepare_data' not in vars(runner.train_dataloader.dataset)


def test_a_view_is_the_same_each_time_and_generators_go_on(data):
    dataset = NoisyImages(str(data))
    fixed = FixedViews(dataset.prepare_data, dataset=0, views=1, seed=3)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    one = fixed(2)
    drawn = torch.rand(()).item(), np.random.rand(), random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    torch.randint(1, ())
    assert drawn == (torch.rand(()).item(), np.random.rand(), random.random())
    assert torch.equal(one['inputs'], fixed(2)['inputs'])
    assert not torch.equal(one['inputs'] - 2, fixed(3)['inputs'] - 3)
    assert one['data_samples'].view == (0, 2, 0)


def test_its_size_is_shown_before_anything_is_written(data, monkeypatch):
    lines = []
    monkeypatch.setattr(feature_store, 'print_log', lambda line, **_: lines.append(line))
    trained(data, 'a', epochs=1)
    (line,) = lines
    assert line.startswith('feature cache: 12 views of 0.000768 MB, 9.22e-06 GB in ')


def test_caches_that_no_longer_fit_are_named(data, monkeypatch):
    trained(data, 'a', epochs=1)
    (old,) = {path.parent for path in files(data)}
    lines = []
    monkeypatch.setattr(feature_store, 'print_log', lambda line, **_: lines.append(line))
    trained(data, 'b', epochs=1, weights=1)
    size = sum(path.stat().st_size for path in old.glob('*.safetensors')) / 1e9
    assert lines[1] == (
        f'feature cache: {data}/cache also holds {old.name} ({size:.3g} GB), of other weights, '
        f'data or pipelines: delete those that no training needs'
    )
    assert len(lines) == 2


def test_views_in_several_sizes_fill_it_to_its_limit_and_no_further(data, monkeypatch):
    def prepare(self, idx):
        noise = torch.randn(3, 32 + 16 * int(torch.randint(4, ())), 48)
        return dict(inputs=noise, data_samples=BaseDataElement(label=torch.tensor(idx)))

    def padded(self, inputs, data_samples, mode='tensor'):
        height = max(each.shape[1] for each in inputs)
        images = [functional.pad(each, (0, 0, 0, height - each.shape[1])) for each in inputs]
        return forward(self, images, data_samples, mode)

    forward, lines, limit = Regressor.forward, [], IMAGES * VIEWS * 1600
    monkeypatch.setattr(NoisyImages, 'prepare_data', prepare)
    monkeypatch.setattr(Regressor, 'forward', padded)
    monkeypatch.setattr(feature_store, 'print_log', lambda line, **_: lines.append(line))
    watch, _ = trained(data, 'a', epochs=20, max_gb=limit / 1e9)
    assert limit * 0.8 < sum(path.stat().st_size for path in files(data)) <= limit
    assert watch.runs > len(files(data)) / 2  # those that are not kept
    assert [line for line in lines if 'has reached max_gb' in line] == lines[1:]
    assert len(lines) == 2


class Switch(Hook):
    """As mmdet's `PipelineSwitchHook`."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.train_dataloader.dataset.pipeline = None


def test_a_pipeline_that_changes_in_the_training_is_refused(data):
    with pytest.raises(ValueError, match=r'^feature cache: the pipeline of the data has changed'):
        trained(data, 'a', hooks=[dict(type=Switch)])
    assert files(data)


def test_samples_that_are_not_packed_are_one_line(data):
    fixed = FixedViews(lambda index: dict(img=index), dataset=0, views=1, seed=0)
    with pytest.raises(
        ValueError, match=r'^feature cache: the pipeline of a dataset does not pack'
    ):
        fixed(0)


def test_images_that_depend_on_those_before_are_refused(data, monkeypatch):
    def prepare(self, idx):
        self.before = 1 + getattr(self, 'before', 0)  # as mmdet's `CachedMosaic`
        return dict(inputs=torch.full((3, *SIZE), self.before), data_samples=BaseDataElement())

    monkeypatch.setattr(NoisyImages, 'prepare_data', prepare)
    with pytest.raises(ValueError, match=r'^feature cache: .* another image for the same seed'):
        trained(data, 'a')
    assert files(data) == []


def test_padding_to_one_size_is_the_only_augmentation_of_batches(data):
    for name, kept in (('BatchFixedSizePad', True), ('BatchSyncRandomResize', False)):
        model = redraw(Regressor())
        model.data_preprocessor.batch_augments = [type(name, (), {})()]
        if kept:
            trained(data, name, model=model, epochs=1)
            assert files(data)
        else:
            with pytest.raises(ValueError, match=f'^feature cache: {name} of data_preprocessor'):
                trained(data, name, model=model, epochs=1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(max_gb=1e-6), r'above max_gb=1e-06: raise it, or take fewer views$'),
        (dict(max_gb='20'), r"^max_gb must be a number above 0, got '20'$"),
        (dict(views=0), r'^views must be at least 1, got 0$'),
        (dict(dtype='int8'), r"^dtype must be one of 'float16', 'float32', got 'int8'$"),
        (
            dict(model=Regressor(frozen_stages=1)),
            r'^feature cache: the backbone learns, so that its features change: set '
            r'frozen_stages=6 and no lora$',
        ),
        (
            dict(model=Regressor(lora=dict(r=2))),
            r'^feature cache: the backbone learns, so that its features change: set '
            r'frozen_stages=6 and no lora$',
        ),
        (
            dict(model=detector(backbone=dict(frozen_stages=6))),
            r'^feature cache: the queries of EoMT run in the blocks of its backbone, so that there '
            r'is nothing to keep; PlainMaskHead takes features$',
        ),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(options, message, data):
    with pytest.raises(ValueError, match=message):
        trained(data, 'a', **options)
    assert files(data) == []


def test_a_cache_that_is_too_large_is_refused_before_any_of_its_files_is_read(tmp_path):
    first = feature_store.FeatureStore(tmp_path / 'a', 2, 'float32', 1.0, {})
    first.write([(0,)], (4, 4), [torch.zeros(1, 2, 1, 1)])
    message = r'^feature cache: 2 views of 8e-06 MB, .*, above max_gb=1.5e-08: raise it'
    second = feature_store.FeatureStore(tmp_path / 'a', 2, 'float32', 1.5e-8, {})
    with pytest.raises(feature_store.FeatureCacheError, match=message):
        second.read([(0,)], (4, 4))


def test_half_precision_from_a_disk_is_read_in_mixed_precision_too(tmp_path):
    store = feature_store.FeatureStore(tmp_path / 'a', 2, 'float16', 1.0, {})
    views, maps = [(0,), (1,)], [torch.randn(2, 3, 1, 1)]
    kept = store.write(views, (4, 4), maps)
    with torch.autocast('cpu', torch.bfloat16):
        (read,) = store.read(views, (4, 4))
    assert read.dtype == torch.float32
    assert torch.equal(read, kept[0])


def test_a_record_of_the_cache_names_what_it_is_of(data):
    trained(data, 'a', epochs=1)
    (note,) = (data / 'cache').glob('*/about.json')
    assert json.loads(note.read_text())['backbone'] == 'test_vit'
