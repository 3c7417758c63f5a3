"""Point clouds in numpy's files: tables in ``.npy``, and one cloud or many in ``.npz``."""
from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.sources.point_files import split_columns

_KEYS = dict(positions=('points', 'xyz', 'positions', 'pos', 'vertices'), colors=('colors', 'rgb', 'color'),
             normals=('normals', 'normal'))
# Raised by numpy and zipfile for damaged files.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
            OSError, SyntaxError, tokenize.TokenError, MemoryError)


def read_npy(path: Path) -> dict[str, ndarray]:
    """Read a table of 3, 6 or 9 columns.

    Raises:
        ValueError: The file is damaged, pickled, or another table.
    """
    try:
        with path.open('rb') as file:
            _check_header(file, path.stat().st_size)
            table = np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError(f'{path}: not a .npy file of numbers ({error})') from None
    return split_columns(str(path), table)


def read_npz(path: Path) -> dict[str, ndarray]:
    """Read an archive of one cloud.

    Raises:
        ValueError: The archive is damaged or holds several clouds.
    """
    arrays = read_arrays(path)
    if arrays['positions'].ndim == 3:
        list_rows(path)  # reports damaged names and labels first
        raise ValueError(f'{path}: holds {len(arrays["positions"])} clouds; list it with PointSource, and load one row')
    return cloud_of(str(path), arrays)


def read_arrays(path: Path) -> dict[str, ndarray]:
    """Read ``positions`` and, if present, ``colors`` and ``normals`` of one cloud or of several.

    Raises:
        ValueError: The archive is damaged, or its arrays do not fit each other.
    """
    keys = _read_keys(path)
    found = {kind: key for kind, choices in _KEYS.items()
             if (key := next((key for key in choices if key in keys), None)) is not None}
    if 'positions' not in found:
        raise ValueError(f'{path}: holds {", ".join(sorted(keys)) or "nothing"}, expected an array named '
                         f'{" or ".join(_KEYS["positions"])}')
    arrays = {kind: _read_member(path, key) for kind, key in found.items()}
    for kind, array in arrays.items():
        if array.shape[:-1] != arrays['positions'].shape[:-1]:
            raise ValueError(f'{path}: {kind} have shape {array.shape}, the positions {arrays["positions"].shape}')
    return arrays


def cloud_of(where: str, arrays: dict[str, ndarray]) -> dict[str, ndarray]:
    """Return the arrays of one cloud, which may be a single table of several columns."""
    return split_columns(where, arrays['positions']) if len(arrays) == 1 else arrays


def list_rows(path: Path) -> list[tuple[str, str | None]] | None:
    """List the name and the category of each cloud of an archive; None for an archive of one cloud.

    Clouds without ``names`` are named by the file and a number.

    Raises:
        ValueError: The archive is damaged, or ``names`` or ``labels`` do not fit it.
    """
    keys = _read_keys(path)
    position = next((key for key in _KEYS['positions'] if key in keys), None)
    if position is None:
        return None
    with _open_member(path, position) as (_, shape):
        pass
    if len(shape) != 3:
        return None
    columns = {key: _read_member(path, key) for key in ('names', 'labels', 'classes') if key in keys}
    for key in ('names', 'labels'):
        if key in columns and columns[key].shape != shape[:1]:
            raise ValueError(f'{path}: {key} have shape {columns[key].shape}, expected ({shape[0]},), one per cloud')
    names = [str(name) for name in columns.get('names', [f'{path.stem}_{i:05d}' for i in range(shape[0])])]
    labels, classes = columns.get('labels'), columns.get('classes')
    if labels is not None and labels.dtype.kind == 'U':
        return list(zip(names, map(str, labels)))
    if labels is None or classes is None:
        return [(name, None) for name in names]
    if labels.dtype.kind not in 'iu' or (len(labels) and not 0 <= labels.min() <= labels.max() < len(classes)):
        raise ValueError(f'{path}: labels are {labels.dtype} that do not all lie in 0..{len(classes) - 1}, the rows of '
                         'classes')
    return [(name, str(classes[label])) for name, label in zip(names, labels)]


def _check_header(file: BinaryIO, size: int) -> tuple[int, ...]:
    """Check that the header of an array promises no more than ``size`` bytes, rewind the file and return the shape.

    numpy allocates what a header promises, and divides by the size of an item.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    held = size - file.tell()
    if dtype.hasobject:
        raise ValueError('it holds pickled objects, which are not read; save numbers and strings')
    if dtype.itemsize == 0 or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > held:
        raise ValueError(f'its header promises {shape} items of {dtype.itemsize} bytes, the file holds {held} bytes')
    file.seek(0)
    return shape


def _read_keys(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix('.npy') for name in archive.namelist()}
    except _DAMAGED as error:
        raise ValueError(f'{path}: not an .npz archive ({error}); it is damaged or has the wrong suffix') from None


@contextmanager
def _open_member(path: Path, key: str) -> Iterator[tuple[BinaryIO, tuple[int, ...]]]:
    """Open an array of an archive, check its header, and yield the file and the shape."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f'{key}.npy') as file:
            yield file, _check_header(file, archive.getinfo(f'{key}.npy').file_size)
    except _DAMAGED as error:
        raise ValueError(f'{path}: its array {key!r} cannot be read ({error})') from None


def _read_member(path: Path, key: str) -> ndarray:
    with _open_member(path, key) as (file, _):
        return np.lib.format.read_array(file, allow_pickle=False)
