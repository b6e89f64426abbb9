"""The quality of frozen features: the same linear probe on each backbone."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vit_backbones.benchmark.fine_tune import Training, plan_training
from vit_backbones.benchmark.labelled import Labelled, LabelledData, read_data
from vit_backbones.benchmark.patch_features import Features, compute_features
from vit_backbones.benchmark.probe import Sample, fit, test
from vit_backbones.benchmark.report import describe_environment
from vit_backbones.benchmark.table import ordered, table_row
from vit_backbones.config.loading import CONFIGS
from vit_backbones.devices import choose_device
from vit_backbones.features.plan import Item
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.position import Grid


class Kept(NamedTuple):
    """An image whose features are on disk.

    Attributes:
        labelled: The image.
        item: The same for the feature engine.
        features: Features of all images.
        device: Where to compute.
    """

    labelled: Labelled
    item: Item
    features: Features
    device: torch.device

    def read(self) -> Sample:
        """Read features and labels."""
        (array,) = self.features.parts.arrays(self.item.index, 1)
        features = torch.from_numpy(array).to(self.device).float()
        labels = torch.from_numpy(self.labelled.labels()).to(self.device)
        scales = zip(labels.shape, self.item.size, self.features.stride, strict=True)
        return Sample(features, labels, tuple(step * own / side for own, side, step in scales))


def choices(
    models: Sequence[str],
    *,
    source: str = 'timm',
    layers: str | Sequence[str] = 'even4',
    size: Grid | None = None,
    pretrained: bool = False,
    random_weights: int | None = None,
) -> list[Choice]:
    """The backbones of a comparison.

    Args:
        models: `NAME`, `NAME=CHECKPOINT`, `CONFIG.py` or `CONFIG.py=CHECKPOINT`.
        source: Library of the names.
        layers: Blocks whose outputs are joined.
        size: (H, W) of the images, if they are resized.
        pretrained: Give models without a checkpoint the library's weights.
        random_weights: Or draw theirs with this seed.
    """
    chosen = []
    for each in models:
        name, _, checkpoint = each.partition('=')
        place = 'config' if name.endswith(CONFIGS) else 'model'
        weights = (
            dict(checkpoint=checkpoint)
            if checkpoint
            else dict(pretrained=pretrained, random_weights=random_weights)
        )
        chosen.append(
            Choice(**{place: name}, **weights, source=source, layers=layers, img_size=size)
        )
    return chosen


class Comparison(NamedTuple):
    """Backbones to compare, checked.

    Attributes:
        data: Images to fit on and to test on.
        models: The backbones.
        trainings: Their trainings with a config's recipe, if wanted.
        environment: As `describe_environment` gives it.
        cache: Folder in which features are kept.
        size: (H, W) to resize images to.
        device: Where to compute.
    """

    data: LabelledData
    models: Sequence[Choice]
    trainings: Sequence[Training]
    environment: dict[str, Any]
    cache: Path
    size: Grid | None
    device: torch.device

    def rows(self) -> list[dict[str, Any]]:
        """`measured` of each backbone, with `hardware`, `date` and the results of its training."""
        known = self.environment
        threads = '' if self.device.type == 'cuda' else f', {known["threads"]} threads'
        common = dict(hardware=known['device'] + threads, date=known['date'])
        options = dict(size=self.size, device=self.device)
        rows = [measured(_load(m), self.data, self.cache, **options) | common for m in self.models]
        for row, training in zip(rows, self.trainings, strict=False):
            row |= training.reached()
        return rows


def compare(
    data: str | Path,
    models: Sequence[Choice],
    *,
    options: Sequence[str] = (),
    size: Grid | None = None,
    fine_tune: int | None = None,
    cache: Path = Path('work_dirs/features'),
    device: str | None = None,
) -> Comparison:
    """Prepare a linear probe on each backbone; everything wrong is found before the work starts.

    Args:
        data: As `read_data` takes it.
        models: The backbones.
        options: `key=value` changes of the config.
        size: (H, W) to resize images to.
        fine_tune: Epochs for which each backbone is trained afterwards, with the recipe of the
            config in `data`.
        cache: Folder in which features are kept.
        device: As PyTorch names it; by default the GPU, if there is one.

    Raises:
        OSError: For missing files.
        ValueError: For data or a model that cannot be used.
    """
    place = choose_device(device)
    read = read_data(data, options)
    for model in models:
        _load(model)
    asked = models if fine_tune else ()
    trainings = [plan_training(data, options, each, fine_tune, len(read.train)) for each in asked]
    return Comparison(read, models, trainings, describe_environment(place), cache, size, place)


def measured(
    loaded: Loaded,
    data: LabelledData,
    cache: Path,
    *,
    size: Grid | None = None,
    device: torch.device,
) -> dict[str, Any]:
    """Fit a linear probe on a backbone and test it; the arguments are those of `compare`.

    Returns:
        `model`, `weights`, `layers`, `dims`, `data`, `metric` (`'mIoU'`), `value` (0 to 1),
        `classes` (IoU of each, `None` where there is none), `penalty`, `parameters`,
        `feature_seconds`, `probe_seconds` and `images_per_second`.
    """
    start = time.perf_counter()
    labelled = [*data.train, *data.val]
    paths = [each.image for each in labelled]
    features = compute_features(loaded, paths, cache, size=size, device=device)
    middle = time.perf_counter()
    pairs = zip(labelled, features.items, strict=True)
    kept = [Kept(image, item, features, device) for image, item in pairs]
    train, val = kept[: len(data.train)], kept[len(data.train) :]
    fitted = fit(train, len(data.classes))
    (iou,) = test(val, fitted.scale, [fitted.coefficients])
    end = time.perf_counter()
    backbone = loaded.backbone
    return dict(
        model=loaded.name,
        weights=loaded.weights,
        layers=list(backbone.out_indices),
        dims=sum(backbone.out_channels),
        data=f'{data.name} val',
        metric='mIoU',
        value=float(iou.nanmean()),
        classes=dict(zip(data.classes, _numbers(iou), strict=True)),
        penalty=fitted.penalty,
        parameters=sum(each.numel() for each in backbone.parameters()),
        feature_seconds=round(middle - start, 1),
        probe_seconds=round(end - middle, 1),
        images_per_second=features.images_per_second,
    )


def by_class(rows: Sequence[dict[str, Any]]) -> str:
    """IoU of each class in percent, one column per model, as a table in Markdown."""
    rows = ordered(rows)
    lines = [['IoU, %', *(f'`{row["model"]}`' for row in rows)], ['---'] * (1 + len(rows))]
    for name in rows[0]['classes']:
        values = [row['classes'][name] for row in rows]
        lines.append([name, *('' if each is None else f'{100 * each:.1f}' for each in values)])
    return '\n'.join(map(table_row, lines))


def _load(choice: Choice) -> Loaded:
    return load_backbone(choice, norm='all', out_type='featmap')


def _numbers(values: torch.Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # NaN is not itself
