"""What the features of backbones are worth: one linear probe for all, on frozen features."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vit_backbones.benchmark.fine_tune import plan_training
from vit_backbones.benchmark.labelled import Labelled, LabelledData, read_data
from vit_backbones.benchmark.patch_features import Features, compute_features
from vit_backbones.benchmark.probe import Sample, fit, test
from vit_backbones.benchmark.results import (
    describe_environment,
    heading,
    markdown,
    ordered,
    table_row,
    write_json,
)
from vit_backbones.config.loading import CONFIGS
from vit_backbones.devices import choose_device
from vit_backbones.files import check_writable
from vit_backbones.models.chosen import Choice, Loaded, load_backbone
from vit_backbones.position import Grid


class Item(NamedTuple):
    """An image whose features are on disk.

    Attributes:
        labelled: The image.
        file: Of its features.
        stride: Of their cells in pixels of what the model saw.
        size: (H, W) that it was resized to, if it was.
        device: Where it shall be.
    """

    labelled: Labelled
    file: Path
    stride: tuple[int, int]
    size: Grid | None
    device: torch.device

    def read(self) -> Sample:
        """Read features and labels."""
        features = torch.from_numpy(np.load(self.file)).to(self.device).float()
        labels = torch.from_numpy(self.labelled.labels()).to(self.device)
        seen = self.size or labels.shape
        scales = zip(labels.shape, seen, self.stride, strict=True)
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
    """The backbones that a command line names.

    Args:
        models: `NAME`, `NAME=CHECKPOINT`, `CONFIG.py` or `CONFIG.py=CHECKPOINT`.
        source: Library of the names.
        layers: Blocks whose outputs are concatenated.
        size: (H, W) of the images, if they are resized.
        pretrained: Whether those without a checkpoint get the library's weights.
        random_weights: Or a seed for theirs.
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


def run_quality(
    data: str | Path,
    models: Sequence[Choice],
    *,
    options: Sequence[str] = (),
    size: Grid | None = None,
    fine_tune: int | None = None,
    cache: Path = Path('work_dirs/features'),
    device: str | None = None,
    out: Path | None = None,
) -> int:
    """Fit a linear probe on each backbone, and print a table in Markdown.

    Args:
        data: As `read_data` takes it.
        models: The backbones.
        options: `key=value` changes of the config.
        size: (H, W) to resize images to.
        fine_tune: Epochs in which each backbone is trained after that, by the recipe of the
            config that `data` must be then.
        cache: Where features are kept.
        device: As PyTorch names it; by default the GPU, if there is one.
        out: JSON file: `environment`, and `rows` as `measured` gives them, with what
            `Training.reached` tells.

    Returns:
        Exit code.

    Raises:
        OSError: For files that are missing, or that cannot be written.
        ValueError: For data or a model that cannot be used.
    """
    if out is not None:
        check_writable(out)
    place = choose_device(device)
    read = read_data(data, options)
    for model in models:  # what is wrong with the last one is told before the first
        _load(model)
    asked = models if fine_tune else ()
    trainings = [plan_training(data, options, each, fine_tune, len(read.train)) for each in asked]
    environment = describe_environment(place)
    print(heading(environment), flush=True)
    threads = '' if place.type == 'cuda' else f', {environment["threads"]} threads'
    told = dict(hardware=environment['device'] + threads, date=environment['date'])
    rows = [measured(_load(model), read, cache, size=size, device=place) | told for model in models]
    for row, training in zip(rows, trainings, strict=False):
        row |= training.reached()
    print(f'\n{markdown(rows)}\n\n{_by_class(ordered(rows))}')
    if out is not None:
        write_json(out, environment=environment, rows=rows)
        print(f'wrote {out}')
    return 0


def measured(
    loaded: Loaded,
    data: LabelledData,
    cache: Path,
    *,
    size: Grid | None = None,
    device: torch.device,
) -> dict[str, Any]:
    """What the features of a backbone are worth.

    Args:
        loaded: The backbone.
        data: Images to learn from and to test on.
        cache: Where features are kept.
        size: (H, W) to resize images to.
        device: Where to compute.

    Returns:
        `model`, `weights`, `layers`, `dims`, `data`, `metric` (`'mIoU'`), `value` (0 to 1),
        `classes` (IoU of each, `None` where there is none), `penalty`, `parameters`,
        `feature_seconds`, `probe_seconds` and `images_per_second`.
    """
    start = time.perf_counter()
    images = [each.image for each in (*data.train, *data.val)]
    features = compute_features(loaded, images, cache, size=size, device=device)
    middle = time.perf_counter()
    items = _items(data, features, size, device)
    train, val = items[: len(data.train)], items[len(data.train) :]
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


def _load(choice: Choice) -> Loaded:
    return load_backbone(choice, norm='all', out_type='featmap')


def _items(
    data: LabelledData, features: Features, size: Grid | None, device: torch.device
) -> list[Item]:
    pairs = zip((*data.train, *data.val), features.files, strict=True)
    return [Item(image, file, features.stride, size, device) for image, file in pairs]


def _numbers(values: torch.Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # NaN is not itself


def _by_class(rows: Sequence[dict[str, Any]]) -> str:
    """IoU of each class in percent, a column a model."""
    lines = [['IoU, %', *(f'`{row["model"]}`' for row in rows)], ['---'] * (1 + len(rows))]
    for name in rows[0]['classes']:
        values = [row['classes'][name] for row in rows]
        lines.append([name, *('' if each is None else f'{100 * each:.1f}' for each in values)])
    return '\n'.join(map(table_row, lines))
