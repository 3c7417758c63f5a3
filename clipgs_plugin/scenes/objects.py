"""Objects of a scene: the Gaussians of each."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clipgs_plugin.structures import GaussianCloud

MIN_GAUSSIANS = 200  # fewer show no shape
NONE = -1            # label of a Gaussian of no object


@dataclass(frozen=True, eq=False, repr=False)
class SceneObjects:
    """Partition of the Gaussians of a scene into objects and the rest.

    Raises:
        ValueError: The shapes or types are others, or a Gaussian has a label that is not among the ids.
    """

    labels: Tensor  # (N,) int64, id of the object or -1
    ids: Tensor     # (M,) int64, 0 or greater, each once

    def __post_init__(self) -> None:
        for name, value in dict(labels=self.labels, ids=self.ids).items():
            if value.ndim != 1 or value.dtype != torch.int64:
                raise ValueError(f'{name} is {value.dtype} of shape {tuple(value.shape)}, expected torch.int64 of one '
                                 'dimension')
        if len(self.ids.unique()) != len(self.ids) or (self.ids < 0).any():
            raise ValueError(f'ids {self.ids[:10].tolist()}: expected distinct numbers of 0 or greater')
        strange = (self.labels != NONE) & ~torch.isin(self.labels, self.ids)
        if strange.any():
            raise ValueError(f'{int(strange.sum())} Gaussians have labels such as {int(self.labels[strange][0])}, '
                             'which are no ids of objects; make the objects with SceneObjects.from_labels')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} objects of {len(self.labels):,} Gaussians)'

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_labels(cls, labels: Tensor, min_gaussians: int = MIN_GAUSSIANS,
                    max_objects: int | None = None) -> SceneObjects:
        """Gather the objects of a split, those of most Gaussians first; Gaussians of the others get the label -1.

        Args:
            labels: Id of the object of each Gaussian, (N,) int64; negative for none.
            min_gaussians: Least number of Gaussians of an object.
            max_objects: Largest number of objects; None keeps all.

        Raises:
            ValueError: A limit is below 1.
        """
        for name, value in dict(min_gaussians=min_gaussians, max_objects=max_objects).items():
            if value is not None and value < 1:
                raise ValueError(f'{name}={value}: expected at least 1')
        ids, place, counts = labels.unique(return_inverse=True, return_counts=True)
        counts = torch.where(ids >= 0, counts, 0)
        order = counts.argsort(descending=True, stable=True)
        order = order[counts[order] >= min_gaussians][:max_objects]
        kept = torch.zeros(len(ids), dtype=torch.bool)
        kept[order] = True
        return cls(torch.where(kept[place], labels, NONE), ids[order])

    def storable(self) -> SceneObjects:
        """Return the objects with ids from 1 to 2^31 - 1, as a property of a .ply can store, where 0 is no object.

        Ids that are such stay; others are replaced by 1, 2, ... in the order of the objects.
        """
        if not len(self) or (self.ids.min() >= 1 and self.ids.max() < 2 ** 31):
            return self
        ids = torch.arange(1, len(self) + 1)
        return type(self)(self.spread(ids, NONE), ids)

    @cached_property
    def numbers(self) -> Tensor:
        """Place in ``ids`` of the object of each Gaussian, or -1, (N,) int64."""
        if not len(self):
            return torch.full_like(self.labels, NONE)
        ordered, order = self.ids.sort()
        place = torch.searchsorted(ordered, self.labels.clamp_min(0)).clamp_max(len(self) - 1)
        return torch.where(self.labels == NONE, NONE, order[place])

    @cached_property
    def members(self) -> tuple[Tensor, ...]:
        """Indices of the Gaussians of each object in their order, M of (n,) int64."""
        order = self.numbers.argsort(stable=True)
        counts = torch.bincount(self.numbers + 1, minlength=len(self) + 1)
        return order.split(counts.tolist())[1:]

    def of(self, ids: int | Sequence[int]) -> Tensor:
        """Return the mask of the Gaussians of some objects, (N,) bool.

        Raises:
            ValueError: There is no such object.
        """
        wanted = torch.as_tensor([ids] if isinstance(ids, int) else list(ids), dtype=torch.int64)
        absent = wanted[~torch.isin(wanted, self.ids)].tolist()
        if absent:
            known = ', '.join(map(str, self.ids[:20].tolist())) + (', ...' if len(self) > 20 else '')
            raise ValueError(f'there is no object {absent[0]}; the objects are {known or "none"}')
        return torch.isin(self.labels, wanted)

    def cut(self, cloud: GaussianCloud, ids: int | Sequence[int]) -> GaussianCloud:
        """Return some objects of the scene, in its frame."""
        return cloud[self.of(ids)]

    def remove(self, cloud: GaussianCloud, ids: int | Sequence[int]) -> GaussianCloud:
        """Return the scene without some objects."""
        return cloud[~self.of(ids)]

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Give each Gaussian the values of its object, (M, ...) to (N, ...); those of no object get ``fill``."""
        if len(values) != len(self):
            raise ValueError(f'values of shape {tuple(values.shape)} for {len(self)} objects, expected one row each')
        rest = values.new_full((1, *values.shape[1:]), fill)
        return torch.cat([values, rest])[self.numbers]  # -1 is the last row
