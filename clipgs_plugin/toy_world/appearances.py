"""Categories of one shape each group, which only their surface tells apart, and what time does to them."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.categories import Category, Vary
from clipgs_plugin.toy_world.solids import Box, Ellipsoid, Part, Surface, cylinder

Painter = Callable[[Surface], ndarray]
APPEARANCES: dict[str, Category] = {}


def mix(base: tuple, over: tuple, share: ndarray) -> ndarray:
    """``over`` where the share is 1, ``base`` where it is 0, (n, 3)."""
    share = np.asarray(share, dtype=float)[:, None]
    return np.asarray(base) * (1 - share) + np.asarray(over) * share


# Tones and wears: the looks of these categories. Tones act on colours; wears on colours, by normals and places in the
# unit sphere.

def _grade(gain: float, saturation: float, lift: float = 0.0) -> Callable[[ndarray], ndarray]:
    def grade(rgb: ndarray) -> ndarray:
        grey = rgb.mean(1, keepdims=True)
        return np.clip(lift + gain * (grey + saturation * (rgb - grey)), 0, 1)
    return grade


TONES = {'natural': _grade(1.0, 1.0), 'bright': _grade(1.12, 1.25, 0.04), 'dark': _grade(0.55, 1.0),
         'pale': _grade(0.55, 0.9, 0.42), 'faded': _grade(0.85, 0.4, 0.06)}


def _smooth_noise(rng: np.random.Generator, frequency: float) -> Callable[[ndarray], ndarray]:
    """A smooth function of places (n, 3) with values around 0, (n,): the mean of a few random waves."""
    waves, phases = rng.normal(size=(3, 8)) * frequency, rng.uniform(0, 2 * math.pi, 8)
    return lambda points: np.sin(points @ waves + phases).mean(1)


def _clean(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    return rgb


def _dusty(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(0.1 + 0.7 * normals[:, 1] + 0.5 * _smooth_noise(rng, 3)(points), 0, 0.6)
    return mix(rgb, (0.72, 0.69, 0.63), share)


def _muddy(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    share = np.clip(6 * (-0.35 - points[:, 1] + 0.8 * _smooth_noise(rng, 4)(points)), 0, 0.92)
    return mix(rgb, (0.30, 0.21, 0.13), share)


def _speckled(rgb: ndarray, points: ndarray, normals: ndarray, rng: np.random.Generator) -> ndarray:
    spots, radii = rng.uniform(-1, 1, (110, 3)), rng.uniform(0.08, 0.15, 110)
    share = ((points ** 2).sum(1)[:, None] + (spots ** 2).sum(1) - 2 * points @ spots.T < radii ** 2).any(1)
    return mix(rgb, (0.97, 0.97, 0.96), share)


WEARS = {'clean': _clean, 'dusty': _dusty, 'muddy': _muddy, 'speckled': _speckled}


# The shapes. A category is a function from a source of variation to a painter of its group's shape.

def _ball(v: Vary) -> Part:
    return Ellipsoid(1.0).at().turn('x', v(0, 360)).turn('y', v(0, 360)).turn('z', v(0, 360))


def _box(v: Vary) -> Part:
    return Box(v(0.94, 1.06), v(0.94, 1.06), 1.0).at().turn('y', v(0, 360))


def _can(v: Vary) -> Part:
    return cylinder(v(0.38, 0.46), 1.0).at().turn('z', v.pick(0, 0, 90)).turn('y', v(0, 360))


def _disc(v: Vary) -> Part:
    return cylinder(1.0, v(0.14, 0.22)).at().turn('y', v(0, 360)).turn('x', v(25, 90))


GROUPS: dict[str, Callable[[Vary], Part]] = {'ball': _ball, 'box': _box, 'can': _can, 'disc': _disc}


def appearance(group: str) -> Callable[[Callable[[Vary], Painter]], Callable[[Vary], Painter]]:
    def register(function: Callable[[Vary], Painter]) -> Callable[[Vary], Painter]:
        name = function.__name__.replace('_', ' ')
        APPEARANCES[name] = Category(name, lambda v: [GROUPS[group](v).paint(function(v))], group)
        return function
    return register


WHITE, BLACK = (0.95, 0.95, 0.94), (0.08, 0.08, 0.09)


def over(rgb: ndarray, colour: tuple, where: ndarray) -> ndarray:
    """``colour`` where a mask says so."""
    return np.where(where[:, None], np.asarray(colour), rgb)


def plain(surface: Surface, colour: tuple) -> ndarray:
    return np.tile(np.asarray(colour, dtype=float), (len(surface.points), 1))


# Balls: points on the unit sphere

@appearance('ball')
def basketball(v: Vary) -> Painter:
    orange = (v(0.80, 0.90), v(0.38, 0.46), 0.12)

    def painter(s: Surface) -> ndarray:
        _, y, z = s.points.T
        lines = (np.abs(y) < 0.05) | (np.abs(z) < 0.05) | (np.abs(np.abs(y) - 0.38 - 0.4 * z ** 2) < 0.05)
        return over(plain(s, orange), BLACK, lines)
    return painter


@appearance('ball')
def watermelon(v: Vary) -> Painter:
    stripes, phase = v.count(7, 9), v(0, 6)

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        wave = np.sin(stripes * np.arctan2(z, x) + 0.9 * np.sin(11 * y + phase) + 0.5 * np.sin(23 * y))
        return over(plain(s, (0.50, 0.74, 0.31)), (0.10, 0.33, 0.13), wave > 0.1)
    return painter


@appearance('ball')
def globe(v: Vary) -> Painter:
    waves = _smooth_noise(v.rng, 3.0)

    def painter(s: Surface) -> ndarray:
        land = waves(s.points)
        rgb = over(plain(s, (0.12, 0.38, 0.78)), (0.24, 0.58, 0.22), land > 0.05)
        rgb = over(rgb, (0.80, 0.70, 0.42), land > 0.27)
        return over(rgb, WHITE, np.abs(s.points[:, 1]) > 0.93)
    return painter


@appearance('ball')
def tennis_ball(v: Vary) -> Painter:
    felt = (v(0.74, 0.82), v(0.86, 0.92), v(0.15, 0.28))

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        seam = np.abs(z - 1.3 * x * y / np.maximum(x * x + y * y, 1e-6)) < 0.11
        return over(plain(s, felt), WHITE, seam)
    return painter


@appearance('ball')
def beach_ball(v: Vary) -> Painter:
    panels = np.array([(0.88, 0.15, 0.15), WHITE, (0.98, 0.80, 0.10), WHITE, (0.12, 0.40, 0.85), WHITE])
    shift = v(6, 12)

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        rgb = panels[(np.arctan2(z, x) / (2 * math.pi) * 6 + shift).astype(int) % 6]
        return over(rgb, WHITE, np.abs(y) > 0.95)
    return painter


@appearance('ball')
def eight_ball(v: Vary) -> Painter:
    size = v(0.50, 0.56)

    def painter(s: Surface) -> ndarray:
        # A number on each of six sides, so that most views show one.
        side = np.abs(s.points).argmax(1)
        rows = np.arange(len(side))
        x, y = s.points[rows, (side + 1) % 3], s.points[rows, (side + 2) % 3]
        rings = np.minimum(np.abs(np.hypot(x, y - 0.15) - 0.11), np.abs(np.hypot(x, y + 0.15) - 0.14))
        spot = np.hypot(x, y) < size
        return over(over(plain(s, BLACK), WHITE, spot), BLACK, spot & (rings < 0.055))
    return painter


@appearance('ball')
def soccer_ball(v: Vary) -> Painter:
    golden = (1 + math.sqrt(5)) / 2
    corners = np.array([np.roll((0, a, b * golden), i) for i in range(3) for a in (-1, 1) for b in (-1, 1)])
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    size = v(0.905, 0.925)

    def painter(s: Surface) -> ndarray:
        nearest = np.sort(s.points @ corners.T, axis=1)
        seams = nearest[:, -3] - nearest[:, -4] < 0.05
        return over(over(plain(s, WHITE), (0.6, 0.6, 0.6), seams), BLACK, nearest[:, -1] > size)
    return painter


# Boxes: uv is across and along each face, from -0.5 to 0.5 or so

@appearance('box')
def gift_box(v: Vary) -> Painter:
    paper = v.pick((0.82, 0.12, 0.18), (0.20, 0.30, 0.75), (0.15, 0.52, 0.30), (0.55, 0.20, 0.60))
    ribbon = v.pick((0.96, 0.80, 0.25), (0.96, 0.93, 0.90))
    half = v(0.07, 0.11)

    def painter(s: Surface) -> ndarray:
        return over(plain(s, paper), ribbon, (np.abs(s.uv) < half).any(1))
    return painter


@appearance('box')
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
    """The face of a box each point is on: +x, -x, +y, -y, +z, -z as 0 to 5, (n,)."""
    axis = np.abs(s.normals).argmax(1)
    return 2 * axis + (s.normals[np.arange(len(axis)), axis] < 0)


@appearance('box')
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


@appearance('box')
def puzzle_cube(v: Vary) -> Painter:
    stickers = np.array([(0.80, 0.10, 0.12), (0.97, 0.50, 0.08), WHITE, (0.98, 0.84, 0.12), (0.10, 0.58, 0.25),
                         (0.10, 0.28, 0.75)])[v.rng.permuted(np.repeat(np.arange(6), 9)).reshape(6, 3, 3)]

    def painter(s: Surface) -> ndarray:
        cell = (s.uv + 0.5) * 3
        i, j = np.clip(cell.astype(int), 0, 2).T
        rgb = stickers[_faces(s), i, j]
        return over(rgb, BLACK, (np.abs(cell % 1 - 0.5) > 0.42).any(1))
    return painter


@appearance('box')
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


@appearance('box')
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


# Cans: a cylinder of height 1

def _can_places(s: Surface) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Angle, height in [0, 1], radius in [0, 1] and whether it is an end, each (n,)."""
    x, y, z = s.points.T
    radius = np.hypot(x, z)
    return np.arctan2(z, x), y + 0.5, radius / radius.max(initial=1e-9), np.abs(s.normals[:, 1]) > 0.5


