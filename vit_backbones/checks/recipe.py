"""The checks before a training, in order: `tools/train.py` and `tools/check_config.py` share them.

`config_findings` takes the config alone, `model_findings` the built model too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from torch import nn

from vit_backbones.checks import preflight
from vit_backbones.checks.findings import Finding, attempt, error, warning
from vit_backbones.checks.keys import unknown_findings
from vit_backbones.checks.wiring import (
    padding_findings,
    preprocessing_findings,
    vit_of,
    wiring_findings,
)
from vit_backbones.config.datasets import dataset_configs, missing_data
from vit_backbones.config.registries import find_registered

WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path')
_HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head', 'mask_head')
_OTHER = ('STDCHead',)  # it learns edges
_OF_ALL = ('decode_head', 'auxiliary_head', 'panoptic_head')  # the others know things alone


def config_findings(
    config: Config, splits: Sequence[str], *, needs_data: bool = True
) -> Iterator[Finding]:
    """What a config alone tells: names that nothing reads, files that are not there.

    Args:
        config: The merged config.
        splits: Which dataloaders and evaluators count, of `'train'`, `'val'` and `'test'`.
        needs_data: Whether missing data are an error, or a warning.
    """
    yield from unknown_findings(config)
    yield from attempt(preflight.check_optimizer, config)
    if config.get('builtin_data'):  # drawn by whoever trains
        yield from attempt(preflight.check_drawn, config, splits)
    else:
        level = error if needs_data else warning
        yield from map(level, missing_data(config, splits))
    yield from attempt(preflight.check_weights, config)


def model_findings(config: Config, model: nn.Module, splits: Sequence[str]) -> Iterator[Finding]:
    """What the built model tells, with its config.

    Args:
        config: The merged config.
        model: Built from it.
        splits: As in `config_findings`; what only a training spoils needs `'train'` among them.
    """
    model = model.module if is_model_wrapper(model) else model
    yield from wiring_findings(model)
    yield from preprocessing_findings(model, expects=names_weights(config))
    yield from padding_findings(model)
    yield from class_findings(config, model, splits)
    if 'train' in splits:
        yield from weight_findings(config, model)
        yield from amp_findings(config, model)
        yield from _auxiliary_findings(config, model)


def names_weights(config: Config) -> bool:
    """Whether a config gives its backbone weights; a `load_from` may be anything's."""
    nodes = _model_and_backbones(config)
    starts = [node.get('init_cfg') or [] for node in nodes]
    listed = [each for start in starts for each in (start if isinstance(start, list) else [start])]
    loaded = any(each.get('type') == 'Pretrained' for each in listed)
    return loaded or any(nodes[-1].get(key) for key in WEIGHTS)


def _model_and_backbones(config: Config) -> list[dict[str, Any]]:
    """The model's config, its backbone's, and that of the ViT in a `ViTAdapter`."""
    nodes = [config.get('model') or {}]
    while isinstance(nodes[-1].get('backbone'), dict):
        nodes.append(nodes[-1]['backbone'])
    return nodes


def weight_findings(config: Config, model: nn.Module) -> Iterator[Finding]:
    """Whether a `ViTFeatBackbone` has weights; with `pretrained=False` it is meant to have none.

    Args:
        config: The merged config.
        model: Built from it.
    """
    vit = vit_of(model)
    if vit is None or vit.holds_weights or names_weights(config) or config.get('load_from'):
        return
    given = _model_and_backbones(config)[-1]
    fix = 'give it checkpoint=... or pretrained=True'
    if vit.frozen_stages > 0 or given.get('lora'):
        frozen = 'lora' if given.get('lora') else f'frozen_stages={vit.frozen_stages}'
        yield error(f'model.backbone has no weights, and {frozen} keeps random ones: {fix}')
    elif 'pretrained' not in given:
        yield warning(
            f'model.backbone has no weights and starts from random ones: {fix}, or say that it '
            f'is meant by pretrained=False'
        )


