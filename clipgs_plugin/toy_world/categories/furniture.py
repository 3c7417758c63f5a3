"""Furniture."""
from __future__ import annotations

import math

from clipgs_plugin.toy_world.categories.base import Shapes, Vary, corners
from clipgs_plugin.toy_world.solids import Box, Ellipsoid, Lathe, Part, Torus, cylinder, frustum

FURNITURE = Shapes()


def legs(x: float, z: float, height: float, thick: float, round_ones: bool, splay: float = 0.0) -> list[Part]:
    """Return four legs of a seat or top of half extents x and z, feet at y = 0."""
    def leg(length: float):
        return cylinder(thick / 2, length) if round_ones else Box(thick, length, thick)
    return [leg(math.hypot(height, splay * math.hypot(px, pz))).between(
        (px * (1 + splay), 0, pz * (1 + splay)), (px, height, pz)).fine(1.5)
        for px, pz in corners(x - thick / 2, z - thick / 2)]


@FURNITURE.register
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


@FURNITURE.register
def stool(v: Vary) -> list[Part]:
    r, height, t = v(0.30, 0.42), v(0.75, 1.15), v(0.06, 0.09)
    seat = cylinder(r, v(0.08, 0.16)).at(0, height, 0)
    ring = Torus(r * 0.95, t * 0.35).at(0, height * 0.35, 0).turn('x', 90).paint('metal')
    return [seat, ring, *legs(r * 0.9, r * 0.9, height, t, True, splay=v(0.1, 0.3))]


@FURNITURE.register
def table(v: Vary) -> list[Part]:
    w, d, height, t = v(1.5, 2.2), v(0.9, 1.3), v(0.65, 0.9), v(0.07, 0.11)
    if v.pick(True, False, False):
        r = w * 0.45
        return [cylinder(r, t).at(0, height, 0), cylinder(0.07, height).at(0, height / 2, 0),
                frustum(r * 0.55, 0.08, 0.12).at(0, 0.06, 0)]
    return [Box(w, t, d).at(0, height, 0), *legs(w / 2 - 0.05, d / 2 - 0.05, height, t * 1.1, v.pick(True, False))]


@FURNITURE.register
def lamp(v: Vary) -> list[Part]:
    r, height, shade = v(0.38, 0.55), v(1.0, 1.6), v(0.45, 0.65)
    hood = Lathe([(r, 0), (r * v(0.45, 0.7), shade), (r * 0.4, shade), (r - 0.06, 0)]).at(0, height, 0)
    return [hood, cylinder(0.045, height + shade * 0.5).at(0, (height + shade * 0.5) / 2, 0).paint('steel').fine(2),
            frustum(r * 0.7, r * 0.5, 0.09).at(0, 0.045, 0).paint('steel'),
            Ellipsoid(0.15, 0.2).at(0, height + 0.2, 0).paint('lamplight')]


@FURNITURE.register
def bench(v: Vary) -> list[Part]:
    w, d, seat, back = v(1.7, 2.3), v(0.5, 0.65), v(0.5, 0.65), v(0.5, 0.7)
    planks = [Box(w, 0.07, d * 0.27).at(0, seat, d * (i - 1) * 0.34) for i in range(3)]
    planks += [Box(w, back * 0.28, 0.07).at(0, seat + back * (0.4 + 0.4 * i), -d * 0.55) for i in range(2)]
    frame = [part for x in (-w * 0.42, w * 0.42) for part in (
        Box(0.1, seat, 0.1).at(x, seat / 2, d * 0.4), Box(0.1, seat + back, 0.1).at(x, (seat + back) / 2, -d * 0.45),
        Box(0.1, 0.09, d).at(x, seat - 0.07, 0), Box(0.1, 0.07, d * 0.9).at(x, seat + 0.28, 0),
        Box(0.1, 0.28, 0.08).at(x, seat + 0.14, d * 0.4))]
    return planks + [part.paint('steel').fine(1.5) for part in frame]


@FURNITURE.register
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


@FURNITURE.register
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
