"""Checked reading of numpy's files: an array in ``.npy``, arrays by name in ``.npz``."""
from __future__ import annotations

import errno
import io
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray

# Raised by numpy and zipfile for damaged files; SystemError by the parser of headers.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, NotImplementedError, RuntimeError,
            ValueError, TypeError, OSError, SyntaxError, tokenize.TokenError, SystemError, MemoryError, OverflowError)
_KINDS = dict(f='floats', i='integers', U='text')
_INFLATION, _FREE = 100, 1 << 26  # arrays may take this many times the bytes of their archive, plus this many bytes


def read_npy(path: Path) -> ndarray:
    """Read the array of an ``.npy`` file.

    Raises:
        ValueError: The file is damaged or pickled.
    """
    try:
        with path.open('rb') as file:
            _check_header(file, path.stat().st_size)
            return np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise _refusal(f'{path}: not a .npy file of numbers', error) from error


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Read the shape, the dtype and the offset of the numbers of an ``.npy`` file in C order.

    Raises:
        ValueError: The file is damaged, pickled, in Fortran order, or of another size than its header promises.
    """
    size = path.stat().st_size
    try:
        with path.open('rb') as file:
            shape = _check_header(file, size)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, fortran, dtype = read(file)
            if fortran or file.tell() + math.prod(shape) * dtype.itemsize != size:
                raise ValueError(f'its header promises {shape} in {"Fortran" if fortran else "C"} order, and '
                                 f'{size - file.tell()} bytes follow')
            return shape, dtype, file.tell()
    except _DAMAGED as error:
        raise _refusal(f'{path}: not a .npy file of numbers', error) from error


def parse_npy(data: bytes, name: str) -> ndarray:
    """Read the array of an ``.npy`` from its content, such as that of a member of an archive.

    Raises:
        ValueError: The content is damaged or pickled.
    """
    try:
        file = io.BytesIO(data)
        _check_header(file, len(data))
        return np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise _refusal(f'{name}: not a .npy file of numbers', error) from error


def npz_keys(path: Path) -> set[str]:
    """List the names of the arrays of an archive.

    Raises:
        ValueError: The archive is damaged, or its arrays are implausibly larger than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inflated = sum(member.file_size for member in archive.infolist())
            if inflated > _FREE + _INFLATION * path.stat().st_size:
                raise ValueError(f'its {path.stat().st_size} bytes promise {inflated} bytes of arrays')
            return {name.removesuffix('.npy') for name in archive.namelist()}
    except _DAMAGED as error:
        raise _refusal(f'{path}: not an .npz archive', error, '; it is damaged or has the wrong suffix') from error


def npz_shape(path: Path, key: str) -> tuple[int, ...]:
    """Read the shape of an array of an archive from its header.

    Raises:
        ValueError: The array is damaged, pickled or absent.
    """
    with _open_member(path, key) as (_, shape):
        return shape


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, ndarray]:
    """Read arrays of an archive whose names :func:`npz_keys` has listed.

    Raises:
        ValueError: An array is damaged, pickled or absent.
    """
    arrays = {}
    for key in keys:
        with _open_member(path, key) as (file, _):
            arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
            codes = arrays[key].astype(arrays[key].dtype.newbyteorder('=')).reshape(-1).view(np.uint32) if (
                arrays[key].dtype.kind == 'U') else ()
            if len(codes) and codes.max() > sys.maxunicode:  # makes the interpreter raise a SystemError
                raise ValueError(f'it holds the code point {codes.max()}, which is no character')
    return arrays


def read_npz_of(path: Path, expected: Mapping[str, tuple[str, int]]) -> dict[str, ndarray]:
    """Read the named arrays of an archive and check their types.

    Args:
        path: The archive.
        expected: Kind of dtype and number of dimensions by name; ``'f'`` for floats, ``'i'`` for integers, ``'U'`` for
            text.

    Raises:
        ValueError: The archive is damaged, or an array is absent or of another type.
    """
    keys = npz_keys(path)
    for key in expected:
        if key not in keys:
            raise ValueError(f'{path}: holds {", ".join(sorted(keys))[:200] or "nothing"}, expected an array {key!r}')
    arrays = read_npz(path, expected)
    for key, (kind, ndim) in expected.items():
        if arrays[key].dtype.kind != kind or arrays[key].ndim != ndim:
            raise ValueError(f'{path}: {key!r} is {arrays[key].dtype} of {arrays[key].ndim} dimensions, expected '
                             f'{_KINDS[kind]} of {ndim}')
    return arrays


@contextmanager
def _open_member(path: Path, key: str) -> Iterator[tuple[BinaryIO, tuple[int, ...]]]:
    """Open an array of an archive, check its header, and yield the file and the shape."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f'{key}.npy') as file:
            yield file, _check_header(file, archive.getinfo(f'{key}.npy').file_size)
    except _DAMAGED as error:
        raise _refusal(f'{path}: its array {key!r} cannot be read', error) from error


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


def _refusal(problem: str, error: Exception, rest: str = '') -> Exception:
    """Return the error to raise for an error of a parser; errors of the system stay what they are."""
    return error if is_of_system(error) else ValueError(f'{problem} ({one_line(error)}){rest}')


def one_line(error: Exception) -> str:
    """Return the message of a parser's error as one line of at most 200 characters that UTF-8 can encode."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].encode('utf-8', 'backslashreplace').decode()
    return text if len(text) <= 200 else f'{text[:197]}...'


def is_of_system(error: Exception) -> bool:
    """Return whether an error tells of the disk or its permissions rather than of a file's content.

    Parsers raise an OSError without a number, and seek to negative places.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
