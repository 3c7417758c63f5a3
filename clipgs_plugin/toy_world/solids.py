"""Solids: surfaces to sample evenly, with a test of inside and outside.

Convention: y is up, and a solid is centred on its own origin (a :class:`Lathe` keeps the heights of its profile).
Lengths are in any unit; objects are scaled into the unit sphere at the end. A solid has

- ``area``; ``reach``, the radius of a ball around the origin that holds it; and ``around``, the length after which
  ``u`` returns to its start (0 if it never returns);
- ``sample(draws)``, which maps evenly spread numbers (n, 3) in [0, 1) to a :class:`Surface` evenly spread by area
  (the third number decides rejections, so the sample may have fewer than n points);
- ``contains(points)``, the mask of points (n, 3) of its own frame that lie inside.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy import ndarray

TAU = 2 * math.pi


class Surface(NamedTuple):
    """Points of a solid's surface in its own frame."""

    points: ndarray   # (n, 3)
    normals: ndarray  # (n, 3) unit, outward
    uv: ndarray       # (n, 2) lengths along the surface: u around or across, v upwards on upright faces
    rank: ndarray     # (n,) in [0, 1): the points below any rank are evenly spread too


def even_draws(n: int, shift: ndarray) -> ndarray:
    """Return evenly spread numbers in [0, 1), (n, 3); every prefix is evenly spread as well.

    Args:
        n: Number of rows.
        shift: Offset of all rows modulo 1, (3,).

    Source: additive recurrence of Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018, in two
    dimensions for the surface; the golden ratio for the third number.
    """
    steps = np.array([0.7548776662466927, 0.5698402909980532, 0.6180339887498949])
    return (shift + np.arange(1, n + 1)[:, None] * steps) % 1.0


def _ranks(n: int) -> ndarray:
    return np.arange(n) / max(n, 1)


def _choose(weights: ndarray, draw: ndarray) -> tuple[ndarray, ndarray]:
    """Return an index chosen by weight, and the rest of the draw, which is again even in [0, 1)."""
    edges = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
    index = np.clip(np.searchsorted(edges, draw, side='right') - 1, 0, len(weights) - 1)
    return index, np.clip((draw - edges[index]) / np.maximum(edges[index + 1] - edges[index], 1e-12), 0, 1)


def _inside_polygon(polygon: ndarray, x: ndarray, y: ndarray) -> ndarray:
    """Return the mask of points (n,) inside a closed polygon (m, 2), by the even-odd rule."""
    inside = np.zeros(len(x), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)))
    return inside


class Solid:
    """Base class of solids, with methods to place them."""

    area: float
    reach: float
    around: float = 0.0

    def sample(self, draws: ndarray) -> Surface:
        raise NotImplementedError

    def contains(self, points: ndarray) -> ndarray:
        raise NotImplementedError

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """Place the solid with its origin at a point."""
        return Part(self, position=np.array([x, y, z], dtype=float))

    def between(self, start: Sequence[float], end: Sequence[float]) -> Part:
        """Place the solid with its origin halfway between two points and its y axis towards the second."""
        start, end = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        up = (end - start) / np.linalg.norm(end - start)
        side = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0])
        side /= np.linalg.norm(side)
        return Part(self, np.stack([side, up, np.cross(side, up)], axis=1), (start + end) / 2)


