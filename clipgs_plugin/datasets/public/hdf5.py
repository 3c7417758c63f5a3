"""Rows of HDF5 files, read one at a time and within bounds."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MAX_ROWS, MAX_POINTS = 10 ** 6, 10 ** 6


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or not HDF5.
    """
    import h5py
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; download it, docs/datasets.md shows how the set lies on disk')
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: damaged or not an HDF5 file ({str(error)[:150]}); download it again') from None


def read_labels(path: Path, classes: int) -> np.ndarray:
    """Read ``label`` of every row, (n,) int64, and check that ``data`` has as many rows of points.

    Raises:
        ValueError: The arrays are absent, of another shape, or hold a label beyond the classes.
    """
    with open_hdf5(path) as file:
        data, label = _array(path, file, 'data'), _array(path, file, 'label')
        rows = len(data)
        if data.ndim != 3 or data.shape[2] < 3 or not 0 < data.shape[1] <= MAX_POINTS or rows > MAX_ROWS:
            raise ValueError(f'{path}: data has shape {data.shape}, expected (n, points, 3); download it again')
        if label.shape not in ((rows,), (rows, 1)) or label.dtype.kind not in 'iu':
            raise ValueError(f'{path}: label is {label.dtype} of shape {label.shape}, expected {rows} integers; '
                             'download it again')
        labels = label[()].reshape(rows).astype(np.int64)
    if rows and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f'{path}: label runs from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}; '
                         'download it again')
    return labels


def read_row(path: Path, row: int, key: str = 'data') -> np.ndarray | None:
    """Read the points (N, 3) of one row, or an array like them; None if the file lacks the key."""
    with open_hdf5(path) as file:
        if key != 'data' and key not in file:
            return None
        data = _array(path, file, key)
        if data.ndim != 3 or data.shape[1] > MAX_POINTS or not 3 <= data.shape[2] <= 16 or not 0 <= row < len(data):
            raise ValueError(f'{path}: {key} has shape {data.shape}, expected more than {row} rows of points; '
                             'download it again')
        return data[row, :, :3].astype(np.float32)


def _array(path: Path, file: Any, key: str) -> Any:
    """Return an array that lies in the file itself; links and virtual arrays may lead to any other file."""
    import h5py
    if key not in file or not isinstance(file.get(key, getlink=True), h5py.HardLink) or (
            not isinstance(file[key], h5py.Dataset)):
        raise ValueError(f'{path}: holds {", ".join(file)[:100]}, expected an array {key}; download it again')
    if file[key].is_virtual or file[key].external:
        raise ValueError(f'{path}: {key} lies in other files, which are not read; download it again')
    if file[key].dtype.kind not in 'iuf':
        raise ValueError(f'{path}: {key} is {file[key].dtype}, expected numbers; download it again')
    return file[key]
