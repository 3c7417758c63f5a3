"""Vehicles."""
from __future__ import annotations

import numpy as np

from clipgs_plugin.toy_world.categories.base import Shapes, Vary, corners
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Lathe, Part, Prism, curve, cylinder, frustum

VEHICLES = Shapes()


def wheels(x: float, z: float, radius: float, width: float) -> list[Part]:
    """Four wheels on the ground that roll along x."""
    tyres = [cylinder(radius, width).at(px, radius, pz).turn('x', 90) for px, pz in corners(x, z)]
    hubs = [cylinder(radius * 0.5, width + 0.04).at(px, radius, pz).turn('x', 90) for px, pz in corners(x, z)]
    return [p.paint('rubber').fine(1.5) for p in tyres] + [p.paint('metal').fine(2) for p in hubs]


@VEHICLES.register
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


@VEHICLES.register
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


@VEHICLES.register
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


@VEHICLES.register
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


@VEHICLES.register
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


@VEHICLES.register
def sailboat(v: Vary) -> list[Part]:
    length, beam, mast = v(0.7, 0.95), v(0.5, 0.7), v(1.5, 2.0)
    hull = [(-length, 0), (-length * 0.8, -0.32), (length * 0.7, -0.32), (length * 1.25, 0)]
    sail = [(0.06, 0.15), (length * 1.0, 0.15), (0.06, mast * 0.95)]
    jib = [(-0.06, 0.25), (-0.06, mast * 0.85), (-length * 0.8, 0.25)]
    return [Prism(hull, beam).at(), Prism(sail, 0.04).at(-0.05, 0, 0).paint('cream'),
            Prism(jib, 0.04).at(-0.05, 0, 0).paint('cream'),
            cylinder(0.035, mast).at(-0.05, mast / 2, 0).paint('wood').fine(3)]


@VEHICLES.register
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
