"""Reading of pickled numpy arrays without running code: arrays, numbers and text in lists, tuples and dicts.

Published datasets are pickles, object arrays of numpy, or files of ``torch.save``, and name eight globals in all. They
map to stand-ins here, so that a file calls neither numpy nor any other module. Every other global is refused by
its name.
"""
from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import struct
import tokenize
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipgs_plugin.io.arrays import one_line

MAX_DEPTH = 64
_CODE = re.compile(r'[<>=|]?(\?|[biufSU]\d{1,9}|O8?)')
_NPY = b'\x93NUMPY'
# What the unpickler and its stand-ins raise on damaged bytes.
_DAMAGED = (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError,
            MemoryError, RecursionError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile,
            NotImplementedError, RuntimeError)


class _Refused(ValueError):
    """Finding of a global or an operation that no data set of arrays needs."""


class _Dtype:
    """Stand-in for ``numpy.dtype``: the code of a plain number, of text, or of objects."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if isinstance(code, bytes):
            code = code.decode('ascii')
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError(f'an array of type {code!r:.60}, expected numbers, text or objects')
        self.code = code.lstrip('<>=|')
        self.order = code[0] if code[0] in '<>' else '<'

    def __setstate__(self, state: tuple) -> None:
        if len(state) > 3 and any(part is not None for part in state[2:5]):
            raise ValueError('an array with fields, expected one of plain numbers')
        if state[1] in ('<', '>'):
            self.order = state[1]

    @property
    def plain(self) -> np.dtype:
        return np.dtype(self.order + self.code if self.code not in ('?', 'O', 'O8') else self.code[0])


class _Array:
    """Stand-in for ``numpy.ndarray``, filled by its pickled state."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None
        self.items: tuple[tuple[int, ...], list] | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, 'F' if fortran else 'C', data)

    def fill(self, shape: tuple, dtype: _Dtype, order: str, data: Any) -> _Array:
        """Take the values if the shape asks for as many as there are."""
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or (
                not isinstance(dtype, _Dtype)):
            raise ValueError('an array of unknown shape or type')
        count = math.prod(shape)
        if dtype.plain.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise ValueError(f'an array of shape {shape} without its objects')
            self.items = shape, data
            return self
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.plain.itemsize:
            raise ValueError(f'an array of shape {shape} and type {dtype.plain}, whose bytes are not as many')
        self.value = np.frombuffer(data, dtype.plain).reshape(shape, order='F' if order == 'F' else 'C') if count else (
            np.zeros(shape, dtype.plain))
        return self


def _scalar(dtype: _Dtype, data: Any = b'', *_: Any) -> Any:
    return _Array().fill((), dtype, 'C', data).value[()]


def _empty_bytes(*arguments: Any) -> bytes:
    """Return what protocol 2 stores for the bytes of an empty array."""
    if arguments:
        raise _Refused(f'builtins.bytes of {len(arguments)} arguments')
    return b''


def _encode(text: str, encoding: str = '') -> bytes:
    """Return the bytes that protocol 2 stores as Latin-1 text."""
    if encoding != 'latin1' or not isinstance(text, str):
        raise _Refused(f'_codecs.encode with {encoding!r:.40}')
    return text.encode('latin1')


STAND_INS: dict[tuple[str, str], Callable] = {
    ('numpy', 'ndarray'): _Array, ('numpy', 'dtype'): _Dtype, ('_codecs', 'encode'): _encode,
    ('builtins', 'bytes'): _empty_bytes, ('__builtin__', 'bytes'): _empty_bytes,
    **{(f'numpy.{core}.{module}', name): value for core in ('core', '_core') for module, name, value in (
        ('multiarray', '_reconstruct', lambda *_: _Array()), ('multiarray', 'scalar', _scalar),
        ('numeric', '_frombuffer', lambda data, dtype, shape, order: _Array().fill(shape, dtype, order, data)))},
}


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows the stand-ins alone."""

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in STAND_INS:
            raise _Refused(f'{module}.{name}')
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f'a reference outside the pickle, {pid!r:.60}')


def read_pickle(source: Path | bytes, name: str | None = None) -> Any:
    """Read a pickle of arrays, an object ``.npy``, or a file of ``torch.save``; no code in it runs.

    Args:
        source: Path of the file, or its content.
        name: Name of the file in errors, by default the path.

    Returns:
        Numbers, text, arrays (read-only), and lists, tuples and dicts of them.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, or names a global that no data set needs; the message has its name.
    """
    name = str(source) if name is None else name
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        if data.startswith(_NPY):
            data = data[_start_of_objects(data):]
        elif data.startswith(b'PK'):
            data = _pickle_of_torch(data)
        _check_operations(data)
        return _plain(_Unpickler(io.BytesIO(data)).load(), 0, {})
    except _Refused as error:
        raise ValueError(f'{name}: holds {error}, which could run code or is no data, so it was not loaded; expected '
                         'arrays, numbers and text alone, download it from its publisher') from None
    except _DAMAGED as error:
        raise ValueError(f'{name}: damaged or not a pickle of arrays ({one_line(error)}); download it again') from None


def _start_of_objects(data: bytes) -> int:
    """Return where the pickle of an object array starts.

    The pickle is that of the whole array, so the shape of the header is not needed.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if not read(file)[2].hasobject:
        raise ValueError('an array of numbers, expected one of objects')
    return file.tell()


def _pickle_of_torch(data: bytes) -> bytes:
    """Return the pickle of an archive that ``torch.save`` wrote."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = next((item for item in archive.infolist() if item.filename.endswith('/data.pkl')), None)
        if member is None:
            raise ValueError('an archive without data.pkl')
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
            raise ValueError('a compressed archive, which torch.save never writes')
        return archive.read(member)


def _check_operations(data: bytes) -> None:
    """Refuse what no array needs: lengths beyond the file, and places in the memo beyond the number of operations."""
    operations, highest = 0, -1
    for operation, argument, _ in pickletools.genops(io.BytesIO(data)):
        operations += 1
        if operation.name in ('INST', 'OBJ', 'EXT1', 'EXT2', 'EXT4', 'NEXT_BUFFER', 'BINPERSID', 'PERSID'):
            raise _Refused(f'the operation {operation.name}')
        if operation.name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            highest = max(highest, int(argument))
    if highest > operations:
        raise ValueError(f'its memo has a place {highest} after {operations} operations')


def _plain(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """Replace the stand-ins of nested data by arrays; ``done`` holds results by the identity of their source."""
    if depth > MAX_DEPTH:
        raise ValueError(f'data nested deeper than {MAX_DEPTH} levels')
    if not isinstance(value, (dict, list, tuple, _Array)):
        if value is not None and not isinstance(value, (str, bytes, bytearray, int, float, complex, np.generic)):
            raise _Refused(f'an object of type {type(value).__name__}')
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        result = _array(value, depth, done)
    elif isinstance(value, dict):
        result = {key: _plain(item, depth + 1, done) for key, item in value.items()}
    else:
        result = type(value)(_plain(item, depth + 1, done) for item in value)
    done[id(value)] = result
    return result


def _array(value: _Array, depth: int, done: dict[int, Any]) -> np.ndarray:
    if value.items is None:
        if value.value is None:
            raise ValueError('an array without its state')
        return value.value
    shape, items = value.items
    array = np.empty(len(items), object)
    for i, item in enumerate(items):
        array[i] = _plain(item, depth + 1, done)
    return array.reshape(shape)
