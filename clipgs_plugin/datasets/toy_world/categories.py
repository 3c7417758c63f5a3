"""The categories: one small function each, from a source of variation to the parts of an object.

Convention: y is up, the object faces +z, a unit is roughly its height. Parts painted ``'main'`` take the object's
colour and pattern; other names are materials, and painters colour by themselves. Things that lie on a surface stand
out of it by 0.01 or more, because a surface inside another part is not seen.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clipgs_plugin.datasets.toy_world.solids import (
    Box,
    Capsule,
    Ellipsoid,
    Lathe,
    Part,
    Prism,
    Torus,
    cone,
    curve,
    cylinder,
    frustum,
    regular_polygon,
    vessel,
)

Choice = TypeVar('Choice')


class Vary:
    """Where an object's proportions come from."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pick(self, *options: Choice) -> Choice:
        return options[int(self.rng.integers(len(options)))]

    def count(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))


@dataclass(frozen=True)
class Category:
    """A kind of object; ``group`` names the categories of one shape that only appearance tells apart."""

    name: str
    build: Callable[[Vary], list[Part]]
    group: str | None = None


SHAPES: dict[str, Category] = {}


def category(function: Callable[[Vary], list[Part]]) -> Callable[[Vary], list[Part]]:
    name = function.__name__.replace('_', ' ')
    SHAPES[name] = Category(name, function)
    return function


def corners(x: float, z: float) -> list[tuple[float, float]]:
    return [(sx * x, sz * z) for sx in (-1, 1) for sz in (-1, 1)]


def legs(x: float, z: float, height: float, thick: float, round_ones: bool, splay: float = 0.0) -> list[Part]:
    """Four legs under a seat or top of half extents x and z, feet at y = 0."""
    def leg(length: float):
        return cylinder(thick / 2, length) if round_ones else Box(thick, length, thick)
    return [leg(math.hypot(height, splay * math.hypot(px, pz))).between(
        (px * (1 + splay), 0, pz * (1 + splay)), (px, height, pz)).fine(1.5)
        for px, pz in corners(x - thick / 2, z - thick / 2)]


# Furniture

@category
def chair(v: Vary) -> list[Part]:
    w, d, seat, back, t = v(0.7, 0.95), v(0.7, 0.9), v(0.65, 0.9), v(0.75, 1.15), v(0.07, 0.11)
    top = seat + back
    parts = [Box(w, t, d).at(0, seat, 0), *legs(w / 2, d / 2, seat, t, v.pick(True, False))]
    if v.pick(True, False):
        return [*parts, Box(w, back, t).at(0, seat + back / 2, t / 2 - d / 2)]
    slats = v.count(3, 4)
    posts = [Box(t, back, t).at(x, seat + back / 2, t / 2 - d / 2).fine(1.5) for x in (t / 2 - w / 2, w / 2 - t / 2)]
    return parts + posts + [Box(w, back / slats * 0.55, t * 0.7).at(0, top - back / slats * (i + 0.3), t / 2 - d / 2)
                            for i in range(slats)]


@category
def stool(v: Vary) -> list[Part]:
    r, height, t = v(0.30, 0.42), v(0.75, 1.15), v(0.06, 0.09)
    seat = cylinder(r, v(0.08, 0.16)).at(0, height, 0)
    ring = Torus(r * 0.95, t * 0.35).at(0, height * 0.35, 0).turn('x', 90).paint('metal')
    return [seat, ring, *legs(r * 0.9, r * 0.9, height, t, True, splay=v(0.1, 0.3))]


@category
def table(v: Vary) -> list[Part]:
    w, d, height, t = v(1.5, 2.2), v(0.9, 1.3), v(0.65, 0.9), v(0.07, 0.11)
    if v.pick(True, False, False):
        r = w * 0.45
        return [cylinder(r, t).at(0, height, 0), cylinder(0.07, height).at(0, height / 2, 0),
                frustum(r * 0.55, 0.08, 0.12).at(0, 0.06, 0)]
    return [Box(w, t, d).at(0, height, 0), *legs(w / 2 - 0.05, d / 2 - 0.05, height, t * 1.1, v.pick(True, False))]


