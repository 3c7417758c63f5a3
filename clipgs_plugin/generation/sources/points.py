"""Point clouds in files, and the surfels they become where no pictures are there to fit to."""
from __future__ import annotations

import io
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Listed, Points, Surface
from clipgs_plugin.generation.sources.base import checked_axis
from clipgs_plugin.generation.sources.listing import distinct, find_files, list_files, split_of
from clipgs_plugin.io import ply
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import MISSING_COLOR
from clipgs_plugin.triplets.layout import MAX_UID

NEIGHBOURS = 12  # with which a normal is estimated, the point itself among them
AMONG = 200_000  # points that neighbours are looked for among: of millions the nearest would tell of noise alone
SUFFIXES = ('.ply', '.pcd', '.npz', '.npy', '.xyz', '.txt')
_POSITIONS = ('points', 'xyz', 'positions', 'pos', 'vertices')
_COLORS = ('colors', 'rgb', 'color')
_NORMALS = ('normals', 'normal')
# What numpy and zipfile raise on a damaged archive.
_NPZ_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
               OSError, SyntaxError, tokenize.TokenError)


@TASK_UTILS.register_module()
class PointSource:
    """Files of points, with or without colours and normals.

    - ``.ply``: the vertices, ascii or binary; ``red green blue``, ``nx ny nz``.
    - ``.pcd``: ascii, binary, binary_compressed; ``rgb``, ``rgba``, ``normal_x ...``. NaN points of an organised cloud
      (HEIGHT over 1) are its missing ones and are left out.
    - ``.npz``: ``points``, ``colors``, ``normals`` (also ``xyz``, ``rgb``) of one cloud, (N, 3) each; or of a set,
      (n, N, 3), of which every row is an object, with ``names`` (n,) and ``labels`` (n,) into ``classes``.
      Rows of a set that ``np.savez`` wrote are read in place; a compressed one is held in memory.
    - ``.npy``, ``.xyz``, ``.txt``: 3 columns, or 6, or 9, separated by spaces or commas. Three columns of unit length
      with a negative number among them are normals, three others are colours.

    Integer colours are 0..255 (uint16: 0..65535). Floats are 0..1, and 0..255 where one exceeds 1. Normals that are
    not finite or have no length are left out with the others of their cloud. Nothing is unpickled.

    Args:
        up: The axis that points up in the files.
        suffixes: Endings of the files to list; ``.txt`` is read, but listed only if it is named here.
        split: Of the dataset, where no file or folder is named after one.
        clean: Drop points with a NaN or an infinite position, in place of refusing the file.
    """

    def __init__(self, up: str = 'y', suffixes: Sequence[str] = SUFFIXES[:-1], split: str = 'train',
                 clean: bool = False) -> None:
        self.up = checked_axis(up)
        self.suffixes = tuple(suffixes)
        self.split = split
        self.clean = clean

    def list(self, root: Path) -> list[Listed]:
        """The objects below a folder, or of a file; a damaged set is one object that fails when it is loaded."""
        root = Path(root)
        found: list[Listed] = []
        additions: list[str] = []
        for listed in list_files(root, find_files(root, self.suffixes), self.split):
            rows = _rows(listed, root, self.split) if listed.path.suffix.lower() == '.npz' else [listed]
            found += rows
            additions += [listed.uid] * len(rows)
        uids = distinct([listed.uid for listed in found], additions)
        return [Listed(uid, old.path, old.category, old.captions, old.split, old.attributes)
                for uid, old in zip(uids, found)]

    def load(self, listed: Listed) -> Points:
        """The cloud of an object.

        Raises:
            FileNotFoundError: No such file.
            ValueError: An unknown ending, a damaged or empty file, wrong columns, NaN; the message names the file.
        """
        if 'row_of_set' not in listed.attributes:
            return read_points(listed.path, self.clean)
        row = listed.attributes['row_of_set']
        arrays = {name: array[row] for name, array in _opened_set(listed.path, listed.path.stat().st_mtime_ns).items()}
        where = f'{listed.path}, row {row}'
        return _points(where, _of_arrays(where, arrays), self.clean)