@dataclass(frozen=True, eq=False)
class Part:
    """Placed and painted solid."""

    solid: Solid
    rotation: ndarray = field(default_factory=lambda: np.eye(3))   # (3, 3), columns are the solid's axes
    position: ndarray = field(default_factory=lambda: np.zeros(3))
    colour: str | Callable[[Surface], ndarray] = 'main'            # the object's look, a material, or a painter
    density: float = 1.0                                           # Gaussians per area, relative to other parts

    def turn(self, axis: str, degrees: float) -> Part:
        """Turn the part about its own origin, around an axis of the world."""
        return replace(self, rotation=turning(axis, degrees) @ self.rotation)

    def orbit(self, axis: str, degrees: float) -> Part:
        """Turn the part about the origin of the world."""
        turned = turning(axis, degrees)
        return replace(self, rotation=turned @ self.rotation, position=turned @ self.position)

    def move(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        return replace(self, position=self.position + (x, y, z))

    def paint(self, colour: str | Callable[[Surface], ndarray]) -> Part:
        return replace(self, colour=colour)

    def fine(self, density: float) -> Part:
        """Set the density, for small parts that matter."""
        return replace(self, density=density)

    def contains(self, points: ndarray) -> ndarray:
        """Return the mask (n,) of points (n, 3) of the world that lie inside."""
        return self.solid.contains((points - self.position) @ self.rotation)


def turning(axis: str, degrees: float) -> ndarray:
    """Return the rotation matrix around ``'x'``, ``'y'`` or ``'z'``, counter-clockwise seen from its tip."""
    i = 'xyz'.index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    angle = math.radians(degrees)
    matrix[j, j] = matrix[k, k] = math.cos(angle)
    matrix[k, j] = math.sin(angle)
    matrix[j, k] = -matrix[k, j]
    return matrix


class Box(Solid):
    """Box of width x, height y and depth z."""

    def __init__(self, width: float, height: float, depth: float) -> None:
        self.size = np.array([width, height, depth], dtype=float)
        w, h, d = self.size
        self._faces = np.array([h * d, h * d, w * d, w * d, w * h, w * h])
        self.area = float(self._faces.sum())
        self.reach = float(np.linalg.norm(self.size)) / 2

    def sample(self, draws: ndarray) -> Surface:
        face, a = _choose(self._faces, draws[:, 0])
        axis, sign = face // 2, 1.0 - 2.0 * (face % 2)
        # The two axes of each face, horizontal first: v is the height on upright faces.
        across, along = np.array([2, 0, 0])[axis], np.array([1, 2, 1])[axis]
        rows = np.arange(len(draws))
        points, normals = np.zeros((len(draws), 3)), np.zeros((len(draws), 3))
        normals[rows, axis] = sign
        points[rows, axis] = sign * self.size[axis] / 2
        points[rows, across] = (a - 0.5) * self.size[across]
        points[rows, along] = (draws[:, 1] - 0.5) * self.size[along]
        # Seen from outside, u points right and v up; on the top face up is -z, on the bottom face z.
        to_right = np.where(axis == 0, -sign, np.where(axis == 1, 1.0, sign))
        upwards = np.where(axis == 1, -sign, 1.0)
        uv = np.stack([points[rows, across] * to_right, points[rows, along] * upwards], 1)
        return Surface(points, normals, uv, _ranks(len(draws)))

    def contains(self, points: ndarray) -> ndarray:
        return (np.abs(points) <= self.size / 2).all(1)


class Ellipsoid(Solid):
    """Ellipsoid of three radii; a single radius makes a ball."""

    def __init__(self, rx: float, ry: float | None = None, rz: float | None = None) -> None:
        self.radii = np.array([rx, rx if ry is None else ry, rx if rz is None else rz], dtype=float)
        a, b, c = self.radii ** 1.6075  # Thomsen's formula for the area, within 1.1 %
        self.area = 4 * math.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075)
        self.around = math.pi * (self.radii[0] + self.radii[2])
        self.reach = float(self.radii.max())

    def sample(self, draws: ndarray) -> Surface:
        height, angle = 2 * draws[:, 1] - 1, TAU * draws[:, 0]
        ring = np.sqrt(1 - height ** 2)
        ball = np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], 1)
        normals = ball / self.radii
        stretch = np.linalg.norm(normals, axis=1)
        keep = draws[:, 2] * stretch.max(initial=0) <= stretch
        uv = np.stack([angle / TAU * self.around, np.arcsin(height) * self.radii[1]], 1)
        return Surface((ball * self.radii)[keep], (normals / stretch[:, None])[keep], uv[keep],
                       _ranks(len(draws))[keep])

    def contains(self, points: ndarray) -> ndarray:
        return ((points / self.radii) ** 2).sum(1) <= 1


class Capsule(Solid):
    """Cylinder around y with round ends; ``height`` is the length of the straight part."""

    def __init__(self, radius: float, height: float) -> None:
        self.radius, self.height = radius, height
        self.around = TAU * radius
        self.area = self.around * (height + 2 * radius)
        self.reach = height / 2 + radius

    def sample(self, draws: ndarray) -> Surface:
        # Archimedes: between two heights, a ball and the cylinder around it have equal areas.
        y, angle = (draws[:, 1] - 0.5) * (self.height + 2 * self.radius), TAU * draws[:, 0]
        up = (y - np.clip(y, -self.height / 2, self.height / 2)) / self.radius
        ring = np.sqrt(np.maximum(1 - up ** 2, 0))
        normals = np.stack([ring * np.cos(angle), up, ring * np.sin(angle)], 1)
        points = normals * self.radius
        points[:, 1] = y
        return Surface(points, normals, np.stack([angle * self.radius, y], 1), _ranks(len(draws)))

    def contains(self, points: ndarray) -> ndarray:
        y = np.maximum(np.abs(points[:, 1]) - self.height / 2, 0)
        return points[:, 0] ** 2 + y ** 2 + points[:, 2] ** 2 <= self.radius ** 2