@category
def lamp(v: Vary) -> list[Part]:
    r, height, shade = v(0.38, 0.55), v(1.0, 1.6), v(0.45, 0.65)
    hood = Lathe([(r, 0), (r * v(0.45, 0.7), shade), (r * 0.4, shade), (r - 0.06, 0)]).at(0, height, 0)
    return [hood, cylinder(0.045, height + shade * 0.5).at(0, (height + shade * 0.5) / 2, 0).paint('steel').fine(2),
            frustum(r * 0.7, r * 0.5, 0.09).at(0, 0.045, 0).paint('steel'),
            Ellipsoid(0.15, 0.2).at(0, height + 0.2, 0).paint('lamplight')]


# Vehicles

def wheels(x: float, z: float, radius: float, width: float) -> list[Part]:
    """Four wheels on the ground that roll along x."""
    tyres = [cylinder(radius, width).at(px, radius, pz).turn('x', 90) for px, pz in corners(x, z)]
    hubs = [cylinder(radius * 0.5, width + 0.04).at(px, radius, pz).turn('x', 90) for px, pz in corners(x, z)]
    return [p.paint('rubber').fine(1.5) for p in tyres] + [p.paint('metal').fine(2) for p in hubs]


@category
def car(v: Vary) -> list[Part]:
    length, width, body, cabin, r = v(1.9, 2.4), v(0.8, 0.95), v(0.32, 0.42), v(0.34, 0.46), v(0.20, 0.26)
    bottom, half = r * 0.8, length / 2
    back, front = -half * v(0.55, 0.85), half * v(0.25, 0.4)
    top = bottom + body + cabin
    roof = [(back, bottom + body), (front, bottom + body), (front - 0.28, top), (back + 0.15, top)]
    pane = [(back + 0.10, bottom + body + 0.03), (front - 0.10, bottom + body + 0.03), (front - 0.29, top - 0.07),
            (back + 0.19, top - 0.07)]
    return [Box(length, body, width).at(0, bottom + body / 2, 0), Prism(roof, width * 0.86).at(),
            Prism(pane, width * 0.86 + 0.03).at().paint('glass').fine(1.5),
            Box(0.3, cabin * 0.62, width * 0.7).at(front - 0.11, bottom + body + cabin * 0.45, 0).turn('z', 0)
            .paint('glass'),
            *[Ellipsoid(0.05, 0.08, 0.08).at(half, bottom + body * 0.6, z).paint('lamplight').fine(3)
              for z in (-width * 0.32, width * 0.32)],
            *wheels(half * 0.62, width / 2 - 0.04, r, 0.16)]


@category
def airplane(v: Vary) -> list[Part]:
    r, length, span = v(0.16, 0.22), v(1.7, 2.2), v(0.85, 1.2)
    body = Lathe(curve([(0, -length / 2), (r * 0.45, -length * 0.42), (r, -length * 0.1), (r, length * 0.3),
                        (r * 0.7, length * 0.45), (0, length / 2)])).at().turn('z', -90)
    sweep, chord = v(0.1, 0.45), v(0.35, 0.5)
    half = [(chord / 2, 0), (chord * 0.1 - sweep, span), (-chord * 0.4 - sweep, span), (-chord / 2, 0)]
    wing = [Prism(half if s > 0 else [(x, -y) for x, y in reversed(half)], 0.05).at(0.1, 0, 0).turn('x', 90)
            for s in (1, -1)]
    tail = [(0.18, 0), (0.0, 0.36), (-0.16, 0.36), (-0.16, 0)]
    rear = -length / 2 + 0.16
    fin = [Prism(tail, 0.045).at(rear, 0.05, 0).fine(1.5)]
    fin += [Prism(tail if s > 0 else [(x, -y) for x, y in reversed(tail)], 0.04).at(rear, 0, 0).turn('x', 90)
            for s in (1, -1)]
    windows = [Ellipsoid(0.045, 0.05, 0.03).at(x, r * 0.35, s * r * 0.93).paint('rubber').fine(3)
               for x in np.linspace(-0.35, 0.45, 5) for s in (-1, 1)]
    nose = Ellipsoid(0.14, r * 0.5, r * 0.6).at(length * 0.40, r * 0.5, 0).paint('glass').fine(2)
    return [body, *wing, *fin, nose, *windows]


