"""Prepared objects: what a head that tunes an encoder learns from, by uid."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch.utils.data import Dataset

from clipgs_plugin.datasets.frozen_features import FrozenFeatures
from clipgs_plugin.datasets.preparation import Transform, prepare_object
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import GaussianCloud


class PreparedObjects:
    """Objects of a dataset after the pipeline of a model, read when they are asked for.

    Args:
        dataset: Config of a dataset that loads clouds.
        transform: Test pipeline of the model.
        features: Features of the same dataset, whose rows are in its order without objects that have no class.
    """

    def __init__(self, dataset: dict, transform: Transform, features: FrozenFeatures) -> None:
        self._config, self.transform, self.features = dict(dataset), transform, features

    @cached_property
    def _objects(self) -> Dataset:
        return DATASETS.build(dict(self._config))

    def take(self, uids: Sequence[str]) -> list[GaussianCloud]:
        """Read and prepare objects.

        Raises:
            ValueError: An object is not among the features, or not in the dataset.
        """
        return [self._read(row, uid) for row, uid in zip(self.features.rows(uids), uids)]

    def _read(self, row: int, uid: str) -> GaussianCloud:
        left_out = len(self._objects) - len(self.features)  # objects without a class
        for index in range(row, row + left_out + 1):
            item = self._objects[index]
            if item['uid'] == uid:
                return prepare_object(self.transform, item['gaussians'], f'object {uid!r}')
        raise ValueError(f'object {uid!r} of the features is not at its place in {self._objects!r}; delete the '
                         'features, so that they are computed again')