@appearance('can')
def soda_can(v: Vary) -> Painter:
    label, metal = v.pick((0.80, 0.08, 0.12), (0.10, 0.25, 0.70), (0.10, 0.52, 0.28)), (0.76, 0.78, 0.80)
    phase = v(0, 6)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        rgb = over(plain(s, label), WHITE, np.abs(y - 0.5 - 0.16 * np.sin(2 * angle + phase)) < 0.075)
        rgb = over(rgb, metal, end | (np.abs(y - 0.5) > 0.44))
        x, z = r * np.cos(angle), r * np.sin(angle)
        return over(rgb, (0.12, 0.12, 0.13), end & (y > 0.5) & (np.hypot((x - 0.42) / 0.34, z / 0.24) < 1))
    return painter


@appearance('can')
def paint_can(v: Vary) -> Painter:
    colour = v.pick((0.85, 0.15, 0.15), (0.15, 0.35, 0.80), (0.95, 0.78, 0.12), (0.18, 0.60, 0.28), (0.60, 0.22, 0.66))
    phase, metal = v(0, 6), (0.66, 0.68, 0.71)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        drips = 0.72 + 0.12 * np.sin(5 * angle + phase) + 0.07 * np.sin(9 * angle + 2 * phase)
        rgb = over(plain(s, metal), WHITE, (np.abs(y - 0.33) < 0.21) & ~end)
        rgb = over(rgb, colour, (y > drips) & ~end)
        return over(rgb, colour, end & (y > 0.5) & (r < 0.84))
    return painter