def amp_findings(config: Config, model: nn.Module) -> Iterator[Finding]:
    """Whether mixed precision suits the model.

    DINOv3's activations leave the range of float16, and so do those in the pixel decoder of
    Mask2Former at times; bfloat16 has float32's.

    Args:
        config: The merged config.
        model: Built from it.
    """
    wrapper = config.get('optim_wrapper') or {}
    # Without a dtype, autocast on a GPU takes float16
    if 'Amp' not in str(wrapper.get('type')) or wrapper.get('dtype') not in (None, 'float16'):
        return
    given = f'optim_wrapper.dtype={wrapper.get("dtype")!r} is float16'
    fix = "set optim_wrapper.dtype='bfloat16' and loss_scale=1.0"
    vit = vit_of(model)
    if vit and 'dinov3' in f'{vit.model_name} {type(vit.vit).__name__}'.lower():
        yield error(f'{given}, in which {vit.model_name} overflows to NaN: {fix}')
    elif any(type(each).__name__ == 'MSDeformAttnPixelDecoder' for each in model.modules()):
        yield warning(f"{given}, in which Mask2Former's pixel decoder may give NaN: {fix}")


def _auxiliary_findings(config: Config, model: nn.Module) -> Iterator[Finding]:
    iters = getattr(model, 'auxiliary_iters', 0)
    if iters and not finds_unused(config):
        yield warning(
            f'model.auxiliary_iters={iters}: in these iterations the head has no gradients, which '
            f'stops a training in several processes: set find_unused_parameters=True for those'
        )


def finds_unused(config: Config) -> bool:
    """Whether DDP is told to look for parameters without a gradient."""
    wrapper = config.get('model_wrapper_cfg') or config
    return bool(wrapper.get('find_unused_parameters'))


def class_findings(config: Config, model: nn.Module, splits: Sequence[str]) -> Iterator[Finding]:
    """Compare the classes of the heads with those of the datasets.

    Args:
        config: The merged config.
        model: Built from it.
        splits: As in `config_findings`.
    """
    heads = list(_counted_heads(model))
    told = set()
    for split in splits:
        loader = config.get(f'{split}_dataloader') or {}
        for place, dataset in dataset_configs(loader, f'{split}_dataloader'):
            metainfo = _metainfo(dataset, config.get('default_scope'))
            classes = metainfo.get('classes')
            if isinstance(classes, str):
                yield error(
                    f'{place}.metainfo.classes is the text {classes!r}: write ({classes!r},)'
                )
                continue
            for name, number in heads if classes else ():
                of_things = 'thing_classes' in metainfo and not name.endswith(_OF_ALL)
                wanted = metainfo['thing_classes'] if of_things else classes
                if number != len(wanted) and (name, len(wanted)) not in told:
                    told.add((name, len(wanted)))
                    yield error(
                        f'model.{name} is for {number} classes, but {place} has {len(wanted)} '
                        f'({", ".join(wanted[:3])}{", ..." if len(wanted) > 3 else ""}): '
                        f'{_fix(name, len(wanted))}'
                    )


def _metainfo(dataset: dict[str, Any], scope: str | None) -> dict[str, Any]:
    """What a dataset that is not built says of its classes, by its config and its type."""
    kind = dataset.get('type')
    kinds = [kind] if callable(kind) else find_registered(str(kind), scope)
    load = next((each._load_metainfo for each in kinds if hasattr(each, '_load_metainfo')), None)
    return {} if load is None else load(dataset.get('metainfo'))


def _counted_heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Heads below a detector or segmenter that have a number of classes, with that number."""
    for prefix, owner in (('', model), ('roi_head.', getattr(model, 'roi_head', None))):
        for name in _HEADS:
            heads = getattr(owner, name, None)
            for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
                number = getattr(head, 'num_classes', None)
                other = type(head).__name__ in _OTHER or getattr(head, 'class_agnostic', False)
                if isinstance(number, int) and not other:
                    yield prefix + name, number


def _fix(head: str, number: int) -> str:
    if head == 'panoptic_head':
        return (
            f'num_things_classes + num_stuff_classes must be {number}, here and in the fusion head'
        )
    return f'set model.{head}.num_classes={number}, or the metainfo of the dataset'