class Lathe(Solid):
    """Profile turned around y.

    Args:
        profile: Corners (radius, height), (m, 2), from the lowest to the highest along the outside. The last edge,
            back to the first corner, lies on the axis or closes a hollow vessel or ring.
    """

    def __init__(self, profile: Sequence[tuple[float, float]]) -> None:
        self.profile = np.asarray(profile, dtype=float)
        start, end = self.profile, np.roll(self.profile, -1, axis=0)
        self._start, self._step = start, end - start
        self._length = np.linalg.norm(self._step, axis=1)
        self._along = np.cumsum(self._length) - self._length
        self._areas = math.pi * (start[:, 0] + end[:, 0]) * self._length
        self.area = float(self._areas.sum())
        self.around = TAU * float(self.profile[:, 0].max())
        self.reach = float(np.linalg.norm(self.profile, axis=1).max())

    def sample(self, draws: ndarray) -> Surface:
        edge, t = _choose(self._areas, draws[:, 1])
        r0, dr = self._start[edge, 0], self._step[edge, 0]
        # Area grows with the radius along the edge: invert r0 t + dr t^2 / 2.
        total = r0 + dr / 2
        t = 2 * total * t / np.maximum(r0 + np.sqrt(np.maximum(r0 ** 2 + 2 * dr * total * t, 0)), 1e-12)
        radius, y = r0 + dr * t, self._start[edge, 1] + self._step[edge, 1] * t
        angle = TAU * draws[:, 0]
        cos, sin = np.cos(angle), np.sin(angle)
        outward = np.stack([self._step[:, 1], -self._step[:, 0]], 1) / np.maximum(self._length, 1e-12)[:, None]
        normals = np.stack([outward[edge, 0] * cos, outward[edge, 1], outward[edge, 0] * sin], 1)
        uv = np.stack([angle / TAU * self.around, self._along[edge] + self._length[edge] * t], 1)
        return Surface(np.stack([radius * cos, y, radius * sin], 1), normals, uv, _ranks(len(draws)))

    def contains(self, points: ndarray) -> ndarray:
        return _inside_polygon(self.profile, np.hypot(points[:, 0], points[:, 2]), points[:, 1])


class Prism(Solid):
    """Polygon of the xy plane extruded along z.

    Args:
        polygon: Corners counter-clockwise, (m, 2); each must see the mean of the corners.
        depth: Extent along z.
    """

    def __init__(self, polygon: Sequence[tuple[float, float]], depth: float) -> None:
        self.polygon, self.depth = np.asarray(polygon, dtype=float), depth
        self._step = np.roll(self.polygon, -1, axis=0) - self.polygon
        self._length = np.linalg.norm(self._step, axis=1)
        self._along = np.cumsum(self._length) - self._length
        self._centre = self.polygon.mean(0)
        spokes = self.polygon - self._centre
        self._fans = (spokes[:, 0] * self._step[:, 1] - spokes[:, 1] * self._step[:, 0]) / 2
        if (self._fans < -1e-9).any():
            raise ValueError(f'Prism: corner {int(self._fans.argmin())} of {len(self.polygon)} is clockwise seen from '
                             'the mean of the corners; list the corners counter-clockwise, or split the polygon')
        self._areas = np.concatenate([self._length * depth, self._fans, self._fans])
        self.area = float(self._areas.sum())
        self.reach = math.hypot(float(np.linalg.norm(self.polygon, axis=1).max()), depth / 2)

    def sample(self, draws: ndarray) -> Surface:
        m = len(self.polygon)
        face, t = _choose(self._areas, draws[:, 0])
        edge, cap = face % m, face // m
        on_edge = self.polygon[edge] + self._step[edge] * t[:, None]
        outward = np.stack([self._step[:, 1], -self._step[:, 0]], 1) / self._length[:, None]
        inwards = np.sqrt(draws[:, 1])[:, None]
        flat = np.where(cap[:, None] == 0, on_edge, self._centre + (on_edge - self._centre) * inwards)
        z = np.where(cap == 0, draws[:, 1] - 0.5, np.where(cap == 1, 0.5, -0.5)) * self.depth
        normals = np.where(cap[:, None] == 0, np.pad(outward[edge], ((0, 0), (0, 1))),
                           np.stack([0.0 * z, 0.0 * z, np.sign(z)], 1))
        side = np.stack([z, self._along[edge] + self._length[edge] * t], 1)
        return Surface(np.column_stack([flat, z]), normals, np.where(cap[:, None] == 0, side, flat),
                       _ranks(len(draws)))

    def contains(self, points: ndarray) -> ndarray:
        return _inside_polygon(self.polygon, points[:, 0], points[:, 1]) & (np.abs(points[:, 2]) <= self.depth / 2)


