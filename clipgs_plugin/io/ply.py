"""PLY files: plyfile parses and writes the headers, numpy maps the elements.

plyfile maps elements too, but parses the header of every file for it: in one run, 10,000 Gaussians of SH degree 3 took
2.1 ms by its maps and 1.1 by these, which share the parse of equal headers (degree 0: 0.75 and 0.45). Its own reader
visits lists and ascii value by value: 340 ms for the 100,000 faces behind a mesh's vertices, which no caller needs, and
0.9 s for 10,000 ascii Gaussians, which take 0.2 s here.
"""
from __future__ import annotations

import io
import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement, PlyHeaderParseError, PlyListProperty

from clipgs_plugin.io.files import write_whole

_MAX_HEADER = 2 ** 20  # bytes searched for the end of the header
_END = re.compile(rb'[\r\n]end_header[ \t]*\r?\n')
_ELEMENT = re.compile(rb'(element\s+\S+\s+)(\d{1,18})')


@dataclass(frozen=True)
class Element:
    """One element of the header, for example ``vertex``; ``dtype`` is None if a property is a list."""

    name: str
    count: int
    dtype: np.dtype | None

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties; empty if one is a list."""
        return self.dtype.names or () if self.dtype is not None else ()


@dataclass(frozen=True)
class Ply:
    """A parsed header over the mapped bytes of its file."""

    path: Path
    text: bool
    elements: tuple[Element, ...]
    data: mmap.mmap | bytes
    start: int  # offset of the first element
    comments: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return any(element.name == name for element in self.elements)

    def __getitem__(self, name: str) -> Element:
        return next(element for element in self.elements if element.name == name)

    def read(self) -> dict[str, np.ndarray]:
        """Return every element with properties before the first one with a list, as structured arrays by name.

        The length of a list is unknown without reading it, and no splat or point cloud needs what follows.

        Raises:
            ValueError: The file is longer or shorter than the header promises.
        """
        return self._read_ascii() if self.text else self._read_binary()

    def _read_binary(self) -> dict[str, np.ndarray]:
        tables, offset = {}, self.start
        for element in self.elements:
            if element.dtype is None:
                return tables
            if not element.properties:
                continue
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
            if not element.properties:
                continue
            width = len(element.properties)
            block = words[offset:offset + element.count * width]
            if len(block) < element.count * width:
                raise ValueError(f'{self.path}: header promises {element.count} of element {element.name!r} of {width} '
                                 f'values, the file holds {len(block) // width}; it is probably truncated, download '
                                 'or export it again')
            try:
                values = np.array(block, dtype=np.float64).reshape(element.count, width)
            except ValueError as error:
                raise ValueError(f'{self.path}: element {element.name!r} holds a word that is not a number '
                                 f'({str(error)[:100]}); export the file again') from None
            table = np.empty(element.count, element.dtype)
            for column, name in enumerate(element.properties):
                table[name] = values[:, column]
                if table.dtype[name].kind != 'f' and (table[name] != values[:, column]).any():
                    raise ValueError(f'{self.path}: element {element.name!r} holds a value of {name} that its type '
                                     f'{table.dtype[name]} does not have; export the file again')
            tables[element.name] = table
            offset += element.count * width
        if offset != len(words):
            raise ValueError(f'{self.path}: {len(words) - offset} values follow the last element the header promises; '
                             'its counts do not fit the file, export it again')
        return tables


def open_ply(path: Path) -> Ply:
    """Map a file and parse its header, without reading an element.

    Raises:
        ValueError: The header is damaged; the message quotes the line.
    """
    with path.open('rb') as file:
        return parse_ply(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # saves a copy of the file


def parse_ply(path: Path, data: mmap.mmap | bytes) -> Ply:
    """Parse the header of a file's content, such as that of a member of an archive.

    Args:
        path: Name of the file in errors.
        data: Content of the file.

    Raises:
        ValueError: The header is damaged; the message quotes the line.
    """
    end = _END.search(data, 0, _MAX_HEADER)
    if data[:3] != b'ply' or end is None:
        raise ValueError(f'{path}: not a PLY file, which starts with "ply" and a header that ends in "end_header"; '
                         'it is damaged or has the wrong suffix, export it again')
    lines, zeroed, counts, comments = [b'ply'], [b'ply'], [], []
    for line in data[:end.end()].splitlines()[1:]:
        line = line.strip()
        if not line or line.startswith((b'comment', b'obj_info')):  # plyfile refuses comments that are not ascii
            if line.startswith(b'comment'):
                comments.append(line[len(b'comment'):].strip().decode('ascii', 'backslashreplace'))
            continue
        lines.append(line)
        if line.startswith(b'element'):
            element = _ELEMENT.fullmatch(line)
            if element is None:
                raise _header_error(path, line, 'expected "element NAME COUNT"')
            counts.append(int(element[2]))
            line = element[1] + b'0'
        zeroed.append(line)
    try:
        text, layouts = _parse(b'\n'.join(zeroed) + b'\n')
    except PlyHeaderParseError as error:
        raise _header_error(path, lines[error.line - 1], error.message) from None
    except ValueError as error:
        raise ValueError(f'{path}: PLY header is not understood ({error}); export the file again') from None
    elements = tuple(Element(name, count, dtype) for (name, dtype), count in zip(layouts, counts))
    return Ply(path, text, elements, data, end.end(), tuple(comments))


def _header_error(path: Path, line: bytes, reason: str) -> ValueError:
    """Return an error that quotes a line of the header."""
    quoted = line.decode('ascii', 'replace')
    quoted = quoted if len(quoted) <= 100 else f'{quoted[:97]}...'
    return ValueError(f'{path}: PLY header line {quoted!r} is not understood ({reason[:100]}); export the file again')


@lru_cache(maxsize=64)
def _parse(header: bytes) -> tuple[bool, tuple[tuple[str, np.dtype | None], ...]]:
    """Return True for ascii data, and the name and dtype of each element.

    All counts in ``header`` are zero. Therefore plyfile allocates nothing, however large the counts of a damaged file,
    and the files of a dataset, which differ in their counts only, share one parse (0.2 to 0.6 ms).
    """
    parsed = PlyData.read(io.BytesIO(header))
    layouts = []
    for element in parsed.elements:
        has_list = any(isinstance(prop, PlyListProperty) for prop in element.properties)
        layouts.append((element.name, None if has_list else np.dtype(element.dtype(parsed.byte_order))))
    return parsed.text, tuple(layouts)


def columns(table: np.ndarray, names: list[str]) -> np.ndarray:
    """Return some properties of an element as one float32 array, (N, len(names))."""
    dtype, native = table.dtype, np.dtype(np.float32)
    if all(dtype[name] == native for name in dtype.names) and dtype.itemsize == 4 * len(dtype.names):
        flat = table.view(native).reshape(len(table), len(dtype.names))  # one gather instead of one per column
        return np.take(flat, [dtype.names.index(name) for name in names], axis=1)
    return np.stack([table[name].astype(np.float32) for name in names], axis=1)


def structured(values: np.ndarray, names: list[str]) -> np.ndarray:
    """View a C-contiguous array, (N, len(names)), as one record per row, (N,)."""
    return values.view([(name, values.dtype) for name in names]).reshape(len(values))


def write(path: Path, elements: Mapping[str, np.ndarray], comments: Sequence[str] = ()) -> None:
    """Write structured arrays of little-endian scalars as the elements of a binary file, with ascii comments."""
    described = [PlyElement.describe(table, name) for name, table in elements.items()]
    header = PlyData(described, byte_order='<', comments=list(comments)).header
    write_whole(path, [f'{header}\n'.encode('ascii'), *(table.data for table in elements.values())])
