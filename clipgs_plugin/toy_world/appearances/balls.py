"""Balls: points on the unit sphere."""
from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from clipgs_plugin.toy_world.appearances.base import BLACK, WHITE, Group, Painter, over, plain, smooth_noise
from clipgs_plugin.toy_world.categories import Vary
from clipgs_plugin.toy_world.solids import Ellipsoid, Part, Surface


def _ball(v: Vary) -> Part:
    return Ellipsoid(1.0).at().turn('x', v(0, 360)).turn('y', v(0, 360)).turn('z', v(0, 360))


BALLS = Group('ball', _ball)


@BALLS.register
def basketball(v: Vary) -> Painter:
    orange = (v(0.80, 0.90), v(0.38, 0.46), 0.12)

    def painter(s: Surface) -> ndarray:
        _, y, z = s.points.T
        lines = (np.abs(y) < 0.05) | (np.abs(z) < 0.05) | (np.abs(np.abs(y) - 0.38 - 0.4 * z ** 2) < 0.05)
        return over(plain(s, orange), BLACK, lines)
    return painter


@BALLS.register
def watermelon(v: Vary) -> Painter:
    stripes, phase = v.count(7, 9), v(0, 6)

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        wave = np.sin(stripes * np.arctan2(z, x) + 0.9 * np.sin(11 * y + phase) + 0.5 * np.sin(23 * y))
        return over(plain(s, (0.50, 0.74, 0.31)), (0.10, 0.33, 0.13), wave > 0.1)
    return painter


@BALLS.register
def globe(v: Vary) -> Painter:
    waves = smooth_noise(v.rng, 3.0)

    def painter(s: Surface) -> ndarray:
        land = waves(s.points)
        rgb = over(plain(s, (0.12, 0.38, 0.78)), (0.24, 0.58, 0.22), land > 0.05)
        rgb = over(rgb, (0.80, 0.70, 0.42), land > 0.27)
        return over(rgb, WHITE, np.abs(s.points[:, 1]) > 0.93)
    return painter


@BALLS.register
def tennis_ball(v: Vary) -> Painter:
    felt = (v(0.74, 0.82), v(0.86, 0.92), v(0.15, 0.28))

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        seam = np.abs(z - 1.3 * x * y / np.maximum(x * x + y * y, 1e-6)) < 0.11
        return over(plain(s, felt), WHITE, seam)
    return painter


@BALLS.register
def beach_ball(v: Vary) -> Painter:
    panels = np.array([(0.88, 0.15, 0.15), WHITE, (0.98, 0.80, 0.10), WHITE, (0.12, 0.40, 0.85), WHITE])
    shift = v(6, 12)

    def painter(s: Surface) -> ndarray:
        x, y, z = s.points.T
        rgb = panels[(np.arctan2(z, x) / (2 * math.pi) * 6 + shift).astype(int) % 6]
        return over(rgb, WHITE, np.abs(y) > 0.95)
    return painter


@BALLS.register
def eight_ball(v: Vary) -> Painter:
    size = v(0.50, 0.56)

    def painter(s: Surface) -> ndarray:
        # Each of six sides has a number, so that most views show one.
        side = np.abs(s.points).argmax(1)
        rows = np.arange(len(side))
        x, y = s.points[rows, (side + 1) % 3], s.points[rows, (side + 2) % 3]
        rings = np.minimum(np.abs(np.hypot(x, y - 0.15) - 0.11), np.abs(np.hypot(x, y + 0.15) - 0.14))
        spot = np.hypot(x, y) < size
        return over(over(plain(s, BLACK), WHITE, spot), BLACK, spot & (rings < 0.055))
    return painter


@BALLS.register
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
