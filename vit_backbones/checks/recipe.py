"""The checks before a training, in order: `tools/train.py` and `tools/check_config.py` share them.

`config_findings` needs only the facts of the config, `model_findings` the built model too.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from vit_backbones.checks.class_weights import class_weight_findings
from vit_backbones.checks.data import drawn_findings
from vit_backbones.checks.findings import Finding, error, note, warning
from vit_backbones.checks.keys import unknown_findings
from vit_backbones.checks.one_output import MMSEG_HEADS, OTHER_HEADS, one_output_findings
from vit_backbones.checks.preflight import load_from_findings, weight_file_findings
from vit_backbones.checks.preprocessing import preprocessing_findings
from vit_backbones.checks.schedules import schedule_findings
from vit_backbones.checks.weight_decay import weight_decay_findings
from vit_backbones.checks.wiring import (
    bare,
    padding_findings,
    parts_of,
    vit_of,
    wiring_findings,
)
from vit_backbones.config.datasets import metainfo_of, missing_data
from vit_backbones.config.facts import Facts, nodes, type_name
from vit_backbones.devices import amp_dtype
from vit_backbones.errors import some

_HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head', 'mask_head')
_PADDING = ('Pad', 'PadWithBlack', 'RandomCenterCropPad', 'LetterResize')
_OF_ALL = ('decode_head', 'auxiliary_head', 'panoptic_head')  # the others know only things


def config_findings(facts: Facts, *, needs_data: bool = True) -> Iterator[Finding]:
    """Names in a config that nothing reads, and files that are missing.

    Missing data are an error if the caller `needs_data`, else a warning.
    """
    yield from unknown_findings(facts)
    yield from constructor_findings(facts)
    yield from class_order_findings(facts)
    yield from label_findings(facts)
    yield from metric_findings(facts)
    if facts.builtin_data:  # the training draws them
        yield from drawn_findings(facts)
    else:
        yield from map(error if needs_data else warning, missing_data(facts))
    yield from weight_file_findings(facts)
    if 'train' in facts.datasets:
        yield from schedule_findings(facts)


def model_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Findings in the built model; those on training only with `'train'` among the splits."""
    model = bare(model)
    yield from wiring_findings(model)
    yield from preprocessing_findings(model, facts, expects=facts.names_weights)
    yield from padding_findings(model)
    yield from pad_findings(facts, model)
    yield from class_findings(facts, model)
    yield from one_output_findings(facts, model)
    if 'train' in facts.datasets:
        yield from load_from_findings(facts, model)
        yield from weight_findings(facts, model)
        yield from class_weight_findings(_counted_heads(model))
        yield from weight_decay_findings(facts, model)
        yield from amp_findings(facts, model)
        yield from _auxiliary_findings(facts, model)
        yield from _ignored_findings(facts, model)


def pad_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a pipeline pads: models take it for image, and mmseg never takes it off."""
    vit = vit_of(model)
    is_masked = vit is not None and vit.masks_padding
    for place, dataset in facts.every_dataset:
        steps = list(nodes(dataset.get('pipeline') or [], f'{place}.pipeline'))
        names = [type_name(node) for _, node, _ in steps]
        is_tested = not place.startswith('train') and 'PackSegInputs' in names
        for (where, _, _), name in zip(steps, names, strict=True):
            if name in _PADDING and is_masked:
                yield warning(
                    f'{where} is {name}, whose padding counts as image: '
                    f'backbone.mask_padding=True does not mask it; leave {name} out, the '
                    f'data_preprocessor pads'
                )
            elif name in ('Pad', 'PadWithBlack') and is_tested:
                yield warning(
                    f'{where} is {name}, and mmseg stretches predictions of padded images to the '
                    f'size of the file: leave {name} out, and give model.data_preprocessor '
                    f'test_cfg=dict(size_divisor=...), whose padding it takes off'
                )


def label_findings(facts: Facts) -> Iterator[Finding]:
    """Whether a training loads labels."""
    for place, dataset in facts.datasets.get('train', ()):
        names = {type_name(node) for _, node, _ in nodes(dataset.get('pipeline') or [])}
        loaders = {name for name in names if name.startswith('Load')}
        if loaders == {'LoadImageFromFile'} and names & {'PackDetInputs', 'PackSegInputs'}:
            yield warning(
                f'{place}.pipeline loads no labels: add LoadAnnotations behind LoadImageFromFile'
            )


def metric_findings(facts: Facts) -> Iterator[Finding]:
    """Whether a metric compares resized boxes with those of files."""
    for split, datasets in facts.datasets.items():
        metrics = [type_name(node) for _, node, _ in nodes(facts.evaluators[split])]
        for place, dataset in datasets if 'VOCMetric' in metrics else ():
            names = [type_name(each) for each in dataset.get('pipeline') or ()]
            if 'LoadAnnotations' not in names:
                continue
            if 'Resize' in names[names.index('LoadAnnotations') :]:
                yield warning(
                    f'{place}.pipeline resizes annotations, and VOCMetric compares them with '
                    f'predictions in pixels of the file: move LoadAnnotations behind Resize'
                )


def constructor_findings(facts: Facts) -> Iterator[Finding]:
    """Whether layer decay knows the layers; mmdet and mmseg raise a bare `NotImplementedError`."""
    constructor = str((facts.config.get('optim_wrapper') or {}).get('constructor'))
    is_ours = 'ViTFeat' in str(facts.chain[-1].get('type'))
    if constructor.endswith('DecayOptimizerConstructor') and is_ours:
        yield error(
            f'optim_wrapper.constructor={constructor!r} knows only the layers of ConvNeXt and '
            f"BEiT: write 'ViTLayerDecayConstructor' in its place, paramwise_cfg may stay"
        )


def weight_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a `ViTFeatBackbone` has weights; with `pretrained=False` it needs none."""
    vit = vit_of(model)
    if vit is None or vit.holds_weights or facts.names_weights or facts.load_from:
        return
    given = facts.chain[-1]
    fix = 'give it checkpoint=... or pretrained=True'
    if vit.frozen_stages > 0 or given.get('lora'):
        frozen = 'lora' if given.get('lora') else f'frozen_stages={vit.frozen_stages}'
        yield error(f'model.backbone has no weights, and {frozen} keeps random ones: {fix}')
    elif 'pretrained' not in given:
        yield warning(
            f'model.backbone has no weights and starts from random ones: {fix}, or, if '
            f'random weights are wanted, pretrained=False'
        )


