"""Colours and checks that trimesh lacks: OFF and binary STL."""
from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.io.arrays import one_line
from clipgs_plugin.structures import MISSING_COLOR

_OFF = re.compile(r'(ST)?(C)?(N)?(4)?(n)?OFF\s*(BINARY\b)?')


class Off(NamedTuple):
    """Mesh of an .off file; polygons are split into fans of triangles."""

    vertices: ndarray                        # (V, 3) float64
    faces: ndarray                           # (F, 3) int64
    vertex_colors: ndarray | None            # (V, 4) uint8, sRGB and alpha
    face_colors: ndarray | None              # (F, 4) uint8


def read_off(path: Path, data: bytes) -> Off:
    """Parse an .off file (``OFF``, ``COFF``, ``NOFF`` and so on) with colours of vertices or faces.

    Colours are 0..255, or 0..1 if none exceeds 1. Indices into a colour table are ignored; faces without a colour among
    coloured ones are grey.

    Args:
        path: Path of the file, for messages.
        data: Bytes of the file.

    Raises:
        ValueError: Not a text file of this format, or fewer vertices and faces than the header promises.

    Source: the Geomview manual, "OFF Files".
    """
    lines = [line for row in data.decode('utf-8', 'replace').splitlines() if (line := row.partition('#')[0].strip())]
    header = _OFF.match(lines[0]) if lines else None
    if header is None or header[4] or header[5] or header[6]:
        raise ValueError(f'{path} ' + ('is a kind of OFF that is not supported (binary, or not three-dimensional)'
                                       if header else 'does not begin like an .off file; its ending is wrong'))
    lines[:1] = [rest] if (rest := lines[0][header.end():].strip()) else []  # counts may follow on the same line
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
        rows, polygons = lines[1:1 + num_vertices], lines[1 + num_vertices:1 + num_vertices + num_faces]
        if len(polygons) < num_faces:
            raise ValueError(f'header promises {num_vertices} vertices and {num_faces} faces, the file holds '
                             f'{len(rows)} and {len(polygons)}; it is truncated, download it again')
        if not polygons:
            return Off(np.zeros((0, 3)), np.zeros((0, 3), np.int64), None, None)
        table = np.loadtxt(rows, ndmin=2)
        colors = table[:, 6:10] if header[3] else table[:, 3:7]
        faces, face_colors = _split_polygons(polygons)
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f'{path} cannot be read as .off: {one_line(error)}') from error
    if table.shape[1] < 3:
        raise ValueError(f'{path}: its vertices have {table.shape[1]} numbers, expected 3; it is broken')
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(table):
        raise ValueError(f'{path} has faces on vertices {faces.min()} to {faces.max()}, out of the range of its '
                         f'{len(table)}; it is broken')
    return Off(table[:, :3], faces, _rgba(colors) if header[2] and colors.shape[1] >= 3 else None,
               None if np.isnan(face_colors).all() else _rgba(face_colors))


def _split_polygons(polygons: list[str]) -> tuple[ndarray, ndarray]:
    """Split lines of faces into triangles (F, 3) int64 and their colours (F, 4), NaN for none.

    Lines with equal numbers of corners and words are parsed together, so these groups follow one another.
    """
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for line in polygons:
        words = line.split()
        alike[int(words[0]), len(words)].append(line)
    faces, colors = [np.zeros((0, 3), np.int64)], [np.zeros((0, 4))]
    for (size, count), lines in alike.items():
        if count <= size:
            raise ValueError(f'a face has fewer corners than it promises: {lines[0]!r}')
        if size < 3:
            continue
        table = np.loadtxt(lines, ndmin=2)
        corners = table[:, 1:1 + size].astype(np.int64)
        faces.append(np.stack([corners[:, [0, i, i + 1]] for i in range(1, size - 1)], 1).reshape(-1, 3))
        color = np.full((len(lines), 4), np.nan)
        if count - size - 1 in (3, 4):
            color[:, :count - size - 1] = table[:, 1 + size:]
        colors.append(color.repeat(size - 2, axis=0))
    return np.concatenate(faces), np.concatenate(colors)


def _rgba(colors: ndarray) -> ndarray:
    """Convert colours (N, 3) or (N, 4) to (N, 4) uint8; NaN becomes grey, and an alpha of 1."""
    top = 1.0 if np.nanmax(colors) > 1 else 255.0
    rgba = np.full((len(colors), 4), 255.0)
    rgba[:, :colors.shape[1]] = colors * top
    rgba[np.isnan(rgba[:, :3]).any(1), :3] = 255 * MISSING_COLOR
    return np.rint(np.nan_to_num(rgba, nan=255.0).clip(0, 255)).astype(np.uint8)


def check_stl(path: Path, data: bytes) -> None:
    """Check that the length of a binary .stl fits its number of faces.

    Raises:
        ValueError: The length does not fit.
    """
    if b'facet' in data[:4096].lower():  # text
        return
    promised, held = int.from_bytes(data[80:84], 'little'), (len(data) - 84) / 50
    if promised != held:
        raise ValueError(f'{path}: header promises {promised} faces, the file has bytes for {max(0, held):.6g}; it is '
                         'truncated, or not what its ending says')


def stl_colors(header: bytes, attributes: ndarray) -> ndarray | None:
    """Decode the colours of the faces of a binary .stl, (F, 4) float32; None if it has no colours.

    A colour is 15 bits of a face's attribute, in the order of Materialise Magics if the header contains ``COLOR=``, and
    of VisCAM and SolidView otherwise. Uncoloured faces take the colour of the header, or grey.

    Args:
        header: First 80 bytes of the file.
        attributes: Attributes of the faces, (F,) uint16.
    """
    place = header.find(b'COLOR=')
    magics = 0 <= place <= len(header) - 10
    stated = attributes >> 15 == (0 if magics else 1)
    if not magics and not stated.any():
        return None
    parts = np.stack([attributes >> shift & 31 for shift in ((0, 5, 10) if magics else (10, 5, 0))], -1) / 31
    rest = np.frombuffer(header[place + 6:place + 9], np.uint8) / 255 if magics else np.full(3, MISSING_COLOR)
    colors = np.where(stated[:, None], parts, rest)
    return np.concatenate([colors, np.ones((len(colors), 1))], -1).astype(np.float32)
