"""Source of point clouds, and the surfels that represent a cloud without images to fit."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Listed, Points, Surface
from clipgs_plugin.generation.sources import point_archives
from clipgs_plugin.generation.sources.base import check_axis
from clipgs_plugin.generation.sources.listing import clean_uid, distinct_uids, find_files, list_files, path_split
from clipgs_plugin.generation.sources.point_files import READERS, check_points
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import MISSING_COLOR
from clipgs_plugin.structures.normals import NEIGHBORS, estimate_normals

MAX_CANDIDATES = 200_000  # points searched for neighbours; among millions the nearest differ by noise alone


@TASK_UTILS.register_module()
class PointSource:
    """Files of points, with or without colours and normals.

    - ``.ply``: the vertices, ascii or binary; ``red green blue``, ``nx ny nz``.
    - ``.pcd``: ascii, binary, binary_compressed; ``rgb``, ``rgba``, ``normal_x ...``. NaN points of an organised cloud
      (HEIGHT above 1) are missing measurements and are dropped.
    - ``.npz``: one cloud of ``points``, ``colors``, ``normals`` (also ``xyz``, ``rgb``), (N, 3) each; or an archive of
      n objects, (n, N, 3) each, with ``names`` (n,) and ``labels`` (n,) into ``classes``. A process keeps the archive
      that it read last in memory.
    - ``.npy``, ``.xyz``, ``.txt``: 3, 6 or 9 columns, separated by spaces or commas. Three columns of unit length with
      a negative number among them are normals, three others are colours. ``.txt`` files below a folder are not listed,
      since most hold no points.

    Integer colours are 0..255 (uint16: 0..65535). Float colours are 0..1, or 0..255 if one exceeds 1. If one normal is
    not finite or has no length, the cloud loads without normals. Nothing is unpickled.

    Args:
        up: Up axis of the files.
        clean: Drop points with a NaN or infinite position instead of refusing the file.
    """

    suffixes = ('.ply', '.pcd', '.npz', '.npy', '.xyz')

    def __init__(self, up: str = 'y', clean: bool = False) -> None:
        self.up = check_axis(up)
        self.clean = clean

    def list(self, root: Path) -> list[Listed]:
        """List the objects below a folder, or of one file; a damaged archive is one object that fails to load."""
        root = Path(root)
        found: list[Listed] = []
        additions: list[str] = []
        for listed in list_files(root, find_files(root, self.suffixes)):
            rows = _list_rows(listed, root) if listed.path.suffix.lower() == '.npz' else [listed]
            found += rows
            additions += [listed.uid] * len(rows)
        uids = distinct_uids([listed.uid for listed in found], additions)
        return [Listed(uid, old.path, old.category, old.captions, old.split, old.attributes)
                for uid, old in zip(uids, found)]

    def load(self, listed: Listed) -> Points:
        """Load the point cloud of an object.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: Unknown ending, damaged or empty file, wrong columns, or NaN; the message names the file.
        """
        if 'row_of_set' not in listed.attributes:
            return read_points(listed.path, self.clean)
        row = listed.attributes['row_of_set']
        archive = _read_archive(listed.path, listed.path.stat().st_mtime_ns)
        where, arrays = f'{listed.path}, row {row}', {name: array[row] for name, array in archive.items()}
        return check_points(where, point_archives.cloud_of(where, arrays), self.clean)


@lru_cache(maxsize=1)
def _read_archive(path: Path, modified: int) -> dict[str, ndarray]:
    """Read an archive once per process and time of modification; copies of a source share it."""
    return point_archives.read_arrays(path)


def _list_rows(listed: Listed, root: Path) -> list[Listed]:
    """List the objects of an archive; an archive of one cloud or a damaged one is itself the object."""
    path = listed.path
    try:
        rows = point_archives.list_rows(path)
    except (OSError, ValueError):
        return [listed]
    if rows is None:
        return [listed]
    split = path_split(path, root)
    return [Listed(clean_uid(name), path, category, split=split, attributes=dict(row_of_set=i, name=name))
            for i, (name, category) in enumerate(rows)]


def read_points(path: Path, clean: bool = False) -> Points:
    """Read the point cloud of a file, whose ending selects the format.

    Args:
        path: Path of the file.
        clean: Drop points with a NaN or infinite position instead of refusing the file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Unknown ending, damaged or empty file, archive of several clouds, wrong columns, or NaN.
        ImportError: A compressed ``.pcd`` needs a package that is not installed.
    """
    path = Path(path)
    readers = {**READERS, '.npz': point_archives.read_npz, '.npy': point_archives.read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f'{path}: unknown ending {path.suffix!r} of a point cloud; expected one of '
                         f'{", ".join(readers)}')
    if path.stat().st_size == 0:
        raise ValueError(f'{path}: the file is empty; download or export it again')
    return check_points(str(path), reader(path), clean)


def surfels(points: Points, count: int, seed: int) -> tuple[Surface, dict]:
    """Draw oriented samples of a cloud, from which Gaussians are made without a fit.

    If the cloud has no normals, a normal is the direction of least variance of the 12 nearest among at most 200,000
    points, oriented away from their centroid.

    Args:
        points: Cloud of at least one point.
        count: Maximum number of samples, drawn without replacement and kept in their order.
        seed: Random seed of the draw.

    Returns:
        The samples, and the origin of their ``normals`` and ``colors``: ``'file'`` or the method.
    """
    if count < 1:
        raise ValueError(f'count={count}: expected at least 1')
    total = len(points.positions)
    rng = np.random.default_rng((seed, total))
    chosen = np.sort(rng.choice(total, count, replace=False)) if count < total else np.arange(total)
    origin = dict(normals='file', colors='file')
    if points.normals is not None:
        normals = points.normals[chosen]
    else:
        candidates = points.positions
        if total > MAX_CANDIDATES:
            candidates = candidates[rng.choice(total, MAX_CANDIDATES, replace=False)]
        normals = estimate_normals(candidates, points.positions[chosen])
        origin['normals'] = f'estimated from {NEIGHBORS} neighbours'
    if points.colors is not None:
        colors = points.colors[chosen]
    else:
        colors = np.full((len(chosen), 3), MISSING_COLOR, np.float32)
        origin['colors'] = f'{MISSING_COLOR} grey'
    return Surface(points.positions[chosen], normals, colors), origin
