"""Sets of points, as Gaussians: the base class, and ModelNet40 and ScanObjectNN in HDF5."""
from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.datasets.public.base import Entry, Listing, PublicSet
from clipgs_plugin.datasets.public.class_names import MODELNET40, SCANOBJECTNN
from clipgs_plugin.datasets.public.hdf5 import read_labels, read_row
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import MISSING_COLOR, GaussianCloud, surface_discs
from clipgs_plugin.structures.normals import estimate_normals


class PointSet(PublicSet):
    """Set of points; each becomes a thin disc on the surface (:func:`~clipgs_plugin.structures.surface_discs`).

    Normals that a set lacks are estimated, and points without colour are grey 0.4. Position and colour of the Gaussians
    are those of the points, so a point-cloud model sees the set as published.

    Args:
        root: Folder of the set.
        split: Name of a split, of ``splits``.
        num_points: Use the first points of each object, as the published protocols do; None uses all.
        **options: Those of :class:`~clipgs_plugin.datasets.public.PublicSet`.
    """

    def __init__(self, root: str | Path, split: str = 'test', num_points: int | None = None, **options) -> None:
        if num_points is not None and num_points < 1:
            raise ValueError(f'num_points={num_points}: expected at least 1')
        self.num_points = num_points
        super().__init__(root, split, **options)

    @abstractmethod
    def read_points(self, entry: Entry) -> tuple[ndarray, ndarray | None, ndarray | None]:
        """Read positions (N, 3), and colours in [0, 1] and unit normals (N, 3) if the set has them."""

    def read(self, entry: Entry) -> GaussianCloud:
        positions, colors, normals = (None if part is None else part[:self.num_points]
                                      for part in self.read_points(entry))
        if not len(positions) or not np.isfinite(positions).all():
            raise ValueError(f'{self.root}: object {entry.uid} holds no points, or some that are not finite; '
                             'download it again')
        if colors is None:
            colors = np.full(positions.shape, MISSING_COLOR, np.float32)
        if normals is None:
            normals = estimate_normals(positions, positions)
        return surface_discs(positions, normals, colors)


@DATASETS.register_module()
class ModelNet40HDF5(PointSet):
    """ModelNet40 as 2,048 points with normals, ``modelnet40_ply_hdf5_2048/ply_data_{train0..4,test0..1}.h5``.

    Names of the objects are in ``ply_data_train_0_id2file.json``; without the file they are numbers. Source: Qi et al.,
    "PointNet", CVPR 2017.
    """

    def list_entries(self) -> Listing:
        files = sorted(self.root.rglob(f'ply_data_{self.published}*.h5'))
        if not files:
            raise FileNotFoundError(f'{self.root}: lacks ply_data_{self.published}0.h5 and its siblings; name the '
                                    'folder modelnet40_ply_hdf5_2048')
        entries = []
        for path in files:
            labels = read_labels(path, len(MODELNET40))
            names = _row_names(path, self.published, len(labels))
            entries += [Entry(name, (path, row), MODELNET40[label])
                        for row, (name, label) in enumerate(zip(names, labels))]
        return Listing(entries, MODELNET40)

    def read_points(self, entry: Entry) -> tuple[ndarray, None, ndarray | None]:
        points, normals = read_row(*entry.place), read_row(*entry.place, 'normal')
        if normals is not None:
            if normals.shape != points.shape:
                raise ValueError(f'{entry.place[0]}: normal has {len(normals)} rows an object, expected {len(points)} '
                                 'as data has; download it again')
            lengths = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = normals / lengths if np.isfinite(lengths).all() and (lengths > 0).all() else None
        return points, None, normals


def _row_names(path: Path, split: str, count: int) -> list[str]:
    number = path.stem.removeprefix(f'ply_data_{split}')
    table = path.with_name(f'ply_data_{split}_{number}_id2file.json')
    names = read_json(table, schema=[str]) if table.is_file() else []
    if len(names) != count:
        return [f'{path.stem}_{row:04d}' for row in range(count)]
    return [Path(name).stem for name in names]


VARIANTS = {  # folder and ending of the file's name
    'OBJ_BG': ('main_split', ''), 'OBJ_ONLY': ('main_split_nobg', ''),
    'PB_T25': ('main_split', '_augmented25_norot'), 'PB_T25_R': ('main_split', '_augmented25rot'),
    'PB_T50_R': ('main_split', '_augmentedrot'), 'PB_T50_RS': ('main_split', '_augmentedrot_scale75')}


@DATASETS.register_module()
class ScanObjectNN(PointSet):
    """ScanObjectNN: 2,048 points of real scans, ``main_split[_nobg]/{training,test}_objectdataset*.h5``.

    The files name no objects, so the uid is the row.

    Source: Uy et al., "Revisiting Point Cloud Classification", ICCV 2019.

    Args:
        root: Folder of ``main_split`` and ``main_split_nobg``, such as ``h5_files``.
        split: ``'train'`` or ``'test'``.
        variant: ``'OBJ_ONLY'``, ``'OBJ_BG'`` (with background), ``'PB_T25'``, ``'PB_T25_R'``, ``'PB_T50_R'`` or
            ``'PB_T50_RS'`` (perturbed, the hardest).
        **options: Those of :class:`PointSet`.
    """

    def __init__(self, root: str | Path, split: str = 'test', variant: str = 'PB_T50_RS', **options) -> None:
        if variant not in VARIANTS:
            raise ValueError(f'variant={variant!r}: expected one of {", ".join(VARIANTS)}')
        self.variant = variant
        super().__init__(root, split, **options)

    def list_entries(self) -> Listing:
        folder, ending = VARIANTS[self.variant]
        name = f'{"training" if self.published == "train" else "test"}_objectdataset{ending}.h5'
        path = next((found for found in sorted(self.root.rglob(name)) if found.parent.name == folder),
                    self.root / folder / name)
        labels = read_labels(path, len(SCANOBJECTNN))
        return Listing([Entry(f'{self.variant}/{self.published}/{row:05d}', (path, row), SCANOBJECTNN[label])
                        for row, label in enumerate(labels)], SCANOBJECTNN)

    def read_points(self, entry: Entry) -> tuple[ndarray, None, None]:
        return read_row(*entry.place), None, None
