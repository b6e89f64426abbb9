"""The quality of frozen features: the same linear probe on each backbone."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vit_backbones.benchmark.fine_tune import Training, plan_training
from vit_backbones.benchmark.labelled import Labelled, LabelledData, read_data
from vit_backbones.benchmark.patch_features import Features, compute_features
from vit_backbones.benchmark.probe import Sample, fit, test
from vit_backbones.benchmark.results import describe_environment, ordered, table_head, table_row
from vit_backbones.devices import choose_device
from vit_backbones.features.plan import Item
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.position import Grid


class Kept(NamedTuple):
    """An image whose features are on disk."""

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
    """The backbones of a comparison, `NAME` or `CONFIG.py`, maybe with `=CHECKPOINT`.

    Args:
        source: Library of the names.
        layers: Blocks whose outputs are joined.
        size: (H, W) of the images, if they are resized.
        pretrained: Give models without a checkpoint the library's weights.
        random_weights: Or draw theirs with this seed.
    """
    common = dict(source=source, layers=layers, img_size=size)
    others = dict(pretrained=pretrained, random_weights=random_weights)
    return [Choice.named(each, **common, **others) for each in models]


class Comparison(NamedTuple):
    """Backbones to compare, checked, and their trainings with a config's recipe, if wanted."""

    data: LabelledData
    models: Sequence[Choice]
    trainings: Sequence[Training]
    environment: dict[str, Any]
    cache: Path
    size: Grid | None
    device: torch.device

    def rows(self, say: Callable[[str], None], command: str = '') -> list[dict[str, Any]]:
        """Run the comparison: a row of results for each backbone.

        Keys: `model`, `weights`, `layers`, `size` (`'HxW'`, or `'own'` for images as they are),
        `dims`, `data`, `metric` (`'mIoU'`), `value` (0 to 1), `classes` (IoU of each, `None`
        where there is none), `penalty`, `parameters`, `feature_seconds`, `probe_seconds`,
        `images_per_second`, `hardware` and `date`; and the results of the training.
        """
        known = self.environment
        threads = '' if self.device.type == 'cuda' else f', {known["threads"]} threads'
        common = dict(hardware=known['device'] + threads, date=known['date'])
        rows = [self._row(_load(model)) | common for model in self.models]
        for row, training in zip(rows, self.trainings, strict=False):
            row |= training.reached(say, command)
        return rows

    def _row(self, loaded: Loaded) -> dict[str, Any]:
        start = time.perf_counter()
        kept, images_per_second = self._kept(loaded)
        middle = time.perf_counter()
        number = len(self.data.train)
        fitted = fit(kept[:number], len(self.data.classes))
        (iou,) = test(kept[number:], fitted.scale, [fitted.coefficients])
        end = time.perf_counter()
        return dict(
            model=loaded.name,
            weights=loaded.weights,
            layers=list(loaded.backbone.out_indices),
            size='{}x{}'.format(*self.size) if self.size else 'own',
            dims=sum(loaded.backbone.out_channels),
            data=f'{self.data.name} val',
            metric='mIoU',
            value=float(iou.nanmean()),
            classes=dict(zip(self.data.classes, _numbers(iou), strict=True)),
            penalty=fitted.penalty,
            parameters=sum(each.numel() for each in loaded.backbone.parameters()),
            feature_seconds=round(middle - start, 1),
            probe_seconds=round(end - middle, 1),
            images_per_second=images_per_second,
        )

    def _kept(self, loaded: Loaded) -> tuple[list[Kept], float | None]:
        """The images to fit on, then those to test on, and the speed."""
        labelled = [*self.data.train, *self.data.val]
        paths = [each.image for each in labelled]
        found = compute_features(loaded, paths, self.cache, size=self.size, device=self.device)
        pairs = zip(labelled, found.items, strict=True)
        kept = [Kept(image, item, found, self.device) for image, item in pairs]
        return kept, found.images_per_second


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
        options: `key=value` changes of the config.
        size: (H, W) to resize images to.
        fine_tune: Epochs for which each backbone is trained afterwards, with the recipe of the
            config in `data`.
        cache: Folder in which features are kept.

    Raises:
        OSError, ValueError: For missing files, or data or a model that cannot be used.
    """
    place = choose_device(device)
    read = read_data(data, options)
    for model in models:
        _load(model)
    asked = models if fine_tune else ()
    trainings = [plan_training(data, options, each, fine_tune, len(read.train)) for each in asked]
    return Comparison(read, models, trainings, describe_environment(place), cache, size, place)


def by_class(rows: Sequence[dict[str, Any]]) -> str:
    """IoU of each class in percent, one column per model, as a table in Markdown."""
    rows = ordered(rows)
    lines = [*table_head(['IoU, %', *(f'`{row["model"]}`' for row in rows)])]
    for name in rows[0]['classes']:
        values = [row['classes'][name] for row in rows]
        cells = ('' if each is None else f'{100 * each:.1f}' for each in values)
        lines.append(table_row([name, *cells]))
    return '\n'.join(lines)


def _load(choice: Choice) -> Loaded:
    return load_backbone(choice, norm='all', out_type='featmap')


def _numbers(values: torch.Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # NaN is not itself
