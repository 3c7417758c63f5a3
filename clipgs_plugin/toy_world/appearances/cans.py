"""Cans: cylinders of height 1."""
from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.appearances.base import WHITE, Group, Painter, over, plain
from clipgs_plugin.toy_world.categories import Vary
from clipgs_plugin.toy_world.solids import Part, Surface, cylinder


def _can(v: Vary) -> Part:
    return cylinder(v(0.38, 0.46), 1.0).at().turn('z', v.pick(0, 0, 90)).turn('y', v(0, 360))


CANS = Group('can', _can)


def _can_places(s: Surface) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Return the angle, the height in [0, 1], the radius in [0, 1], and the mask of ends, each (n,)."""
    x, y, z = s.points.T
    radius = np.hypot(x, z)
    return np.arctan2(z, x), y + 0.5, radius / radius.max(initial=1e-9), np.abs(s.normals[:, 1]) > 0.5


@CANS.register
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


@CANS.register
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


@CANS.register
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


@CANS.register
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


@CANS.register
def log(v: Vary) -> Painter:
    bark, rings, phase = np.array([v(0.36, 0.44), 0.26, 0.17]), v(3.5, 5.0), v(0, 6)

    def painter(s: Surface) -> ndarray:
        angle, y, r, end = _can_places(s)
        furrow = np.sin(13 * angle + 1.2 * np.sin(9 * y + phase) + phase) + 0.5 * np.sin(29 * angle - 5 * y)
        rgb = over(plain(s, bark), 0.55 * bark, furrow > 0.5)
        rgb = over(rgb, (0.86, 0.70, 0.47), end & (r < 0.9))
        return over(rgb, (0.62, 0.43, 0.24), end & (r < 0.9) & (r * rings % 1 < 0.32))
    return painter


@CANS.register
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