class Torus(Solid):
    """Ring around z, or an arc of one; the open ends of an arc belong inside other parts.

    Args:
        ring: Radius of the ring's centre line.
        tube: Radius of the tube, at most ``ring``.
        arc: First and last angle in degrees, from x towards y.
    """

    def __init__(self, ring: float, tube: float, arc: tuple[float, float] = (0.0, 360.0)) -> None:
        self.ring, self.tube = ring, tube
        self.arc = tuple(math.radians(a) for a in arc)
        self.area = TAU * tube * ring * (self.arc[1] - self.arc[0])
        self.around = TAU * tube
        self.reach = ring + tube

    def sample(self, draws: ndarray) -> Surface:
        angle, turn = self.arc[0] + (self.arc[1] - self.arc[0]) * draws[:, 0], TAU * draws[:, 1]
        radius = self.ring + self.tube * np.cos(turn)
        keep = draws[:, 2] * (self.ring + self.tube) <= radius
        cos, sin = np.cos(angle), np.sin(angle)
        points = np.stack([radius * cos, radius * sin, self.tube * np.sin(turn)], 1)
        normals = np.stack([np.cos(turn) * cos, np.cos(turn) * sin, np.sin(turn)], 1)
        uv = np.stack([turn * self.tube, angle * self.ring], 1)
        return Surface(points[keep], normals[keep], uv[keep], _ranks(len(draws))[keep])

    def contains(self, points: ndarray) -> ndarray:
        x, y, z = points.T
        inside = (np.hypot(x, y) - self.ring) ** 2 + z ** 2 <= self.tube ** 2
        return inside & ((np.arctan2(y, x) - self.arc[0]) % TAU <= self.arc[1] - self.arc[0])


# Common profiles

def frustum(bottom: float, top: float, height: float) -> Lathe:
    """Return a centred cylinder whose radius changes from ``bottom`` to ``top``."""
    return Lathe([(0, -height / 2), (bottom, -height / 2), (top, height / 2), (0, height / 2)])


def cylinder(radius: float, height: float) -> Lathe:
    return frustum(radius, radius, height)


def cone(radius: float, height: float) -> Lathe:
    """Return a cone with the tip up, centred on half its height."""
    return Lathe([(0, -height / 2), (radius, -height / 2), (0, height / 2)])


def curve(knots: Sequence[tuple[float, float]], steps: int = 6) -> list[tuple[float, float]]:
    """Return a smooth line through knots (Catmull-Rom), with ``steps`` pieces between neighbours."""
    p = np.asarray([knots[0], *knots, knots[-1]], dtype=float)
    t = (np.arange(steps) / steps)[:, None]
    pieces = [0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t ** 2 + (3 * b - a - 3 * c + d) * t ** 3)
              for a, b, c, d in zip(p, p[1:], p[2:], p[3:])]
    return [(float(max(x, 0.0)), float(y)) for x, y in np.concatenate([*pieces, p[-1:]])]


def vessel(knots: Sequence[tuple[float, float]], wall: float) -> Lathe:
    """Return a hollow vessel, open at the top; knots run along the outside from the foot's edge to the rim."""
    outside = curve(knots)
    floor = outside[0][1] + wall
    inside = [(max(x - wall, 0.0), max(y, floor)) for x, y in reversed(outside)]
    return Lathe([(0.0, outside[0][1]), *outside, *inside, (0.0, floor)])
