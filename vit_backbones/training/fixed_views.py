"""A dataset's images in some fixed augmentations each, so that their features can be kept."""

from collections.abc import Callable
from typing import Any

import torch

from vit_backbones.training.feature_store import FeatureCacheError
from vit_backbones.training.seeded_data import seeded

VIEW = 'view'  # in the metainfo of a data sample: (dataset, image, augmentation), all numbers


class FixedViews:
    """Stands for the `prepare_data` of a dataset: each image in one of some fixed augmentations.

    Which one is drawn anew each time; python's, NumPy's and PyTorch's generators are seeded for the
    augmentation and then go on as before.

    Args:
        prepare: The dataset's own `prepare_data`.
        dataset: Number of the dataset among those of the training.
        views: Augmentations an image.
        seed: Of the augmentations.
    """

    def __init__(
        self, prepare: Callable[[int], dict[str, Any] | None], dataset: int, views: int, seed: int
    ) -> None:
        self.prepare, self.dataset, self.views, self.seed = prepare, dataset, views, seed

    def __call__(self, index: int) -> dict[str, Any] | None:
        """A packed sample, or `None` where the pipeline gives none."""
        return self._view(index, int(torch.randint(self.views, ())))

    def check(self, images: int) -> None:
        """Refuse transforms that draw in another way, on the first images."""
        for index in range(images):
            one, again = (self._view(index, 0) for _ in range(2))
            if one and again and not torch.equal(one['inputs'], again['inputs']):
                raise FeatureCacheError(
                    'feature cache: the pipeline of a dataset gives another image for the same '
                    'seed, as CachedMosaic does, which mixes in what came before: train without it'
                )

    def _view(self, index: int, view: int) -> dict[str, Any] | None:
        with seeded(self.seed, self.dataset, index, view):
            sample = self.prepare(index)
        if sample is not None:
            if 'data_samples' not in sample:
                raise FeatureCacheError(
                    'feature cache: the pipeline of a dataset does not pack its samples, as below '
                    'MultiImageMixDataset, whose mixtures have no fixed views: train without it'
                )
            sample['data_samples'].set_metainfo({VIEW: (self.dataset, index, view)})
        return sample