def amp_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether mixed precision suits the model.

    DINOv3's activations leave the range of float16, and so do those in the pixel decoder of
    Mask2Former at times; bfloat16 has the range of float32.
    """
    wrapper = facts.config.get('optim_wrapper') or {}
    kind, dtype = str(wrapper.get('type')), wrapper.get('dtype')
    if 'PortableAmp' in kind:
        dtype = dtype or amp_dtype()
        yield note(f'optim_wrapper.type={kind} trains in mixed precision, here in {dtype}')
    # Without a dtype, autocast on a GPU takes float16
    if 'Amp' not in kind or dtype not in (None, 'float16'):
        return
    given = f'optim_wrapper.dtype={dtype!r} is float16'
    fix = "set optim_wrapper.dtype='bfloat16' and loss_scale=1.0"
    vit = vit_of(model)
    if vit and 'dinov3' in f'{vit.model_name} {type(vit.vit).__name__}'.lower():
        yield error(f'{given}, in which {vit.model_name} overflows to NaN: {fix}')
    elif any(_is_pixel_decoder(each) for each in model.modules()):
        yield warning(f"{given}, in which Mask2Former's pixel decoder may give NaN: {fix}")


def _is_pixel_decoder(module: nn.Module) -> bool:
    return any(each.__name__ == 'MSDeformAttnPixelDecoder' for each in type(module).__mro__)


def _auxiliary_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    iters = getattr(model, 'auxiliary_iters', 0)
    if iters and not facts.finds_unused:
        yield warning(
            f'model.auxiliary_iters={iters}: in these iterations the head has no gradients, which '
            f'stops a training in several processes: set find_unused_parameters=True for those'
        )


def _ignored_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Whether a segmenter's head ignores the label of a class."""
    infos = (metainfo_of(dataset, facts.scope) for _, dataset in facts.datasets['train'])
    classes = next((info['classes'] for info in infos if info.get('classes')), ())
    for name in MMSEG_HEADS:
        for head in parts_of(model, name):
            label = getattr(head, 'ignore_index', None)
            if isinstance(label, int) and 0 <= label < len(classes):
                yield warning(
                    f'model.{name}.ignore_index={label} is the label of class {classes[label]!r}, '
                    f'which is never learned: leave ignore_index out to learn it'
                )


def class_findings(facts: Facts, model: nn.Module) -> Iterator[Finding]:
    """Compare the classes of the heads with those of the datasets."""
    heads = list(_counted_heads(model))
    reported = set()
    for place, dataset in facts.every_dataset:
        metainfo = metainfo_of(dataset, facts.scope)
        classes = metainfo.get('classes')
        if isinstance(classes, str):
            yield error(f'{place}.metainfo.classes is the text {classes!r}: write ({classes!r},)')
            continue
        for name, head in heads if classes else ():
            number = head.num_classes
            if number == 1 and name in MMSEG_HEADS:  # `one_output_findings` has a line on it
                continue
            of_things = 'thing_classes' in metainfo and not name.endswith(_OF_ALL)
            wanted = metainfo['thing_classes'] if of_things else classes
            if number != len(wanted) and (name, len(wanted)) not in reported:
                reported.add((name, len(wanted)))
                yield error(
                    f'model.{name} is for {number} classes, but {place} has {len(wanted)} '
                    f'({some(wanted)}): '
                    f'{_fix(name, len(wanted))}'
                )


def class_order_findings(facts: Facts) -> Iterator[Finding]:
    """Whether one label has one name in all datasets."""
    named: dict[str, Sequence[str]] = {}
    for place, dataset in facts.every_dataset:
        classes = metainfo_of(dataset, facts.scope).get('classes')
        if classes and not isinstance(classes, str) and not dataset.get('return_classes'):
            named[place] = classes
    for place, classes in named.items():
        first, others = next(iter(named.items()))
        differ = [i for i, (a, b) in enumerate(zip(others, classes, strict=False)) if a != b]
        if not differ or len(classes) != len(others):  # class_findings reports other numbers
            continue
        label = differ[0]
        moved = set(others).intersection(classes[i] for i in differ)
        yield (error if moved else warning)(
            f'{place}.metainfo.classes has {classes[label]!r} as label {label}, but {first} has '
            f'{others[label]!r}: give both the same classes in the same order'
        )


def _counted_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads below a detector or segmenter that have a number of classes, with their names."""
    for prefix, owner in (('', model), ('roi_head.', getattr(model, 'roi_head', None))):
        for name in _HEADS:
            for head in parts_of(owner, name):
                number = getattr(head, 'num_classes', None)
                other = type(head).__name__ in OTHER_HEADS or getattr(head, 'class_agnostic', False)
                if isinstance(number, int) and not other:
                    yield prefix + name, head


def _fix(head: str, number: int) -> str:
    if head == 'panoptic_head':
        both = 'num_things_classes + num_stuff_classes'
        return f'{both} must be {number}, here and in the fusion head'
    return f'set model.{head}.num_classes={number}, or the metainfo of the dataset'
