"""ModelNet as Gaussians: thin discs on the sampled points."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.datasets.base import GaussianDataset, label_names
from clipgs_plugin.datasets.public.hdf5 import read_labels, read_row
from clipgs_plugin.io.arrays import npz_keys, read_npz
from clipgs_plugin.ops import farthest_point_sample
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import MISSING_COLOR, GaussianCloud, surface_discs
from clipgs_plugin.structures.normals import estimate_normals

SPLITS = ('train', 'val', 'trainval', 'test')


class PointFiles(NamedTuple):
    """Objects of the training or the test part of a ModelNet.

    ``points(i)`` returns positions (N, 3) of object i and its normals (N, 3), or None for the normals.
    """

    classes: list[str]
    names: list[str]
    labels: ndarray  # (n,) int64
    points: Callable[[int], tuple[ndarray, ndarray | None]]


@DATASETS.register_module()
class ModelNetGaussians(GaussianDataset):
    """ModelNet10 or ModelNet40 with its official split, each object as thin grey discs on its points.

    Three layouts of the point clouds are read, and told apart by the files in ``root``:

    - ``train.npz`` and ``test.npz`` with ``points`` (n, N, 3), ``labels`` (n,), ``names`` (n,) and ``classes`` (C,);
    - ``modelnet40_normal_resampled``: ``modelnet{10,40}_shape_names.txt``, ``modelnet{10,40}_{train,test}.txt`` and
      ``CLASS/NAME.txt`` of positions and normals;
    - ``modelnet40_ply_hdf5_2048``: ``shape_names.txt`` and ``ply_data_{train,test}*.h5``.

    Normals orient the discs; where a file has none, they are estimated from neighbours. The frame is that of the files.
    Each object has ``uid``, ``category`` (the class name in words), ``label`` and ``gaussians``.

    ModelNet has no validation split. ``'val'`` is a fixed share of each class of the training part, ``'train'`` the
    rest and ``'trainval'`` both, so that epochs and settings need not be chosen on the test part.

    Args:
        root: Folder of one of the layouts.
        split: ``'train'``, ``'val'``, ``'trainval'`` or ``'test'``.
        pipeline: Transforms or their configs.
        num_points: Number of points of an object. Of more, a random choice is drawn anew in each epoch, or in test
            mode the farthest points.
        num_classes: 10 or 40 in a folder that has the lists of both.
        classes: Classes to use, labelled in this order; None uses all, in the order of the files.
        per_class: Maximum number of objects of a class, drawn with ``seed``; None uses all.
        val_share: Share of each class of the training part that ``'val'`` has.
        test_mode: Use epoch 0 in every epoch, for evaluation.
        seed: Random seed of the objects, the points and the transforms.

    Raises:
        FileNotFoundError: The folder has none of the layouts, or lacks a file of its layout.
        ValueError: An argument is out of range, or a file is damaged.
    """

    def __init__(self, root: str | Path, split: str = 'train',
                 pipeline: Sequence[dict | Callable] = ({'type': 'LoadGaussians'},), num_points: int = 1024,
                 num_classes: int | None = None, classes: Sequence[str] | None = None, per_class: int | None = None,
                 val_share: float = 0.1, test_mode: bool = False, seed: int = 0) -> None:
        super().__init__(pipeline, seed, test_mode)
        if split not in SPLITS:
            raise ValueError(f'split={split!r}: expected one of {SPLITS}')
        if num_points < 1 or not 0 < val_share < 1 or (per_class is not None and per_class < 1):
            raise ValueError(f'num_points={num_points}, per_class={per_class}, val_share={val_share}: expected at '
                             'least 1, at least 1 or None, and a share between 0 and 1')
        self.root, self.split, self.num_points = Path(root), split, num_points
        self._files = read_modelnet(self.root, 'test' if split == 'test' else 'train', num_classes)
        words = [name.replace('_', ' ') for name in self._files.classes]
        self.classes = words if classes is None else label_names(words, classes, str(root))
        self._whole: dict[int, GaussianCloud] = {}  # by row in the files
        self._items: list[tuple[int, int]] = []  # row in the files, label
        for label, name in enumerate(self.classes):
            rows = _part_of_split(np.flatnonzero(self._files.labels == words.index(name)), split, val_share)
            if per_class is not None:
                rows = np.sort(np.random.default_rng((seed, label)).permutation(rows)[:per_class])
            self._items += [(int(row), label) for row in rows]
        if not self._items:
            raise ValueError(f'{root} has no object of the split {split!r}; check its files')

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({str(self.root)!r}, {self.split!r}: {len(self)} objects, '
                f'{len(self.classes)} classes)')

    def load(self, index: int, rng: np.random.Generator) -> dict:
        row, label = self._items[index]
        cloud = self._whole.get(row) or self._make(row, rng)
        return dict(uid=self._files.names[row], category=self.classes[label], label=label, gaussians=cloud)

    def _make(self, row: int, rng: np.random.Generator) -> GaussianCloud:
        """Make the discs of an object; those on all of its points are kept, since they take longer than a forward."""
        positions, normals = self._files.points(row)
        chosen = self._choose(positions, rng)
        normals = estimate_normals(positions, positions[chosen]) if normals is None else normals[chosen]
        cloud = surface_discs(positions[chosen], normals, np.full((len(chosen), 3), MISSING_COLOR))
        if len(chosen) == len(positions):
            self._whole[row] = cloud
        return cloud

    def _choose(self, positions: ndarray, rng: np.random.Generator) -> ndarray:
        """Return the indices of at most ``num_points`` of the positions (N, 3)."""
        if len(positions) <= self.num_points:
            return np.arange(len(positions))
        if self.test_mode:
            points = torch.from_numpy(np.ascontiguousarray(positions, np.float32))
            return farthest_point_sample(points[None], self.num_points)[0].numpy()
        return np.sort(rng.choice(len(positions), self.num_points, replace=False))


def _part_of_split(rows: ndarray, split: str, val_share: float) -> ndarray:
    """Return the rows (n,) of a class that a split has; which ones are held out depends on their number alone."""
    if split in ('trainval', 'test'):
        return rows
    shuffled = np.random.default_rng(len(rows)).permutation(rows)
    count = max(1, round(val_share * len(rows)))
    return np.sort(shuffled[:count] if split == 'val' else shuffled[count:])


def read_modelnet(root: Path, part: str, num_classes: int | None = None) -> PointFiles:
    """Find the layout of a folder and read its training or test part; see :class:`ModelNetGaussians`."""
    if (root / f'{part}.npz').is_file():
        found = _read_npz(root / f'{part}.npz')
    elif any(root.glob(f'ply_data_{part}*.h5')):
        found = _read_h5(root, part)
    else:
        found = _read_txt(root, part, num_classes)
    if num_classes not in (None, len(found.classes)):
        raise ValueError(f'num_classes={num_classes}, but {root} has {len(found.classes)} classes; leave it out')
    if len(found.labels) and not 0 <= found.labels.min() <= found.labels.max() < len(found.classes):
        raise ValueError(f'{root}: labels of {part} run from {found.labels.min()} to {found.labels.max()}, expected 0 '
                         f'to {len(found.classes) - 1}; the files do not belong together')
    return found


def _read_npz(path: Path) -> PointFiles:
    expected = ('points', 'labels', 'names', 'classes')
    missing = sorted(set(expected) - npz_keys(path))
    if missing:
        raise ValueError(f'{path} lacks the arrays {", ".join(missing)}, expected {", ".join(expected)}')
    arrays = read_npz(path, expected)
    points, labels = arrays['points'], arrays['labels']
    if points.ndim != 3 or points.shape[2] != 3 or not len(points) == len(labels) == len(arrays['names']):
        raise ValueError(f'{path}: points {points.shape}, labels {labels.shape} and names {arrays["names"].shape} do '
                         'not fit; expected (n, N, 3), (n,) and (n,)')
    return PointFiles(arrays['classes'].tolist(), arrays['names'].tolist(), labels.astype(np.int64),
                      lambda i: (points[i].astype(np.float32), None))


def _read_txt(root: Path, part: str, num_classes: int | None) -> PointFiles:
    count = num_classes or next((n for n in (40, 10) if (root / f'modelnet{n}_shape_names.txt').is_file()), None)
    if count is None:
        raise FileNotFoundError(f'{root} has neither {part}.npz, nor modelnet40_shape_names.txt, nor '
                                f'ply_data_{part}*.h5; name the folder that directly holds the files of ModelNet')
    classes, names = (_lines(root / f'modelnet{count}_{what}.txt') for what in ('shape_names', part))
    folders = [name.rpartition('_')[0] for name in names]
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise ValueError(f'{root}: modelnet{count}_{part}.txt lists objects of {unknown[:3]}, which '
                         f'modelnet{count}_shape_names.txt lacks')

    def points(i: int) -> tuple[ndarray, ndarray]:
        path = root / folders[i] / f'{names[i]}.txt'
        table = np.loadtxt(path, delimiter=',', dtype=np.float32, ndmin=2)
        if table.shape[1] != 6:
            raise ValueError(f'{path}: {table.shape[1]} columns, expected 6, positions and normals')
        return table[:, :3], table[:, 3:]

    return PointFiles(classes, names, np.array([classes.index(folder) for folder in folders], np.int64), points)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def _read_h5(root: Path, part: str) -> PointFiles:
    classes = _lines(root / 'shape_names.txt')
    labels = {path: read_labels(path, len(classes)) for path in sorted(root.glob(f'ply_data_{part}*.h5'))}
    rows = [(path, row) for path, found in labels.items() for row in range(len(found))]
    label = np.concatenate(list(labels.values()))
    names = [f'{classes[k]}_{part}_{i:05d}' for i, k in enumerate(label)]
    return PointFiles(classes, names, label, lambda i: (read_row(*rows[i]), read_row(*rows[i], 'normal')))