@appearance('can')
def battery(v: Vary) -> Painter:
    copper, split = v.pick((0.82, 0.50, 0.20), (0.85, 0.66, 0.20)), v(0.62, 0.72)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        rgb = over(plain(s, (0.10, 0.10, 0.11)), copper, (y > split) & ~end)
        across = np.abs((angle / (2 * math.pi) * 3) % 1 - 0.5) * 0.9
        plus = (np.minimum(across, np.abs(y - 0.4)) < 0.035) & (np.maximum(across, np.abs(y - 0.4)) < 0.13)
        rgb = over(rgb, WHITE, plus & ~end)
        rgb = over(rgb, copper, end & (y > 0.5))
        return over(rgb, (0.82, 0.83, 0.85), end & ((r < 0.42) | (y < 0.5)))
    return painter


@appearance('can')
def drum(v: Vary) -> Painter:
    body = v.pick((0.78, 0.12, 0.14), (0.14, 0.28, 0.68), (0.12, 0.48, 0.26))
    turns = v.count(6, 8)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        wave = np.abs((angle / (2 * math.pi) * turns) % 1 - 0.5) * 2
        rgb = over(plain(s, body), WHITE, np.abs(y - 0.2 - 0.6 * wave) < 0.07)
        rgb = over(rgb, (0.90, 0.72, 0.22), (np.abs(y - 0.5) > 0.38) | (r > 0.9) & end)
        return over(rgb, (0.95, 0.91, 0.82), end & (r < 0.9))
    return painter


@appearance('can')
def log(v: Vary) -> Painter:
    bark, rings, phase = np.array([v(0.36, 0.44), 0.26, 0.17]), v(3.5, 5.0), v(0, 6)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        furrow = np.sin(13 * angle + 1.2 * np.sin(9 * y + phase) + phase) + 0.5 * np.sin(29 * angle - 5 * y)
        rgb = over(plain(s, bark), 0.55 * bark, furrow > 0.5)
        rgb = over(rgb, (0.86, 0.70, 0.47), end & (r < 0.9))
        return over(rgb, (0.62, 0.43, 0.24), end & (r < 0.9) & (r * rings % 1 < 0.32))
    return painter


@appearance('can')
def barrel(v: Vary) -> Painter:
    oak, staves, iron = np.array([v(0.58, 0.68), v(0.36, 0.42), 0.20]), v.count(12, 16), (0.25, 0.26, 0.28)
    hoops = np.array([0.06, v(0.24, 0.32), v(0.68, 0.76), 0.94])

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        joint = np.where(end, (r * np.cos(angle) * 3) % 1, (angle / (2 * math.pi) * staves) % 1)
        rgb = over(plain(s, oak), 0.5 * oak, joint < 0.14)
        hoop = ~end & (np.abs(y[:, None] - hoops) < 0.042).any(1)
        return over(rgb, iron, hoop | end & (r > 0.92))
    return painter


