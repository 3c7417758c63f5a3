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

from clipgs_plugin.toy_world.solids import (
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


@category
def bench(v: Vary) -> list[Part]:
    w, d, seat, back = v(1.7, 2.3), v(0.5, 0.65), v(0.5, 0.65), v(0.5, 0.7)
    planks = [Box(w, 0.07, d * 0.27).at(0, seat, d * (i - 1) * 0.34) for i in range(3)]
    planks += [Box(w, back * 0.28, 0.07).at(0, seat + back * (0.4 + 0.4 * i), -d * 0.55) for i in range(2)]
    frame = [part for x in (-w * 0.42, w * 0.42) for part in (
        Box(0.1, seat, 0.1).at(x, seat / 2, d * 0.4), Box(0.1, seat + back, 0.1).at(x, (seat + back) / 2, -d * 0.45),
        Box(0.1, 0.09, d).at(x, seat - 0.07, 0), Box(0.1, 0.07, d * 0.9).at(x, seat + 0.28, 0),
        Box(0.1, 0.28, 0.08).at(x, seat + 0.14, d * 0.4))]
    return planks + [part.paint('steel').fine(1.5) for part in frame]


@category
def sofa(v: Vary) -> list[Part]:
    w, d, seat, back, arm = v(1.7, 2.3), v(0.8, 0.95), v(0.38, 0.48), v(0.45, 0.6), v(0.2, 0.28)
    cushions = v.count(2, 3)
    each = (w - 2 * arm) / cushions
    parts = [Box(w, seat - 0.1, d).at(0, 0.1 + (seat - 0.1) / 2, 0),
             Box(w - 0.04, seat + back, 0.24).at(0, 0.1 + (seat + back) / 2, 0.12 - d / 2)]
    parts += [Box(each - 0.04, 0.16, d - 0.2).at(each * (i + 0.5) - w / 2 + arm, seat + 0.06, 0.12)
              for i in range(cushions)]
    for x in (arm / 2 - w / 2, w / 2 - arm / 2):
        parts += [Box(arm, seat + 0.16, d).at(x, 0.1 + (seat + 0.16) / 2, 0),
                  cylinder(arm * 0.62, d + 0.02).at(x, seat + 0.28, 0).turn('x', 90)]
    return parts + [Box(0.1, 0.12, 0.1).at(x, 0.06, z).paint('darkwood').fine(2)
                    for x, z in corners(w / 2 - 0.1, d / 2 - 0.1)]


@category
def bookshelf(v: Vary) -> list[Part]:
    w, d, height, shelves, t = v(0.8, 1.2), v(0.3, 0.4), v(1.3, 1.9), v.count(3, 4), 0.07
    rise = (height - t) / shelves
    parts = [Box(t, height, d).at(x, height / 2, 0) for x in (t / 2 - w / 2, w / 2 - t / 2)]
    parts += [Box(w, t, d).at(0, t / 2 + i * rise, 0) for i in range(shelves + 1)]
    for i in range(shelves):
        x = t - w / 2
        while x < w / 2 - t - 0.15 - 0.3 * (i % 2):
            width, tall = v(0.08, 0.14), rise * v(0.5, 0.75)
            parts.append(Box(width, tall, d * 0.75).at(x + width / 2, t + i * rise + tall / 2, 0).fine(0.8)
                         .paint(v.pick('red', 'blue', 'leaf', 'gold', 'cream', 'brick')))
            x += width + 0.012
    return parts


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
def truck(v: Vary) -> list[Part]:
    cab, load, width, height, r = v(0.55, 0.7), v(1.3, 1.7), v(0.8, 0.95), v(0.85, 1.1), v(0.2, 0.25)
    half, deck, tall = (cab + load) / 2, r * 1.3, v(0.75, 0.9)
    front = half - cab / 2
    return [Box(load, height, width).at(-half + load / 2 - 0.06, deck + height / 2, 0),
            Box(cab + load, 0.14, width * 0.7).at(0, deck - 0.02, 0).paint('steel'),
            Prism([(half - cab, deck), (half, deck), (half, deck + tall * 0.55), (half - 0.14, deck + tall),
                   (half - cab, deck + tall)], width * 0.92).at().paint('cream'),
            Box(0.05, tall * 0.34, width * 0.75).at(half - 0.06, deck + tall * 0.75, 0).turn('z', 17).paint('glass')
            .fine(1.5),
            Box(cab * 0.5, tall * 0.34, width * 0.96).at(front + 0.02, deck + tall * 0.72, 0).paint('glass').fine(1.5),
            *[Ellipsoid(0.05, 0.08, 0.08).at(half, deck + 0.16, z).paint('lamplight').fine(3)
              for z in (-width * 0.33, width * 0.33)],
            *wheels(half * 0.66, width / 2 - 0.04, r, 0.16)]


@category
def train(v: Vary) -> list[Part]:
    r, boiler, cab, width = v(0.30, 0.38), v(1.0, 1.4), v(0.5, 0.65), v(0.7, 0.85)
    axle, total = 0.24, boiler + cab
    y = axle + 0.12 + r
    rolling = [cylinder(axle, 0.12).at(x, axle, s * width * 0.42).turn('x', 90).paint('rubber').fine(1.5)
               for x in np.linspace(-total * 0.36, total * 0.36, 4) for s in (-1, 1)]
    nose = total / 2 - 0.02
    return [cylinder(r, boiler + 0.1).at(cab / 2, y, 0).turn('z', 90),
            Box(cab, r * 2 + 0.35, width).at(-boiler / 2, axle + 0.12 + r + 0.18, 0),
            Box(cab + 0.16, 0.08, width + 0.14).at(-boiler / 2, axle + r * 2 + 0.5, 0).paint('steel'),
            Box(cab * 0.55, r * 0.7, width + 0.04).at(-boiler / 2, y + r * 0.65, 0).paint('glass').fine(1.5),
            Box(total, 0.16, width * 0.8).at(0, axle + 0.06, 0).paint('red'), *rolling,
            frustum(0.09, 0.15, 0.45).at(nose - 0.28, y + r + 0.16, 0).paint('steel').fine(2),
            Ellipsoid(0.14).at(cab * 0.3, y + r, 0).paint('gold').fine(2),
            cylinder(r * 0.8, 0.05).at(nose + 0.03, y, 0).turn('z', 90).paint('steel'),
            Ellipsoid(0.06, 0.1, 0.1).at(nose + 0.06, y + 0.08, 0).paint('lamplight').fine(3),
            Prism([(0, 0.02), (0.26, 0.02), (0, 0.28)], width * 0.8).at(total / 2, 0, 0).paint('steel')]


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
def helicopter(v: Vary) -> list[Part]:
    length, r, tail, rotor = v(0.55, 0.7), v(0.36, 0.42), v(0.9, 1.2), v(0.95, 1.2)
    mast = r + 0.2
    blades = [Box(rotor * 2, 0.03, 0.13).at(0, mast, 0).turn('y', v(0, 90) + a).paint('steel').fine(1.3)
              for a in (0, 90)]
    skids = [part for z in (-0.3, 0.3) for part in (
        Capsule(0.04, length * 1.9).at(0, -r - 0.2, z).turn('z', 90),
        *[Capsule(0.03, 0.3).between((x, -r * 0.7, z * 0.6), (x, -r - 0.2, z)) for x in (-0.25, 0.25)])]
    return [Ellipsoid(length, r, r).at(), *blades, cylinder(0.05, 0.3).at(0, r + 0.08, 0).paint('steel').fine(2),
            Ellipsoid(length * 0.62, r * 0.76, r * 0.9).at(length * 0.42, 0.07, 0).paint('glass'),
            frustum(0.15, 0.06, tail).between((-length * 0.6, 0.1, 0), (-length * 0.6 - tail, 0.2, 0)),
            Prism([(-0.12, 0), (0.1, 0), (-0.06, 0.36), (-0.2, 0.36)], 0.05).at(-length * 0.6 - tail, 0.16, 0),
            Box(0.05, 0.5, 0.02).at(-length * 0.6 - tail, 0.22, 0.08).turn('z', v(0, 90)).paint('steel').fine(2),
            Box(0.5, 0.05, 0.02).at(-length * 0.6 - tail, 0.22, 0.08).turn('z', v(0, 90)).paint('steel').fine(2),
            *[part.paint('steel').fine(1.5) for part in skids]]


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


@category
def bowl(v: Vary) -> list[Part]:
    r, height, foot = v(0.75, 0.95), v(0.45, 0.65), v(0.28, 0.38)
    return [vessel([(foot, 0), (foot + 0.02, 0.06), (r * 0.72, height * 0.4), (r * 0.95, height * 0.75), (r, height)],
                   0.06).at()]


@category
def teapot(v: Vary) -> list[Part]:
    r, height = v(0.5, 0.62), v(0.42, 0.55)
    spout = [Capsule(0.085, 0.3).between((r * 0.8, -0.06, 0), (r * 1.3, 0.12, 0)),
             frustum(0.085, 0.06, 0.36).between((r * 1.3, 0.12, 0), (r * 1.3 + 0.2, 0.42, 0))]
    return [Ellipsoid(r, height, r).at(), *[part.fine(1.4) for part in spout],
            Torus(height * 0.62, 0.06, (80, 280)).at(-r * 0.92, 0.03, 0).fine(1.5),
            Ellipsoid(r * 0.62, 0.12, r * 0.62).at(0, height * 0.86, 0), Ellipsoid(0.09).at(0, height + 0.1, 0).fine(2),
            frustum(r * 0.65, r * 0.55, 0.12).at(0, -height * 0.92, 0)]


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


@category
def tower(v: Vary) -> list[Part]:
    r, height, teeth = v(0.36, 0.48), v(1.3, 1.8), v.count(7, 9)
    crown = r * 1.22
    windows = [Box(0.12, 0.26, 0.06).at(0, height * y, r * 0.98).orbit('y', a).paint('black').fine(1.5)
               for y, a in ((0.45, 0), (0.72, 90), (0.45, 180), (0.72, 270))]
    merlons = [Box(crown * 0.42, 0.2, 0.12).at(0, height + 0.3, crown - 0.07).orbit('y', 360 * i / teeth).fine(1.3)
               for i in range(teeth)]
    rim = Lathe([(crown - 0.12, 0), (crown, 0), (crown, 0.22), (crown - 0.12, 0.22)]).at(0, height, 0)
    return [frustum(r * 1.08, r, height).at(0, height / 2, 0), cylinder(crown - 0.05, 0.12).at(0, height, 0), rim,
            *merlons, *windows, Box(0.26, 0.42, 0.08).at(0, 0.21, r * 1.07).paint('darkwood').fine(1.5)]


@category
def windmill(v: Vary) -> list[Part]:
    r, height, blade = v(0.38, 0.48), v(1.2, 1.5), v(0.75, 0.95)
    start, hub = v(0, 90), (0, height * 0.93, r * 0.95)
    sails = []
    for i in range(4):
        sail = Box(0.2, blade * 0.75, 0.03).at(0.08, blade * 0.6, 0).paint('cream')
        spar = Box(0.06, blade, 0.05).at(0, blade / 2, 0).paint('darkwood').fine(1.3)
        sails += [part.orbit('z', start + 90 * i).move(*hub) for part in (sail, spar)]
    return [frustum(r, r * 0.62, height).at(0, height / 2, 0), cone(r * 0.75, r * 0.8).at(0, height + r * 0.4, 0)
            .paint('brick'), *sails, cylinder(0.09, 0.5).at(0, height * 0.93, r * 0.75).turn('x', 90).paint('darkwood'),
            Box(0.24, 0.4, 0.08).at(0, 0.2, r * 0.97).paint('darkwood').fine(1.5),
            *[Box(0.16, 0.16, 0.06).at(0, height * 0.5, r * 0.82).orbit('y', a).paint('glass').fine(1.5)
              for a in (90, 180, 270)]]


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


@category
def flower(v: Vary) -> list[Part]:
    stem, petals, r, heart = v(0.9, 1.2), v.count(6, 9), v(0.34, 0.44), v(0.17, 0.22)
    tilt = v(25, 60)
    ring = [Ellipsoid(r * 0.95, 0.05, 2.4 * r / petals * 1.4).at(heart + r * 0.7, 0, 0).turn('z', 8)
            .orbit('y', 360 * i / petals) for i in range(petals)]
    head = [*ring, Ellipsoid(heart, 0.13, heart).at(0, 0.03, 0).paint('yellow').fine(1.5)]
    leaves = [Ellipsoid(0.3, 0.035, 0.12).at(s * 0.28, stem * y, 0).turn('z', s * 30).paint('leaf').fine(1.3)
              for s, y in ((1, 0.45), (-1, 0.3))]
    return [*[part.orbit('x', tilt).move(0, stem, 0) for part in head],
            cylinder(0.045, stem).at(0, stem / 2, 0).paint('leaf').fine(2), *leaves]


@category
def mushroom(v: Vary) -> list[Part]:
    r, cap, stem = v(0.6, 0.8), v(0.4, 0.6), v(0.55, 0.8)
    hood = Lathe([(0, 0.05), (r * 0.9, 0), *curve([(r, 0.04), (r * 0.88, cap * 0.5), (r * 0.5, cap * 0.88), (0, cap)])])
    return [hood.at(0, stem, 0), Lathe([(0, 0), *curve([(0.27, 0), (0.2, stem * 0.4), (0.19, stem + 0.1)]),
                                        (0, stem + 0.1)]).at().paint('cream')]


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


@category
def robot(v: Vary) -> list[Part]:
    w, body, d, head = v(0.6, 0.8), v(0.65, 0.85), v(0.4, 0.5), v(0.36, 0.46)
    leg, lift = v(0.35, 0.5), v(-20, 60)
    top = leg + body
    face = top + 0.1 + head * 0.45
    eyes = [Ellipsoid(0.07, 0.07, 0.05).at(x, face + 0.05, head * 0.5).paint('lamplight').fine(3)
            for x in (-head * 0.25, head * 0.25)]
    arms = []
    for s in (-1, 1):
        shoulder = np.array([s * (w / 2 + 0.08), top - 0.12, 0.0])
        angle = math.radians(lift if s > 0 else v(-20, 60))
        hand = shoulder + 0.55 * np.array([s * 0.3, -math.cos(angle), math.sin(angle)])
        arms += [Capsule(0.075, 0.5).between(shoulder, hand).paint('metal').fine(1.3),
                 Ellipsoid(0.12).at(*hand).fine(1.5), Ellipsoid(0.12).at(*shoulder)]
    return [Box(w, body, d).at(0, leg + body / 2, 0), Box(head * 1.25, head * 0.9, head).at(0, face, 0),
            cylinder(0.1, 0.2).at(0, top + 0.05, 0).paint('steel'), *arms, *eyes,
            Box(head * 0.6, 0.05, 0.03).at(0, face - head * 0.25, head / 2).paint('black').fine(3),
            Box(w * 0.55, body * 0.4, 0.04).at(0, leg + body * 0.6, d / 2).paint('steel').fine(1.3),
            *[Ellipsoid(0.045).at(x, leg + body * 0.6, d / 2 + 0.02).paint(c).fine(3)
              for x, c in ((-0.11, 'red'), (0, 'lamplight'), (0.11, 'leaf'))],
            cylinder(0.025, 0.25).at(0, face + head * 0.5 + 0.1, 0).paint('steel').fine(3),
            Ellipsoid(0.06).at(0, face + head * 0.5 + 0.25, 0).paint('red').fine(3),
            *[cylinder(0.11, leg).at(x, leg / 2, 0).paint('metal') for x in (-w * 0.27, w * 0.27)],
            *[Box(0.24, 0.13, 0.36).at(x, 0.06, 0.05) for x in (-w * 0.27, w * 0.27)]]


@category
def duck(v: Vary) -> list[Part]:
    length, r, head = v(0.65, 0.8), v(0.40, 0.48), v(0.27, 0.33)
    y = r * 0.75 + head * 0.8
    x = length * 0.52
    return [Ellipsoid(length, r, r).at(), Ellipsoid(head).at(x, y, 0),
            cone(0.2, 0.5).between((-length * 0.7, 0.1, 0), (-length * 1.15, 0.42, 0)),
            *[Ellipsoid(length * 0.5, r * 0.5, 0.09).at(-length * 0.1, 0.1, s * r * 0.96).turn('z', -12)
              for s in (-1, 1)],
            Ellipsoid(0.24, 0.065, 0.16).at(x + head * 1.15, y - 0.04, 0).paint('carrot').fine(2),
            *[Ellipsoid(0.055).at(x + head * 0.62, y + head * 0.35, s * head * 0.66).paint('black').fine(4)
              for s in (-1, 1)]]


@category
def teddy_bear(v: Vary) -> list[Part]:
    belly, head, limb = v(0.42, 0.52), v(0.33, 0.40), v(0.14, 0.18)
    y = belly * 0.95 + head * 0.8
    parts = [Ellipsoid(belly * 0.95, belly, belly * 0.85).at(), Ellipsoid(head, head * 0.92, head * 0.9).at(0, y, 0)]
    for s in (-1, 1):
        hand = (s * (belly + 0.28), belly * v(-0.1, 0.9), 0.15)
        parts += [Capsule(limb, 0.32).between((s * belly * 0.7, belly * 0.5, 0), hand),
                  Capsule(limb * 1.15, 0.36).between((s * belly * 0.5, -belly * 0.75, 0.1),
                                                     (s * belly * 0.85, -belly * 0.95, 0.6)),
                  Ellipsoid(0.14, 0.14, 0.08).at(s * head * 0.78, y + head * 0.75, 0).fine(1.5),
                  Ellipsoid(0.05).at(s * head * 0.36, y + head * 0.22, head * 0.83).paint('black').fine(4)]
    return [*parts, Ellipsoid(head * 0.42, head * 0.34, head * 0.36).at(0, y - head * 0.25, head * 0.72).paint('cream'),
            Ellipsoid(0.06, 0.045, 0.05).at(0, y - head * 0.12, head * 1.06).paint('black').fine(4),
            Ellipsoid(belly * 0.6, belly * 0.62, 0.1).at(0, -0.02, belly * 0.8).paint('cream')]


@category
def fish(v: Vary) -> list[Part]:
    length, height, thick, tail = v(0.7, 0.95), v(0.38, 0.52), v(0.2, 0.27), v(0.4, 0.55)
    x = -length * 0.85
    return [Ellipsoid(length, height, thick).at(),
            *[Prism([(0.1, -0.05), (0.1, 0.05), (-tail, s * tail * 0.85 + 0.16), (-tail, s * tail * 0.85 - 0.16)],
                    0.06).at(x, 0, 0) for s in (-1, 1)],
            Prism([(-0.4, 0), (0.3, 0), (-0.1, 0.32), (-0.42, 0.3)], 0.05).at(0, height * 0.82, 0),
            Prism([(-0.25, -0.25), (0.15, 0), (-0.15, 0)], 0.05).at(0, -height * 0.86, 0),
            *[Prism([(0, 0), (-0.3, 0.1), (-0.32, -0.14)], 0.04).at(length * 0.2, -0.08, s * (thick + 0.06))
              .turn('y', s * 25) for s in (-1, 1)],
            *[part for s in (-1, 1) for part in (
                Ellipsoid(0.1, 0.1, 0.05).at(length * 0.62, height * 0.22, s * thick * 0.72).paint('white').fine(3),
                Ellipsoid(0.055, 0.055, 0.05).at(length * 0.64, height * 0.22, s * (thick * 0.72 + 0.03)).paint('black')
                .fine(4))]]


@category
def guitar(v: Vary) -> list[Part]:
    low, high, neck, depth = v(0.46, 0.56), v(0.34, 0.42), v(0.95, 1.2), v(0.16, 0.22)
    waist, shoulder = low * 0.95, low * 0.95 + high * 0.7
    end = shoulder + high * 0.8
    body = [cylinder(r, depth + extra).at(0, y, 0).turn('x', 90)
            for r, y, extra in ((low, 0, 0), (high, shoulder, -0.002), (high * 0.78, waist * 0.62, -0.004))]
    front = depth / 2
    strings = [Box(0.012, neck + end, 0.012).at(x, (neck + end) / 2 - 0.1, front + 0.065).paint('cream').fine(2)
               for x in (-0.035, 0, 0.035)]
    return [*body, Box(0.15, neck + 0.3, 0.09).at(0, end + neck / 2 - 0.2, front).paint('darkwood').fine(1.3),
            Box(0.24, 0.34, 0.08).at(0, end + neck + 0.08, front - 0.02).paint('wood').fine(1.3),
            cylinder(high * 0.45, 0.03).at(0, waist * 0.85, front).turn('x', 90).paint('black').fine(1.5),
            Box(0.34, 0.08, 0.06).at(0, -low * 0.35, front).paint('darkwood').fine(2), *strings,
            *[Ellipsoid(0.05).at(s * 0.15, end + neck + y, front).paint('metal').fine(3)
              for s in (-1, 1) for y in (0.0, 0.12)]]


@category
def dumbbell(v: Vary) -> list[Part]:
    bar, r, width = v(0.45, 0.65), v(0.34, 0.46), v(0.16, 0.24)
    discs = [cylinder(radius, thick).at(s * x, 0, 0).turn('z', 90) for s in (-1, 1) for radius, thick, x in (
        (r, width, bar), (r * 0.78, width * 0.8, bar + width * 0.9))]
    return [*discs, cylinder(0.075, 2 * bar + 4 * width).at().turn('z', 90).paint('metal').fine(1.5)]


# Tools

@category
def hammer(v: Vary) -> list[Part]:
    length, head, t = v(1.3, 1.7), v(0.65, 0.85), v(0.22, 0.28)
    claw = [Prism([(0, -t / 2), (head * 0.3, -t * 0.25), (head * 0.62, -t * 0.75), (head * 0.32, t * 0.35), (0, t / 2)],
                  t * 0.36).at(head * 0.16, length, z).paint('steel') for z in (-t * 0.28, t * 0.28)]
    return [Capsule(0.085, length * 0.95).at(0, length * 0.48, 0), *claw,
            Box(head * 0.5, t, t).at(-head * 0.05, length, 0).paint('steel'),
            cylinder(t * 0.66, 0.16).at(-head * 0.38, length, 0).turn('z', 90).paint('metal')]


@category
def screwdriver(v: Vary) -> list[Part]:
    grip, r, shaft = v(0.6, 0.8), v(0.17, 0.23), v(0.7, 1.0)
    handle = Lathe([(0, -grip), *curve([(r * 0.6, -grip), (r, -grip * 0.85), (r * 0.9, -grip * 0.35), (r * 0.55, -0.08),
                                        (r * 0.7, 0)]), (0, 0)])
    tip = Prism([(-0.055, 0), (0.055, 0), (0.085, 0.12), (0.06, 0.24), (-0.06, 0.24), (-0.085, 0.12)], 0.05)
    parts = [handle.at(), cylinder(0.05, shaft).at(0, shaft / 2, 0).paint('metal').fine(1.5),
             tip.at(0, shaft - 0.04, 0).paint('steel').fine(1.5)]
    lean = v(-35, 35)
    return [part.orbit('z', 180 + lean) for part in parts]


@category
def umbrella(v: Vary) -> list[Part]:
    r, dome, stick = v(0.85, 1.05), v(0.4, 0.55), v(1.2, 1.5)
    hook = v(0.12, 0.16)
    shell = curve([(r, 0), (r * 0.8, dome * 0.5), (r * 0.42, dome * 0.88), (0, dome)])
    roof = Lathe([*shell, *[(x * 0.96, y - 0.04) for x, y in reversed(shell)]])
    return [roof.at(0, stick, 0), cylinder(0.04, stick + dome).at(0, (stick + dome) / 2, 0).paint('steel').fine(2),
            cone(0.045, 0.18).at(0, stick + dome + 0.06, 0).paint('steel').fine(2),
            Torus(hook, 0.055, (180, 360)).at(hook, 0, 0).paint('wood').fine(2),
            Ellipsoid(0.06).at(2 * hook, 0, 0).paint('wood').fine(2)]
