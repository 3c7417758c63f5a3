"""Objects as datasets of torch-geometric, in memory and on disk."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset
from torch_geometric.io import fs

from clipgs_plugin.geometric.data import GaussianData
from clipgs_plugin.geometric.sources import read_objects

PARTS = ('train', 'val', 'test')


class GaussianDataset(InMemoryDataset):
    """Splat files or a triplet set as :class:`GaussianData` in memory.

    Args:
        root: Folder for the processed objects. Files are read once; another source, teacher or SH degree is processed
            anew.
        source: Folder that :func:`~clipgs_plugin.geometric.sources.read_objects` reads: a triplet set, class folders
            of splat files, or any folder of them.
        features: Teacher whose cached features of a triplet set are loaded.
        sh_degree: SH degree of all objects; None keeps that of the files, which must be equal.
        transform, pre_transform, pre_filter, log, force_reload: See
            :class:`torch_geometric.data.InMemoryDataset`.
    """

    def __init__(self, root: str | Path, source: str | Path, features: str | None = None,
                 sh_degree: int | None = None, transform: Callable | None = None, pre_transform: Callable | None = None,
                 pre_filter: Callable | None = None, log: bool = False, force_reload: bool = False) -> None:
        self.source = Path(source)
        self.features = features
        self.sh_degree = sh_degree
        super().__init__(str(root), transform, pre_transform, pre_filter, log, force_reload)
        # Without classes of its own, PyG saves a dict that torch.load reads with weights_only.
        self.load(self.processed_paths[0], GaussianData)

    @property
    def processed_file_names(self) -> list[str]:
        return [f'{self.source.name}-{_digest(self.source.resolve(), self.features, self.sh_degree)}.pt']

    def process(self) -> None:
        objects = [data for data in read_objects(self.source, self.features, self.sh_degree)
                   if self.pre_filter is None or self.pre_filter(data)]
        if not objects:
            raise ValueError(f'{self.source}: pre_filter leaves no object')
        degrees = sorted({data.to_cloud().sh_degree for data in objects})
        if len(degrees) > 1:
            raise ValueError(f'{self.source}: the objects have SH degrees {degrees}, and one batch has one; choose it '
                             f'with sh_degree={degrees[-1]}')
        if self.pre_transform is not None:
            objects = [self.pre_transform(data) for data in objects]
        data, slices = self.collate(objects)
        fs.torch_save((data.to_dict(), slices), self.processed_paths[0])

    def get_idx_split(self) -> dict[str, Tensor]:
        """Return the indices of the objects of each split, as in the Open Graph Benchmark; empty without splits."""
        parts = [data.part for data in self] if 'part' in self._data else []
        return {name: torch.tensor([i for i, part in enumerate(parts) if part == name])
                for name in PARTS if name in parts}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.source)!r}, {len(self)} objects)'


def _digest(*settings) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