@category
def sailboat(v: Vary) -> list[Part]:
    length, beam, mast = v(0.7, 0.95), v(0.5, 0.7), v(1.5, 2.0)
    hull = [(-length, 0), (-length * 0.8, -0.32), (length * 0.7, -0.32), (length * 1.25, 0)]
    sail = [(0.06, 0.15), (length * 1.0, 0.15), (0.06, mast * 0.95)]
    jib = [(-0.06, 0.25), (-0.06, mast * 0.85), (-length * 0.8, 0.25)]
    return [Prism(hull, beam).at(), Prism(sail, 0.04).at(-0.05, 0, 0).paint('cream'),
            Prism(jib, 0.04).at(-0.05, 0, 0).paint('cream'),
            cylinder(0.035, mast).at(-0.05, mast / 2, 0).paint('wood').fine(3)]


@category
def rocket(v: Vary) -> list[Part]:
    r, height = v(0.24, 0.34), v(1.3, 1.8)
    body = Lathe(curve([(r * 0.6, 0), (r, height * 0.25), (r, height * 0.55), (r * 0.62, height * 0.82), (0, height)]))
    fin = [(r * 0.7, 0.32), (r * 0.5, 0.0), (r * 2.1, -0.28), (r * 2.0, 0.05)]
    tip = Lathe([(0, 0), (r * 0.66, 0), (0, height * 0.22)]).at(0, height * 0.81, 0).paint('red')
    return [body.at(), tip, *[Prism(fin, 0.06).at().orbit('y', a).paint('red').fine(1.3) for a in (0, 90, 180, 270)],
            frustum(r * 0.62, r * 0.4, 0.16).at(0, -0.06, 0).paint('steel'),
            *[part for s in (1, -1) for part in (
                cylinder(r * 0.48, 0.06).at(0, height * 0.58, s * r * 0.97).turn('x', 90).paint('metal').fine(1.5),
                cylinder(r * 0.36, 0.10).at(0, height * 0.58, s * r * 0.97).turn('x', 90).paint('blue').fine(1.5))]]


# Vessels

@category
def mug(v: Vary) -> list[Part]:
    r, height, ring = v(0.38, 0.48), v(0.85, 1.1), v(0.24, 0.32)
    body = vessel([(r * v(0.85, 1.0), 0), (r, height * 0.5), (r, height)], 0.06).at()
    return [body, Torus(ring, 0.065, (-100, 100)).at(r - 0.04, height * 0.5, 0).fine(1.5)]


@category
def bottle(v: Vary) -> list[Part]:
    r, height, neck = v(0.26, 0.36), v(1.2, 1.6), v(0.09, 0.12)
    shoulder = height * v(0.5, 0.62)
    body = Lathe([(0, 0), *curve([(r * 0.95, 0), (r, 0.1), (r, shoulder), (neck, shoulder + 0.3), (neck, height)]),
                  (0, height)])
    return [body.at(), cylinder(neck + 0.03, 0.14).at(0, height, 0).paint('cream').fine(2)]


@category
def vase(v: Vary) -> list[Part]:
    height, foot, belly, neck, lip = v(1.0, 1.4), v(0.18, 0.28), v(0.40, 0.58), v(0.13, 0.2), v(0.26, 0.38)
    return [vessel([(foot, 0), (belly, height * v(0.35, 0.55)), (neck, height * 0.82), (lip, height)], 0.05).at()]


# Buildings

@category
def house(v: Vary) -> list[Part]:
    w, d, wall, roof = v(0.9, 1.3), v(0.8, 1.1), v(0.55, 0.8), v(0.4, 0.65)
    gable = [(-w / 2 - 0.12, wall), (w / 2 + 0.12, wall), (0, wall + roof)]
    windows = [Box(0.22, 0.22, 0.04).at(x, wall * 0.6, s * d / 2).paint('glass').fine(1.5)
               for x in (-w * 0.3, w * 0.3) for s in (1, -1)]
    return [Box(w, wall, d).at(0, wall / 2, 0), Prism(gable, d + 0.16).at().paint('brick'), *windows,
            Box(0.2, wall * 0.62, 0.05).at(0, wall * 0.31, d / 2).paint('darkwood').fine(1.5),
            Box(0.14, 0.4, 0.14).at(w * 0.25, wall + roof * 0.75, -d * 0.15).paint('stone').fine(1.5)]