def read_points(path: Path, clean: bool = False) -> Points:
    """The cloud in a file, by the ending of its name.

    Args:
        path: Of the file.
        clean: Drop points with a NaN or an infinite position, in place of refusing the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown ending, a damaged or empty file, a set of clouds, wrong columns, NaN.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f'{path}: no format of points ends in {path.suffix!r}; known are {", ".join(_READERS)}')
    if path.stat().st_size == 0:
        raise ValueError(f'{path}: the file is empty; download or export it again')
    return _points(str(path), reader(path), clean)


def surfels(points: Points, count: int, seed: int) -> tuple[Surface, dict]:
    """Oriented samples of a cloud, from which Gaussians are made without a fit.

    A normal that the cloud does not have is the direction of least variance of the 12 nearest points, of 200,000 at
    most, turned away from their centroid.

    Args:
        points: At least one.
        count: How many to keep at most, drawn without repetition and kept in their order.
        seed: Of the draw.

    Returns:
        The samples, and what is told of them: ``normals`` and ``colors``, each ``'file'`` or how they were made.
    """
    if count < 1:
        raise ValueError(f'count={count}: expected at least 1')
    total = len(points.positions)
    rng = np.random.default_rng((seed, total))
    chosen = np.sort(rng.choice(total, count, replace=False)) if count < total else np.arange(total)
    if points.normals is None:
        among = points.positions if total <= AMONG else points.positions[rng.choice(total, AMONG, replace=False)]
        normals = estimate_normals(among, points.positions[chosen])
    else:
        normals = points.normals[chosen]
    colors = np.full((len(chosen), 3), MISSING_COLOR, np.float32) if points.colors is None else points.colors[chosen]
    told = dict(normals='file' if points.normals is not None else f'estimated from {NEIGHBOURS} neighbours',
                colors='file' if points.colors is not None else f'{MISSING_COLOR} grey')
    return Surface(points.positions[chosen], normals, colors), told


def estimate_normals(positions: ndarray, places: ndarray) -> ndarray:
    """Unit normals of a cloud at some places on it, away from its centroid.

    Args:
        positions: (N, 3).
        places: (M, 3).

    Returns:
        (M, 3) float32.

    Source: Hoppe et al., "Surface reconstruction from unorganized points", 1992, without its propagation of signs.
    """
    from scipy.spatial import cKDTree
    positions = positions.astype(np.float64)
    outwards = places - positions.mean(0)
    _, near = cKDTree(positions).query(places.astype(np.float64), k=min(NEIGHBOURS, len(positions)))
    patches = positions[near.reshape(len(places), -1)]
    patches = patches - patches.mean(1, keepdims=True)
    variances, axes = np.linalg.eigh(patches.transpose(0, 2, 1) @ patches)
    # Where all neighbours lie in one place every axis is as good, and outwards is better.
    normals = np.where(variances[:, 2:] > 0, axes[:, :, 0], outwards)
    normals = np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 0, normals, (0.0, 1.0, 0.0))
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    inwards = (normals * outwards).sum(1, keepdims=True) < 0
    return np.where(inwards, -normals, normals).astype(np.float32)


# What every format ends in

def _points(where: str, arrays: dict[str, ndarray | None], clean: bool) -> Points:
    """A checked cloud of arrays (N, 3) of any dtype: positions, colors, normals; ``where`` begins the errors."""
    arrays = {name: array for name, array in arrays.items() if array is not None}
    positions = arrays['positions']
    for name, array in arrays.items():
        if array.dtype.kind not in 'fiub' or array.ndim != 2 or array.shape[1] != 3 or len(array) != len(positions):
            raise ValueError(f'{where}: {name} are {array.dtype} of shape {array.shape}, expected '
                             f'{len(positions) if name != "positions" else "N"} x 3 numbers')
    if len(positions) == 0:
        raise ValueError(f'{where}: holds no points')
    with np.errstate(over='ignore'):
        positions = positions.astype(np.float32)
    there = np.isfinite(positions).all(1)
    if not there.all():
        bad = f'{where}: {(~there).sum()} of {len(there)} points have a NaN or an infinite position'
        if not clean or not there.any():
            raise ValueError(f'{bad}; remove them' + (', or take clean=True' if there.any() else ''))
        warnings.warn(f'{bad}; dropped', stacklevel=4)
        positions, arrays = positions[there], {name: array[there] for name, array in arrays.items()}
    return Points(positions, _colors(where, arrays['colors']) if 'colors' in arrays else None,
                  _unit(arrays['normals']) if 'normals' in arrays else None)


def _colors(where: str, colors: ndarray) -> ndarray:
    """sRGB in [0, 1], float32."""
    if colors.dtype.kind == 'f':
        low, high = float(colors.min()), float(colors.max())
        top = 1 if high <= 1.01 else 255
    else:
        low, high = int(colors.min()), int(colors.max())
        top = 65535 if colors.dtype == np.uint16 else 255
    if not -0.01 <= low <= high <= 1.01 * top:
        raise ValueError(f'{where}: colours lie in {low:g}..{high:g}, expected 0..1 or 0..{top}')
    return np.clip(colors.astype(np.float32) / np.float32(top), 0, 1)


def _unit(normals: ndarray) -> ndarray | None:
    """Unit normals, or None where one has no direction."""
    normals = normals.astype(np.float64)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        return None
    return (normals / length).astype(np.float32)


def _of_columns(where: str, table: ndarray) -> dict[str, ndarray]:
    """The arrays of a table of 3, 6 or 9 columns."""
    if table.ndim != 2 or table.shape[1] not in (3, 6, 9) or table.dtype.kind not in 'fiub':
        raise ValueError(f'{where}: {table.dtype} of shape {table.shape}, expected N rows of 3, 6 or 9 numbers: '
                         'a position, then a colour and a normal, either or both')
    named = dict(positions=table[:, :3])
    for start in range(3, table.shape[1], 3):
        columns = table[:, start:start + 3]
        named['normals' if 'normals' not in named and _are_normals(columns) else 'colors'] = columns
    if table.shape[1] == 9 and len(named) < 3:
        raise ValueError(f'{where}: of its 9 columns neither the middle nor the last three are normals, which have '
                         'unit length')
    return named


def _are_normals(columns: ndarray) -> bool:
    length = np.linalg.norm(columns.astype(np.float64), axis=1)
    return bool((columns < 0).any() and (np.abs(length - 1)[length > 0] < 0.02).all())


# Formats

def _read_ply(path: Path) -> dict[str, ndarray | None]:
    file = ply.open_ply(path)
    names = file['vertex'].properties if 'vertex' in file else ()
    if {'f_dc_0', 'opacity'} <= set(names) or 'packed_position' in names:
        raise ValueError(f'{path}: holds Gaussians, not points; read it as a splat')
    if not {'x', 'y', 'z'} <= set(names):
        raise ValueError(f'{path}: its vertices have {", ".join(names) or "no scalar properties"}, expected x, y, z')
    table = file.read().get('vertex')
    if table is None:
        raise ValueError(f'{path}: an element with a list comes before its vertices; export it with the vertices first')
    columns = {}
    for kind, choices in (('colors', (('red', 'green', 'blue'), ('r', 'g', 'b'),
                                      ('diffuse_red', 'diffuse_green', 'diffuse_blue'))),
                          ('normals', (('nx', 'ny', 'nz'), ('normal_x', 'normal_y', 'normal_z')))):
        chosen = next((choice for choice in choices if set(choice) <= set(names)), None)
        columns[kind] = None if chosen is None else np.stack([table[name] for name in chosen], axis=1)
    return dict(columns, positions=np.stack([table[name] for name in 'xyz'], axis=1))


def _read_pcd(path: Path) -> dict[str, ndarray | None]:
    data = path.read_bytes()
    header, body = _pcd_header(path, data)
    try:
        names, sizes, kinds = header['FIELDS'], [int(size) for size in header['SIZE']], header['TYPE']
        counts = [int(count) for count in header.get('COUNT', ['1'] * len(names))]
        height = int(header.get('HEIGHT', ['1'])[0])
        total = int(header['POINTS'][0]) if 'POINTS' in header else int(header['WIDTH'][0]) * height
        if not len(names) == len(sizes) == len(kinds) == len(counts) or min(counts) < 0 or total < 0:
            raise ValueError('FIELDS, SIZE, TYPE and COUNT do not fit each other')
        # Padding is named '_', as often as there is any.
        row = np.dtype([(f'{name}{i}' if name == '_' else name, f'<{kind.lower()}{size}', (count,))
                        for i, (name, size, kind, count) in enumerate(zip(names, sizes, kinds, counts))])
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ValueError(f'{path}: PCD header is not understood ({error})') from None
    if not {'x', 'y', 'z'} <= set(row.names):
        raise ValueError(f'{path}: its points have {", ".join(row.names)}, expected x, y, z')
    encoding = header['DATA'][0]
    if encoding == 'ascii':
        table = _pcd_ascii(path, body, row, total)
    elif encoding == 'binary':
        if len(body) < total * row.itemsize:
            raise ValueError(f'{path}: header promises {total} points of {row.itemsize} bytes, the file holds '
                             f'{len(body) // row.itemsize}; it is probably truncated')
        table = {name: column for name, column in _by_name(np.frombuffer(body, row, total))}
    elif encoding == 'binary_compressed':
        table = _pcd_compressed(path, body, row, total)
    else:
        raise ValueError(f'{path}: DATA {encoding!r}, expected ascii, binary or binary_compressed')
    positions = np.stack([table[name][:, 0] for name in 'xyz'], axis=1)
    normals = [table[name][:, 0] for name in ('normal_x', 'normal_y', 'normal_z') if name in table]
    columns = dict(colors=_pcd_colors(path, table), normals=np.stack(normals, axis=1) if len(normals) == 3 else None)
    if height > 1:
        there = np.isfinite(positions).all(1)
        positions = positions[there]
        columns = {name: None if array is None else array[there] for name, array in columns.items()}
    return dict(columns, positions=positions)


def _pcd_header(path: Path, data: bytes) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    start = 0
    while 'DATA' not in header:
        end = data.find(b'\n', start)
        words = data[start:end].decode('ascii', 'replace').split() if end >= 0 else []
        if end < 0 or (words and not re.fullmatch(r'[A-Z]+|#.*', words[0])) or words == ['DATA']:
            raise ValueError(f'{path}: not a PCD file, whose header ends in a line DATA ascii, binary or '
                             'binary_compressed; it is damaged or has the wrong suffix')
        if words and not words[0].startswith('#'):
            header[words[0]] = words[1:]
        start = end + 1
    return header, data[start:]


def _by_name(rows: ndarray):
    return ((name, rows[name]) for name in rows.dtype.names)


def _pcd_ascii(path: Path, body: bytes, row: np.dtype, total: int) -> dict[str, ndarray]:
    widths = [row[name].shape[0] for name in row.names]
    words = body.split()
    if len(words) < total * sum(widths):
        raise ValueError(f'{path}: header promises {total} points of {sum(widths)} values, the file holds '
                         f'{len(words) // max(1, sum(widths))}; it is probably truncated')
    try:
        values = np.array(words[:total * sum(widths)], np.float64).reshape(total, sum(widths))
    except ValueError as error:
        raise ValueError(f'{path}: a value is no number ({error})') from None
    parts = np.split(values, np.cumsum(widths)[:-1], axis=1)
    return {name: part.astype(row[name].base) for name, part in zip(row.names, parts)}


def _pcd_compressed(path: Path, body: bytes, row: np.dtype, total: int) -> dict[str, ndarray]:
    """The fields one after another, packed with LZF."""
    try:
        packed, size = struct.unpack_from('<II', body)
        data = _lzf(body[8:8 + packed], size)
        if len(body) < 8 + packed or size < total * row.itemsize:
            raise ValueError(f'{len(body) - 8} of {packed} packed bytes, {size} unpacked')
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f'{path}: its packed points are damaged ({error}); it is probably truncated') from None
    table, offset = {}, 0
    for name in row.names:
        field = row[name]
        table[name] = np.frombuffer(data, field.base, total * field.shape[0], offset).reshape(total, -1)
        offset += total * field.itemsize
    return table


def _lzf(data: bytes, size: int) -> bytes:
    """LZF unpacked: runs of bytes as they are, and references to bytes before."""
    out = bytearray()
    i = 0
    while i < len(data):
        control = data[i]
        i += 1
        if control < 32:
            out += data[i:i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[i]
            i += 1
        start = len(out) - ((control & 31) << 8 | data[i]) - 1
        i += 1
        if start < 0:
            raise ValueError('a reference before the beginning')
        piece = out[start:start + length + 2]
        out += (piece * ((length + 2) // len(piece) + 1))[:length + 2]  # a reference may reach into what it makes
    if len(out) != size:
        raise ValueError(f'{len(out)} bytes, expected {size}')
    return bytes(out)


def _pcd_colors(path: Path, table: dict[str, ndarray]) -> ndarray | None:
    """Colours, packed in 32 bits as 0xRRGGBB whatever type the file gives them, or of their own fields."""
    if {'r', 'g', 'b'} <= set(table):
        return np.stack([table[name][:, 0] for name in 'rgb'], axis=1)
    name = next((name for name in ('rgb', 'rgba') if name in table), None)
    if name is None:
        return None
    packed = table[name][:, 0]
    if packed.dtype.itemsize != 4:
        raise ValueError(f'{path}: field {name} has {packed.dtype.itemsize} bytes, expected 4')
    bits = np.ascontiguousarray(packed).view('<u4')
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)


def _read_text(path: Path) -> dict[str, ndarray]:
    data = path.read_bytes().removeprefix(b'\xef\xbb\xbf').translate(bytes.maketrans(b',;', b'  '))
    data = re.sub(rb'(#|//)[^\n]*', b'', data)
    if not data.strip():
        raise ValueError(f'{path}: holds no points')
    try:
        table = np.loadtxt(io.BytesIO(data), np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f'{path}: not a table of numbers with a point a line ({str(error).splitlines()[0]})') from None
    return _of_columns(str(path), table)


def _read_npy(path: Path) -> dict[str, ndarray]:
    try:
        table = np.load(path, allow_pickle=False)
    except _NPZ_ERRORS as error:
        raise ValueError(f'{path}: no .npy of numbers ({error}); pickled objects are not read, save the columns of '
                         'numbers alone') from None
    if not isinstance(table, ndarray):
        raise ValueError(f'{path}: is an .npz by its content; rename it')
    return _of_columns(str(path), table)


def _read_npz(path: Path) -> dict[str, ndarray]:
    arrays = _read_set(path)
    if arrays['positions'].ndim == 3:
        _names(path, len(arrays['positions']))  # says what is wrong with the set, where something is
        raise ValueError(f'{path}: holds a set of {len(arrays["positions"])} clouds; list it, and load one row')
    return _of_arrays(str(path), arrays)


_READERS = {'.ply': _read_ply, '.pcd': _read_pcd, '.npz': _read_npz, '.npy': _read_npy, '.xyz': _read_text,
            '.txt': _read_text}


# Archives of arrays

def _of_arrays(where: str, arrays: dict[str, ndarray]) -> dict[str, ndarray]:
    """Arrays of a cloud, which may be one of several columns."""
    return _of_columns(where, arrays['positions']) if len(arrays) == 1 else arrays


def _read_set(path: Path) -> dict[str, ndarray]:
    """``positions`` and, where they are there, ``colors`` and ``normals``, of one cloud or of a set."""
    keys = _keys(path)
    found = {kind: next((key for key in choices if key in keys), None)
             for kind, choices in (('positions', _POSITIONS), ('colors', _COLORS), ('normals', _NORMALS))}
    if found['positions'] is None:
        raise ValueError(f'{path}: holds {", ".join(sorted(keys)) or "nothing"}, expected an array named '
                         f'{" or ".join(_POSITIONS)}')
    arrays = {kind: _member(path, key) for kind, key in found.items() if key is not None}
    for kind, array in arrays.items():
        if array.shape[:-1] != arrays['positions'].shape[:-1]:
            raise ValueError(f'{path}: {kind} have shape {array.shape}, the positions {arrays["positions"].shape}')
    return arrays


@lru_cache(maxsize=1)
def _opened_set(path: Path, time: int) -> dict[str, ndarray]:
    """The set that this process read last; copies of a source share it."""
    return _read_set(path)


def _keys(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix('.npy') for name in archive.namelist()}
    except _NPZ_ERRORS as error:
        raise ValueError(f'{path}: no .npz ({error}); it is damaged or has the wrong suffix') from None


def _header(path: Path, key: str) -> tuple[zipfile.ZipInfo, int, tuple[int, ...], bool, np.dtype]:
    """A member, where its numbers begin in it, their shape, whether in Fortran order, and their dtype."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f'{key}.npy')
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read = (np.lib.format.read_array_header_1_0 if version == (1, 0) else
                        np.lib.format.read_array_header_2_0)
                shape, fortran, dtype = read(file)
                return info, file.tell(), shape, fortran, dtype
    except _NPZ_ERRORS as error:
        raise ValueError(f'{path}: its array {key!r} cannot be read ({error})') from None


