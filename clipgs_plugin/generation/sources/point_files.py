"""Readers of point clouds in PLY, PCD and text files, and the checks that every format ends with.

A reader returns ``positions`` and, if the file has them, ``colors`` and ``normals``, (N, 3) each, of any dtype.
"""
from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import Points
from clipgs_plugin.io import ply
from clipgs_plugin.io.arrays import one_line

_PLY_COLUMNS = dict(
    colors=(('red', 'green', 'blue'), ('r', 'g', 'b'), ('diffuse_red', 'diffuse_green', 'diffuse_blue')),
    normals=(('nx', 'ny', 'nz'), ('normal_x', 'normal_y', 'normal_z')))


def check_points(where: str, arrays: dict[str, ndarray], clean: bool) -> Points:
    """Check the arrays of a reader and convert them to a point cloud.

    Args:
        where: Beginning of the error messages.
        arrays: Arrays ``positions``, ``colors`` and ``normals``, (N, 3) each.
        clean: Drop points with a NaN or infinite position instead of refusing them.

    Raises:
        ValueError: Wrong shapes or dtypes, no points, invalid positions, or colours out of their range.
    """
    positions = arrays['positions']
    for name, array in arrays.items():
        if array.dtype.kind not in 'fiub' or array.ndim != 2 or array.shape[1] != 3 or len(array) != len(positions):
            raise ValueError(f'{where}: {name} are {array.dtype} of shape {array.shape}, expected '
                             f'{len(positions) if name != "positions" else "N"} x 3 numbers')
    if len(positions) == 0:
        raise ValueError(f'{where}: holds no points')
    with np.errstate(over='ignore'):
        positions = positions.astype(np.float32)
    valid = np.isfinite(positions).all(1)
    if not valid.all():
        problem = f'{where}: {(~valid).sum()} of {len(valid)} points have a NaN or an infinite position'
        if not clean or not valid.any():
            raise ValueError(f'{problem}; remove them' + (', or set clean=True' if valid.any() else ''))
        warnings.warn(f'{problem}; dropped', stacklevel=4)
        positions, arrays = positions[valid], {name: array[valid] for name, array in arrays.items()}
    normals = None
    if 'normals' in arrays:
        normals = unit_vectors(arrays['normals'].astype(np.float64)).astype(np.float32)
    return Points(positions, _srgb(where, arrays['colors']) if 'colors' in arrays else None,
                  normals if normals is not None and normals.any(1).all() else None)


def _srgb(where: str, colors: ndarray) -> ndarray:
    """Scale colours to sRGB in [0, 1], float32."""
    if colors.dtype.kind == 'f':
        low, high = float(colors.min()), float(colors.max())
        top = 1 if high <= 1.01 else 255
    else:
        low, high = int(colors.min()), int(colors.max())
        top = 65535 if colors.dtype == np.uint16 else 255
    if not -0.01 <= low <= high <= 1.01 * top:
        raise ValueError(f'{where}: colours lie in {low:g}..{high:g}, expected 0..1 or 0..{top}')
    return np.clip(colors.astype(np.float32) / np.float32(top), 0, 1)


def split_columns(where: str, table: ndarray) -> dict[str, ndarray]:
    """Split a table of 3, 6 or 9 columns into positions, colours and normals.

    Raises:
        ValueError: Another number of columns, or 9 columns without normals.
    """
    if table.ndim != 2 or table.shape[1] not in (3, 6, 9) or table.dtype.kind not in 'fiub':
        raise ValueError(f'{where}: {table.dtype} of shape {table.shape}, expected N rows of 3, 6 or 9 numbers: '
                         'a position, then a colour, a normal or both')
    arrays = dict(positions=table[:, :3])
    for start in range(3, table.shape[1], 3):
        columns = table[:, start:start + 3]
        arrays['normals' if 'normals' not in arrays and _are_normals(columns) else 'colors'] = columns
    if table.shape[1] == 9 and len(arrays) < 3:
        raise ValueError(f'{where}: neither the middle nor the last three of its 9 columns are normals, which have '
                         'unit length')
    return arrays


def _are_normals(columns: ndarray) -> bool:
    length = np.linalg.norm(columns.astype(np.float64), axis=1)
    return bool((columns < 0).any() and (np.abs(length - 1)[length > 0] < 0.02).all())


def _read_ply(path: Path) -> dict[str, ndarray]:
    file = ply.open_ply(path)
    names = file['vertex'].properties if 'vertex' in file else ()
    if {'f_dc_0', 'opacity'} <= set(names) or 'packed_position' in names:
        raise ValueError(f'{path}: holds Gaussians, not points; read it as a splat')
    if not {'x', 'y', 'z'} <= set(names):
        raise ValueError(f'{path}: its vertices have {", ".join(names)[:200] or "no scalar properties"}, expected x, '
                         'y, z')
    table = file.read().get('vertex')
    if table is None:
        raise ValueError(f'{path}: an element with a list comes before its vertices; export it with the vertices first')
    chosen = {kind: next((columns for columns in choices if set(columns) <= set(names)), None)
              for kind, choices in _PLY_COLUMNS.items()}
    return {kind: np.stack([table[name] for name in columns], axis=1)
            for kind, columns in dict(positions='xyz', **chosen).items() if columns}