# Plants

@category
def tree(v: Vary) -> list[Part]:
    trunk, r = v(0.6, 0.9), v(0.45, 0.6)
    crown = [Ellipsoid(r * v(0.9, 1.1), r * v(0.8, 1.1), r).at(0, trunk + r * 0.6, 0)]
    crown += [Ellipsoid(r * v(0.5, 0.7)).at(r * 0.6, trunk + r * v(0.2, 1.0), 0).orbit('y', a + v(0, 60))
              for a in range(0, 360, 90)]
    return [frustum(0.13, 0.09, trunk + 0.2).at(0, trunk / 2, 0).paint('wood').fine(1.3), *crown]


@category
def cactus(v: Vary) -> list[Part]:
    r, height, pot = v(0.16, 0.22), v(0.9, 1.3), v(0.3, 0.38)
    arms = []
    for side, y in ((1, height * v(0.35, 0.5)), (-1, height * v(0.45, 0.62))):
        reach, up = v(0.34, 0.44), v(0.3, 0.5)
        arms += [Capsule(r * 0.6, reach).between((0, y, 0), (side * reach, y, 0)),
                 Capsule(r * 0.6, up).between((side * reach, y, 0), (side * reach, y + up, 0))]
    return [Capsule(r, height).at(0, height / 2, 0), *arms, frustum(pot * 0.7, pot, 0.36).at(0, -0.2, 0).paint('clay'),
            cylinder(pot * 0.85, 0.04).at(0, -0.01, 0).paint('soil')]


# Toys and figures

@category
def snowman(v: Vary) -> list[Part]:
    a, b, c = v(0.48, 0.58), v(0.34, 0.42), v(0.24, 0.29)
    y = a * 0.9 + b * 0.85
    head = y + b * 0.85 + c * 0.75
    brim = head + c * 0.72
    dots = [Ellipsoid(0.045).at(0, y + dy, math.sqrt(b * b - dy * dy)) for dy in (-0.12, 0.03, 0.18)]
    eyes = [Ellipsoid(0.045).at(x, head + 0.07, math.sqrt(c * c - x * x) * 0.95) for x in (-0.1, 0.1)]
    return [Ellipsoid(a, a * 0.92).at(0, 0, 0), Ellipsoid(b, b * 0.95).at(0, y, 0), Ellipsoid(c).at(0, head, 0),
            *[p.paint('black').fine(4) for p in dots + eyes],
            cone(0.06, 0.32).between((0, head, c * 0.8), (0, head - 0.02, c * 0.8 + 0.32)).paint('carrot').fine(3),
            cylinder(c * 1.15, 0.05).at(0, brim, 0).paint('black'),
            cylinder(c * 0.75, 0.3).at(0, brim + 0.15, 0).paint('black'),
            *[Capsule(0.03, 0.55).between((s * b * 0.8, y + 0.1, 0), (s * (b + 0.5), y + v(0.1, 0.5), 0))
              .paint('darkwood').fine(3) for s in (-1, 1)]]


# Tools

@category
def hammer(v: Vary) -> list[Part]:
    length, head, t = v(1.3, 1.7), v(0.6, 0.8), v(0.20, 0.26)
    return [Capsule(0.075, length).at(0, length / 2, 0),
            Box(head * 0.55, t, t).at(-head * 0.05, length, 0).paint('steel'),
            cylinder(t * 0.62, 0.14).at(-head * 0.38, length, 0).turn('z', 90).paint('metal'),
            Prism([(0, -t / 2), (head * 0.55, -t * 0.05), (head * 0.55, t * 0.1), (0, t / 2)], t * 0.9)
            .at(head * 0.2, length, 0).paint('steel')]
