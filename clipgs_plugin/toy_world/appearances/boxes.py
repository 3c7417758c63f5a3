"""Boxes: uv runs across and along each face, from about -0.5 to 0.5."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.appearances.base import BLACK, WHITE, Group, Painter, over, plain
from clipgs_plugin.toy_world.categories import Vary
from clipgs_plugin.toy_world.solids import Box, Part, Surface


def _box(v: Vary) -> Part:
    return Box(v(0.94, 1.06), v(0.94, 1.06), 1.0).at().turn('y', v(0, 360))


BOXES = Group('box', _box)


@BOXES.register
def gift_box(v: Vary) -> Painter:
    paper = v.pick((0.82, 0.12, 0.18), (0.20, 0.30, 0.75), (0.15, 0.52, 0.30), (0.55, 0.20, 0.60))
    ribbon = v.pick((0.96, 0.80, 0.25), (0.96, 0.93, 0.90))
    half = v(0.07, 0.11)

    def painter(s: Surface) -> ndarray:
        return over(plain(s, paper), ribbon, (np.abs(s.uv) < half).any(1))
    return painter


@BOXES.register
def cardboard_box(v: Vary) -> Painter:
    board, label = (v(0.70, 0.78), v(0.52, 0.58), 0.34), v(-0.2, 0.1)

    def painter(s: Surface) -> ndarray:
        u, w = s.uv.T
        flat, front = np.abs(s.normals[:, 1]) > 0.5, np.abs(s.normals[:, 2]) > 0.5
        tape = (np.abs(w) < 0.07) & flat | (np.abs(u) < 0.07) & (w > 0.3) & (np.abs(s.normals[:, 0]) > 0.5)
        rgb = over(plain(s, board), (0.90, 0.82, 0.62), tape)
        rgb = over(rgb, WHITE, front & (np.abs(u - label) < 0.17) & (np.abs(w - label) < 0.11))
        return over(rgb, (0.42, 0.29, 0.18), flat & (np.abs(w) < 0.018) & (np.abs(u) < 0.5))
    return painter


_PIPS = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, -1), (0, 0), (1, 1)], 4: [(-1, -1), (-1, 1), (1, -1), (1, 1)],
         5: [(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)], 6: [(x, y) for x in (-1, 1) for y in (-1, 0, 1)]}


def _faces(s: Surface) -> ndarray:
    """Return the face of each point: +x, -x, +y, -y, +z, -z as 0 to 5, (n,)."""
    axis = np.abs(s.normals).argmax(1)
    return 2 * axis + (s.normals[np.arange(len(axis)), axis] < 0)


@BOXES.register
def die(v: Vary) -> Painter:
    ivory, r = v.pick(WHITE, (0.94, 0.90, 0.78)), v(0.085, 0.105)

    def painter(s: Surface) -> ndarray:
        face, rgb = _faces(s), plain(s, ivory)
        for i, pips in enumerate((1, 6, 2, 5, 3, 4)):
            for x, y in _PIPS[pips]:
                dot = np.hypot(s.uv[:, 0] - 0.26 * x, s.uv[:, 1] - 0.26 * y) < r
                rgb = over(rgb, (0.75, 0.10, 0.10) if pips == 1 else BLACK, dot & (face == i))
        return rgb
    return painter


@BOXES.register
def puzzle_cube(v: Vary) -> Painter:
    stickers = np.array([(0.80, 0.10, 0.12), (0.97, 0.50, 0.08), WHITE, (0.98, 0.84, 0.12), (0.10, 0.58, 0.25),
                         (0.10, 0.28, 0.75)])[v.rng.permuted(np.repeat(np.arange(6), 9)).reshape(6, 3, 3)]

    def painter(s: Surface) -> ndarray:
        cell = (s.uv + 0.5) * 3
        i, j = np.clip(cell.astype(int), 0, 2).T
        rgb = stickers[_faces(s), i, j]
        return over(rgb, BLACK, (np.abs(cell % 1 - 0.5) > 0.42).any(1))
    return painter


@BOXES.register
def wooden_crate(v: Vary) -> Painter:
    planks, wood = v.count(4, 6), np.array([v(0.66, 0.74), v(0.47, 0.53), 0.29])

    def painter(s: Surface) -> ndarray:
        u, w = s.uv.T
        edge = np.maximum(np.abs(u), np.abs(w))
        rgb = over(plain(s, wood), 0.45 * wood, np.abs((w + 0.5) * planks % 1 - 0.5) > 0.44)
        rgb = over(rgb, 0.72 * wood, (np.abs(u - w) < 0.11) | (edge > 0.36))
        groove = (np.abs(np.abs(u - w) - 0.12) < 0.015) & (edge < 0.36) | (np.abs(edge - 0.36) < 0.014)
        return over(rgb, 0.40 * wood, groove)
    return painter


_LETTERS = {letter: np.array([[c == '#' for c in row] for row in rows.split()]) for letter, rows in {
    'A': '.###. #...# #...# ##### #...# #...# #...#', 'B': '####. #...# #...# ####. #...# #...# ####.',
    'C': '.#### #.... #.... #.... #.... #.... .####', 'E': '##### #.... #.... ####. #.... #.... #####',
    'K': '#...# #..#. #.#.. ##... #.#.. #..#. #...#', 'X': '#...# .#.#. .#.#. ..#.. .#.#. .#.#. #...#'}.items()}


@BOXES.register
def toy_block(v: Vary) -> Painter:
    letters = [_LETTERS[i] for i in v.rng.permutation(sorted(_LETTERS))]
    inks = np.array([(0.82, 0.14, 0.15), (0.13, 0.35, 0.75), (0.14, 0.55, 0.25)])

    def painter(s: Surface) -> ndarray:
        face = _faces(s)
        ink = inks[face // 2]
        column = np.floor((s.uv[:, 0] + 0.25) * 10).astype(int)
        row = np.floor((0.31 - s.uv[:, 1]) * 11.3).astype(int)
        on = (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
        on[on] = [letters[f][r, c] for f, r, c in zip(face[on], row[on], column[on])]
        border = np.abs(s.uv).max(1) > 0.38
        return np.where((on | border)[:, None], ink, np.array([0.93, 0.85, 0.68]))
    return painter