def _read_text(path: Path) -> dict[str, ndarray]:
    data = path.read_bytes().removeprefix(b'\xef\xbb\xbf').translate(bytes.maketrans(b',;', b'  '))
    data = re.sub(rb'(#|//)[^\n]*', b'', data)
    if not data.strip():
        raise ValueError(f'{path}: holds no points')
    try:
        table = np.loadtxt(io.BytesIO(data), np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers with one point per line '
                         f'({one_line(error)})') from None
    return split_columns(str(path), table)


def _read_pcd(path: Path) -> dict[str, ndarray]:
    """Read a PCD file.

    pypcd4 is stricter (no repeated spaces, no file without COUNT) and allocates what a damaged header promises.
    """
    try:
        header, body = _split_pcd(path.read_bytes())
        names, counts = header['FIELDS'], [int(count) for count in header.get('COUNT', ['1'] * len(header['FIELDS']))]
        height = int(header.get('HEIGHT', ['1'])[0])
        total = int(header['POINTS'][0]) if 'POINTS' in header else int(header['WIDTH'][0]) * height
        if not len(names) == len(header['SIZE']) == len(header['TYPE']) == len(counts) or min(counts) < 1 or total < 0:
            raise ValueError('FIELDS, SIZE, TYPE and COUNT do not fit each other')
        # Padding fields share the name '_'.
        row = np.dtype([(f'{name}{i}' if name == '_' else name, f'<{kind.lower()}{int(size)}', (count,)) for
                        i, (name, size, kind, count) in enumerate(zip(names, header['SIZE'], header['TYPE'], counts))])
        if not {'x', 'y', 'z'} <= set(names):
            raise ValueError(f'its points have {", ".join(names)}, expected x, y, z')
        rows = _decode_pcd(header['DATA'][0], body, row, total)
        if len(rows) < total:
            raise ValueError(f'header promises {total} points, the file holds {len(rows)}; it is probably truncated')
    except (KeyError, IndexError, ValueError, TypeError, struct.error, MemoryError) as error:
        raise ValueError(f'{path}: not a readable PCD file ({one_line(error)}); download or export it again') from None
    arrays = dict(positions=np.stack([rows[name][:, 0] for name in 'xyz'], axis=1))
    if (color := next((name for name in ('rgb', 'rgba') if name in names), None)) is not None:
        if row[color].itemsize != 4:
            raise ValueError(f'{path}: field {color} has {row[color].itemsize} bytes, expected 4: 0xRRGGBB')
        bits = np.ascontiguousarray(rows[color][:, 0]).view('<u4')
        arrays['colors'] = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)
    elif {'r', 'g', 'b'} <= set(names):
        arrays['colors'] = np.stack([rows[name][:, 0] for name in 'rgb'], axis=1)
    if {'normal_x', 'normal_y', 'normal_z'} <= set(names):
        arrays['normals'] = np.stack([rows[f'normal_{axis}'][:, 0] for axis in 'xyz'], axis=1)
    if height > 1:
        measured = np.isfinite(arrays['positions']).all(1)
        arrays = {name: array[measured] for name, array in arrays.items()}
    return arrays


def _split_pcd(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Split a PCD file into the words of its header by keyword, and its body."""
    header: dict[str, list[str]] = {}
    start = 0
    while 'DATA' not in header:
        end = data.find(b'\n', start)
        words = data[start:end].decode('ascii', 'replace').split() if end >= 0 else []
        if end < 0 or (words and not re.fullmatch(r'[A-Z]+|#.*', words[0])) or words == ['DATA']:
            raise ValueError('its header does not end in a line DATA ascii, binary or binary_compressed')
        if words and not words[0].startswith('#'):
            header[words[0]] = words[1:]
        start = end + 1
    return header, data[start:]


def _decode_pcd(encoding: str, body: bytes, row: np.dtype, total: int) -> ndarray:
    """Decode up to ``total`` points of the structured dtype ``row``."""
    if encoding == 'ascii':
        values = sum(row[name].shape[0] for name in row.names)
        if not 0 < total * values <= len(body):  # loadtxt allocates by the number of columns
            return np.empty(0, row)
        return np.loadtxt(io.BytesIO(body), row, ndmin=1, max_rows=total)
    if encoding == 'binary':
        return np.frombuffer(body, row, min(total, len(body) // row.itemsize))
    if encoding != 'binary_compressed':
        raise ValueError(f'DATA {encoding!r}, expected ascii, binary or binary_compressed')
    try:
        import lzf
    except ImportError as error:
        raise ImportError('compressed PCD needs python-neo-lzf, of the extra triplets; pip install '
                          'python-neo-lzf') from error
    packed, size = struct.unpack_from('<II', body)
    if packed > len(body) - 8 or size != total * row.itemsize:
        raise ValueError(f'packed points are damaged: {len(body) - 8} of {packed} bytes, which unpack to {size} '
                         f'instead of {total * row.itemsize}')
    data = lzf.decompress(body[8:8 + packed], size)
    if data is None or len(data) != size:
        raise ValueError(f'packed points are damaged, they do not unpack to {size} bytes')
    rows, offset = np.empty(total, row), 0
    for name in row.names:  # the fields follow one another
        rows[name] = np.frombuffer(data, row[name].base, rows[name].size, offset).reshape(rows[name].shape)
        offset += rows[name].nbytes
    return rows


READERS = {'.ply': _read_ply, '.pcd': _read_pcd, '.xyz': _read_text, '.txt': _read_text}
