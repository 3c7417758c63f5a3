"""Toys and figures."""
from __future__ import annotations

import math

import numpy as np

from clipgs_plugin.toy_world.categories.base import Shapes, Vary
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Part, Prism, cone, cylinder

FIGURES = Shapes()


@FIGURES.register
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


@FIGURES.register
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


@FIGURES.register
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


@FIGURES.register
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


@FIGURES.register
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


@FIGURES.register
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


@FIGURES.register
def dumbbell(v: Vary) -> list[Part]:
    bar, r, width = v(0.45, 0.65), v(0.34, 0.46), v(0.16, 0.24)
    discs = [cylinder(radius, thick).at(s * x, 0, 0).turn('z', 90) for s in (-1, 1) for radius, thick, x in (
        (r, width, bar), (r * 0.78, width * 0.8, bar + width * 0.9))]
    return [*discs, cylinder(0.075, 2 * bar + 4 * width).at().turn('z', 90).paint('metal').fine(1.5)]
