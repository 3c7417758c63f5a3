"""Objects as datasets of torch-geometric, in memory and on disk."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import InMemoryDataset, OnDiskDataset
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
    def processed_dir(self) -> str:
        return _folder(self)

    @property
    def processed_file_names(self) -> list[str]:
        return ['data.pt']

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


class GaussianOnDiskDataset(OnDiskDataset):
    """Splat files or a triplet set as :class:`GaussianData` in an SQLite database.

    Columns are typed by a schema, so that nothing is pickled and every bit is kept. An interrupted conversion starts
    again when the dataset is opened next.

    Args:
        root: Folder for the database; another source, teacher or SH degree gets another one.
        source, features: See :class:`GaussianDataset`. The source must stay, since its first object defines the schema.
        sh_degree: SH degree of all objects; None keeps that of the files, which must be equal.
        transform, pre_filter, backend, log: See :class:`torch_geometric.data.OnDiskDataset`.
    """

    def __init__(self, root: str | Path, source: str | Path, features: str | None = None,
                 sh_degree: int | None = None, transform: Callable | None = None, pre_filter: Callable | None = None,
                 backend: str = 'sqlite', log: bool = False) -> None:
        self.source = Path(source)
        self.features = features
        self.sh_degree = sh_degree
        self._columns = schema_of(next(read_objects(self.source, features, sh_degree)))
        super().__init__(str(root), transform, pre_filter, backend, dict(self._columns), log)

    @property
    def processed_dir(self) -> str:
        return _folder(self)

    @property
    def processed_file_names(self) -> list[str]:
        return [f'{self.backend}.db', f'{self.backend}.complete']

    def process(self) -> None:
        database, complete = map(Path, self.processed_paths)
        database.unlink(missing_ok=True)  # of a conversion that did not complete
        for data in read_objects(self.source, self.features, self.sh_degree):
            if self.pre_filter is None or self.pre_filter(data):
                self.append(data)
        complete.touch()

    def serialize(self, data: GaussianData) -> dict:
        if schema_of(data) != self._columns:
            raise ValueError(f'{self.source}: object {data.uid!r} has the columns {schema_of(data)}, the first object '
                             f'{self._columns}; if only sh differs, choose one SH degree with sh_degree=0')
        return data.to_dict()

    def deserialize(self, data: dict) -> GaussianData:
        return GaussianData.from_dict(data)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({str(self.source)!r}, {len(self)} objects)'


def schema_of(data: GaussianData) -> dict:
    """Return the schema of a database of objects like this one: a type, or dtype and size of a tensor, by attribute."""
    return {key: dict(dtype=value.dtype, size=(-1, *value.shape[1:])) if isinstance(value, Tensor) else type(value)
            for key, value in data.to_dict().items()}


def _folder(dataset: GaussianDataset | GaussianOnDiskDataset) -> str:
    """Return the folder of processed files, one for each source and choice of its content."""
    settings = (str(dataset.source.resolve()), dataset.features, dataset.sh_degree)
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    return str(Path(dataset.root) / 'processed' / f'{dataset.source.name}-{digest}')