def _member(path: Path, key: str) -> ndarray:
    """An array of an archive, mapped where it is stored as it is, else in memory."""
    info, begin, shape, fortran, dtype = _header(path, key)
    if dtype.hasobject:
        raise ValueError(f'{path}: its array {key!r} holds pickled objects, which are not read; save plain numbers and '
                         'strings')
    if info.compress_type == zipfile.ZIP_STORED and shape and 0 not in shape:
        with path.open('rb') as file:
            file.seek(info.header_offset + 26)  # of the member's own header, which ends in its name and an extra field
            begin += info.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))
        return np.memmap(path, dtype, 'r', begin, shape, 'F' if fortran else 'C')
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]
    except _NPZ_ERRORS as error:
        raise ValueError(f'{path}: its array {key!r} cannot be read ({error})') from None


def _rows(listed: Listed, root: Path, split: str) -> list[Listed]:
    """The objects of an archive; the archive itself where it is one cloud, or cannot be read."""
    path = listed.path
    try:
        key = next((key for key in _POSITIONS if key in _keys(path)), None)
        shape = _header(path, key)[2] if key else ()
        if len(shape) != 3:
            return [listed]
        names, categories = _names(path, shape[0])
    except (OSError, ValueError):
        return [listed]
    split = split_of(path, root, split)
    uids = [re.sub(r'[^A-Za-z0-9_-]+', '_', name)[-MAX_UID:] or 'object' for name in names]
    return [Listed(uid, path, category, split=split, attributes=dict(row_of_set=i, name=name))
            for i, (uid, name, category) in enumerate(zip(uids, names, categories))]


def _names(path: Path, count: int) -> tuple[list[str], list[str | None]]:
    """Names and categories of the objects of a set; the file's name with a number where it has no names."""
    keys = _keys(path)
    columns = {key: _member(path, key) for key in ('names', 'labels') if key in keys}
    for key, column in columns.items():
        if column.shape != (count,):
            raise ValueError(f'{path}: {key} have shape {column.shape}, expected ({count},), one an object')
    names = [str(name) for name in columns['names']] if 'names' in columns else [f'{path.stem}_{i:05d}'
                                                                               for i in range(count)]
    if 'labels' not in columns:
        return names, [None] * count
    labels = columns['labels']
    if labels.dtype.kind == 'U':
        return names, [str(label) for label in labels]
    if 'classes' not in keys:
        return names, [None] * count
    classes = [str(name) for name in _member(path, 'classes')]
    if labels.dtype.kind not in 'iu' or (count and not 0 <= labels.min() <= labels.max() < len(classes)):
        raise ValueError(f'{path}: labels are {labels.dtype} that do not all lie in 0..{len(classes) - 1}, the rows of '
                         'classes')
    return names, [classes[label] for label in labels]