# Discs: a flat cylinder of radius 1 around y, the same on both faces

def _disc_places(s: Surface) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """x and y of the face as seen from outside, the radius, and whether it is a face, each (n,)."""
    x, _, z = s.points.T
    return x, -z * np.sign(s.normals[:, 1] + 1e-9), np.hypot(x, z), np.abs(s.normals[:, 1]) > 0.5


@appearance('disc')
def pizza(v: Vary) -> Painter:
    slices: list[ndarray] = []
    for place in v.rng.uniform(-0.68, 0.68, (60, 2)):
        if np.hypot(*place) < 0.66 and all(np.hypot(*(place - other)) > 0.38 for other in slices):
            slices.append(place)
    toppings = [(place, 0.15, (0.74, 0.16, 0.12)) for place in slices]
    toppings += [(place, 0.06, (0.20, 0.48, 0.16)) for place in v.rng.uniform(-0.55, 0.55, (9, 2))]

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        rgb = over(plain(s, (0.83, 0.60, 0.32)), (0.72, 0.18, 0.10), face & (r < 0.86))
        rgb = over(rgb, (0.98, 0.82, 0.38), face & (r < 0.80))
        for (px, py), size, colour in toppings:
            rgb = over(rgb, colour, face & (np.hypot(x - px, y - py) < size))
        return rgb
    return painter


@appearance('disc')
def clock(v: Vary) -> Painter:
    rim = v.pick(BLACK, (0.55, 0.13, 0.13), (0.42, 0.27, 0.15))
    hour, minute = v(0, 2 * math.pi), v(0, 2 * math.pi)

    def hand(x: ndarray, y: ndarray, angle: float, length: float, half: float) -> ndarray:
        along, across = x * math.sin(angle) + y * math.cos(angle), x * math.cos(angle) - y * math.sin(angle)
        return (np.abs(across) < half) & (along > -0.08) & (along < length)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        rgb = over(plain(s, rim), WHITE, face & (r < 0.86))
        marks = np.abs((np.arctan2(y, x) / (2 * math.pi) * 12 + 0.5) % 1 - 0.5) * r < 0.09
        dark = marks & (np.abs(r - 0.74) < 0.075) | hand(x, y, hour, 0.42, 0.06) | hand(x, y, minute, 0.66, 0.045)
        return over(rgb, BLACK, face & dark)
    return painter


@appearance('disc')
def vinyl_record(v: Vary) -> Painter:
    label, start = v.pick((0.80, 0.15, 0.15), (0.95, 0.75, 0.15), (0.15, 0.40, 0.75)), v(0, 6)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        shine = 0.5 + 0.5 * np.cos(2 * (np.arctan2(y, x) - start))
        rgb = mix(plain(s, (0.06, 0.06, 0.07)), (0.30, 0.30, 0.33), shine ** 8 * face)
        rgb = over(rgb, (0.20, 0.20, 0.22), face & (r * 6 % 1 < 0.16))
        return over(over(rgb, label, face & (r < 0.36)), WHITE, face & (r < 0.07))
    return painter


@appearance('disc')
def dartboard(v: Vary) -> Painter:
    shift = v(20, 22)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        odd = ((np.arctan2(y, x) / (2 * math.pi) * 20 + shift).astype(int) % 2 == 1)[:, None]
        rgb = np.where(odd, BLACK, (0.93, 0.86, 0.68))
        ring = ((np.abs(r - 0.79) < 0.06) | (np.abs(r - 0.48) < 0.06))[:, None]
        rgb = np.where(ring, np.where(odd, (0.80, 0.12, 0.12), (0.10, 0.52, 0.25)), rgb)
        rgb = over(over(rgb, (0.10, 0.52, 0.25), r < 0.17), (0.80, 0.12, 0.12), r < 0.09)
        return over(rgb, BLACK, ~face | (r > 0.86))
    return painter


@appearance('disc')
def cookie(v: Vary) -> Painter:
    chips, dough = v.rng.uniform(-0.85, 0.85, (26, 2)), (v(0.76, 0.84), v(0.55, 0.60), 0.33)
    sizes = v.rng.uniform(0.07, 0.13, 26)

    def painter(s: Surface) -> ndarray:
        x, y, r, face = _disc_places(s)
        near = (np.hypot(x[:, None] - chips[:, 0], y[:, None] - chips[:, 1]) < sizes).any(1)
        return over(over(plain(s, dough), (0.62, 0.40, 0.20), r > 0.93), (0.25, 0.14, 0.09), face & near)
    return painter
