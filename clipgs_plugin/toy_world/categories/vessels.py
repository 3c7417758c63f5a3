"""Vessels."""
from __future__ import annotations

from clipgs_plugin.toy_world.categories.base import Shapes, Vary
from clipgs_plugin.toy_world.solids import Capsule, Ellipsoid, Lathe, Part, Torus, curve, cylinder, frustum, vessel

VESSELS = Shapes()


@VESSELS.register
def mug(v: Vary) -> list[Part]:
    r, height, ring = v(0.38, 0.48), v(0.85, 1.1), v(0.24, 0.32)
    body = vessel([(r * v(0.85, 1.0), 0), (r, height * 0.5), (r, height)], 0.06).at()
    return [body, Torus(ring, 0.065, (-100, 100)).at(r - 0.04, height * 0.5, 0).fine(1.5)]


@VESSELS.register
def bottle(v: Vary) -> list[Part]:
    r, height, neck = v(0.26, 0.36), v(1.2, 1.6), v(0.09, 0.12)
    shoulder = height * v(0.5, 0.62)
    body = Lathe([(0, 0), *curve([(r * 0.95, 0), (r, 0.1), (r, shoulder), (neck, shoulder + 0.3), (neck, height)]),
                  (0, height)])
    return [body.at(), cylinder(neck + 0.03, 0.14).at(0, height, 0).paint('cream').fine(2)]


@VESSELS.register
def vase(v: Vary) -> list[Part]:
    height, foot, belly, neck, lip = v(1.0, 1.4), v(0.18, 0.28), v(0.40, 0.58), v(0.13, 0.2), v(0.26, 0.38)
    return [vessel([(foot, 0), (belly, height * v(0.35, 0.55)), (neck, height * 0.82), (lip, height)], 0.05).at()]


@VESSELS.register
def bowl(v: Vary) -> list[Part]:
    r, height, foot = v(0.75, 0.95), v(0.45, 0.65), v(0.28, 0.38)
    return [vessel([(foot, 0), (foot + 0.02, 0.06), (r * 0.72, height * 0.4), (r * 0.95, height * 0.75), (r, height)],
                   0.06).at()]


@VESSELS.register
def teapot(v: Vary) -> list[Part]:
    r, height = v(0.5, 0.62), v(0.42, 0.55)
    spout = [Capsule(0.085, 0.3).between((r * 0.8, -0.06, 0), (r * 1.3, 0.12, 0)),
             frustum(0.085, 0.06, 0.36).between((r * 1.3, 0.12, 0), (r * 1.3 + 0.2, 0.42, 0))]
    return [Ellipsoid(r, height, r).at(), *[part.fine(1.4) for part in spout],
            Torus(height * 0.62, 0.06, (80, 280)).at(-r * 0.92, 0.03, 0).fine(1.5),
            Ellipsoid(r * 0.62, 0.12, r * 0.62).at(0, height * 0.86, 0), Ellipsoid(0.09).at(0, height + 0.1, 0).fine(2),
            frustum(r * 0.65, r * 0.55, 0.12).at(0, -height * 0.92, 0)]
