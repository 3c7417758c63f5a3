"""The PLY container: header and elements, without meaning."""
from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TYPES = {'char': 'i1', 'uchar': 'u1', 'short': 'i2', 'ushort': 'u2', 'int': 'i4', 'uint': 'u4', 'float': 'f4',
          'double': 'f8', 'int8': 'i1', 'uint8': 'u1', 'int16': 'i2', 'uint16': 'u2', 'int32': 'i4', 'uint32': 'u4',
          'float32': 'f4', 'float64': 'f8'}
_ORDERS = {'binary_little_endian': '<', 'binary_big_endian': '>', 'ascii': ''}
_NATIVE = '<' if sys.byteorder == 'little' else '>'


@dataclass(frozen=True)
class Element:
    """One element of the header, e.g. ``vertex``; ``dtype`` is None where a property is a list."""

    name: str
    count: int
    dtype: np.dtype | None

    @property
    def properties(self) -> tuple[str, ...]:
        return self.dtype.names or () if self.dtype is not None else ()


@dataclass(frozen=True)
class Ply:
    """A parsed header over the bytes of its file."""

    path: Path
    encoding: str
    elements: tuple[Element, ...]
    data: mmap.mmap
    start: int  # offset of the first element

    def __contains__(self, name: str) -> bool:
        return any(element.name == name for element in self.elements)

    def __getitem__(self, name: str) -> Element:
        return next(element for element in self.elements if element.name == name)

    def read(self) -> dict[str, np.ndarray]:
        """Every element up to the first one with a list, as a structured array.

        Raises:
            ValueError: The file is longer or shorter than the header promises.
        """
        return self._read_ascii() if self.encoding == 'ascii' else self._read_binary()

    def _read_binary(self) -> dict[str, np.ndarray]:
        tables, offset = {}, self.start
        for element in self.elements:
            if element.dtype is None:
                return tables  # a list's length is not known; what follows is no part of a splat
            end = offset + element.count * element.dtype.itemsize
            if end > len(self.data):
                found = max(0, len(self.data) - offset) // element.dtype.itemsize
                raise ValueError(f'{self.path}: header promises {element.count} of element {element.name!r} of '
                                 f'{element.dtype.itemsize} bytes, the file holds {found} ({len(self.data)} bytes); '
                                 'it is probably truncated, download or export it again')
            tables[element.name] = np.frombuffer(self.data, element.dtype, element.count, offset)
            offset = end
        if offset != len(self.data):
            raise ValueError(f'{self.path}: {len(self.data) - offset} bytes follow the last element the header '
                             'promises; its counts do not fit the file, export it again')
        return tables

    def _read_ascii(self) -> dict[str, np.ndarray]:
        words, tables, offset = self.data[self.start:].split(), {}, 0
        for element in self.elements:
            if element.dtype is None:
                return tables
            width = len(element.properties)
            block = words[offset:offset + element.count * width]
            if len(block) < element.count * width:
                raise ValueError(f'{self.path}: header promises {element.count} of element {element.name!r} of {width} '
                                 f'values, the file holds {len(block) // width}; it is probably truncated')
            try:
                values = np.array(block, dtype=np.float64).reshape(element.count, width)
            except ValueError as error:
                raise ValueError(f'{self.path}: element {element.name!r} holds a word that is no number '
                                 f'({error})') from None
            table = np.empty(element.count, element.dtype)
            for column, name in enumerate(element.properties):
                table[name] = values[:, column]
            tables[element.name] = table
            offset += element.count * width
        if offset != len(words):
            raise ValueError(f'{self.path}: {len(words) - offset} values follow the last element the header promises; '
                             'its counts do not fit the file, export it again')
        return tables


def open_ply(path: Path) -> Ply:
    """Map a file and parse its header.

    Raises:
        ValueError: The header is no PLY header; the message says which line.
    """
    with path.open('rb') as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # one copy less than reading it
    end = data.find(b'end_header')
    newline = data.find(b'\n', end)
    if data[:3] != b'ply' or end < 0 or newline < 0:
        raise ValueError(f'{path}: not a PLY file, which starts with "ply" and a header that ends in "end_header"; '
                         'it is damaged or has the wrong suffix')
    order, encoding, elements = '', '', []
    try:
        for line in data[:end].decode('ascii', 'replace').splitlines()[1:]:
            words = line.split()
            if not words or words[0] in ('comment', 'obj_info'):
                continue
            if words[0] == 'format':
                encoding, order = words[1], _ORDERS[words[1]]
            elif words[0] == 'element':
                elements.append((words[1], int(words[2]), []))
            elif words[0] == 'property' and words[1] == 'list':
                elements[-1][2].append(None)
            elif words[0] == 'property':
                elements[-1][2].append((words[2], order + _TYPES[words[1]]))
            else:
                raise KeyError(words[0])
        parsed = tuple(
            Element(name, count, None if None in properties else np.dtype(properties))
            for name, count, properties in elements)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f'{path}: PLY header line {line!r} is not understood ({error})') from None
    if not encoding or any(element.count < 0 for element in parsed):
        raise ValueError(f'{path}: PLY header has no format line or a negative count')
    return Ply(path, encoding, parsed, data, newline + 1)


def columns(table: np.ndarray, names: list[str]) -> np.ndarray:
    """Some properties of an element as one float32 array, (N, len(names))."""
    dtype = table.dtype
    native = np.dtype(_NATIVE + 'f4')
    if all(dtype[name] == native for name in dtype.names) and dtype.itemsize == 4 * len(dtype.names):
        flat = table.view(native).reshape(len(table), len(dtype.names))  # one gather in place of one a column
        return np.take(flat, [dtype.names.index(name) for name in names], axis=1)
    return np.stack([table[name].astype(np.float32) for name in names], axis=1)


def header(elements: list[tuple[str, int, list[tuple[str, str]]]], comment: str | None = None) -> bytes:
    """Header of a little-endian binary file of elements (name, count, [(property, PLY type)])."""
    lines = ['ply', 'format binary_little_endian 1.0']
    if comment:
        lines.append(f'comment {comment}')
    for name, count, properties in elements:
        lines.append(f'element {name} {count}')
        lines += [f'property {kind} {field}' for field, kind in properties]
    return ('\n'.join([*lines, 'end_header']) + '\n').encode('ascii')
