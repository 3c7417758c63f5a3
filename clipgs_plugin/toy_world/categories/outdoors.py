"""Buildings and plants."""
from __future__ import annotations

from clipgs_plugin.toy_world.categories.base import Shapes, Vary
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Lathe, Part, Prism, cone, curve, cylinder, frustum

OUTDOORS = Shapes()


@OUTDOORS.register
def house(v: Vary) -> list[Part]:
    w, d, wall, roof = v(0.9, 1.3), v(0.8, 1.1), v(0.55, 0.8), v(0.4, 0.65)
    gable = [(-w / 2 - 0.12, wall), (w / 2 + 0.12, wall), (0, wall + roof)]
    windows = [Box(0.22, 0.22, 0.04).at(x, wall * 0.6, s * d / 2).paint('glass').fine(1.5)
               for x in (-w * 0.3, w * 0.3) for s in (1, -1)]
    return [Box(w, wall, d).at(0, wall / 2, 0), Prism(gable, d + 0.16).at().paint('brick'), *windows,
            Box(0.2, wall * 0.62, 0.05).at(0, wall * 0.31, d / 2).paint('darkwood').fine(1.5),
            Box(0.14, 0.4, 0.14).at(w * 0.25, wall + roof * 0.75, -d * 0.15).paint('stone').fine(1.5)]


@OUTDOORS.register
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


@OUTDOORS.register
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


@OUTDOORS.register
def tree(v: Vary) -> list[Part]:
    trunk, r = v(0.6, 0.9), v(0.45, 0.6)
    crown = [Ellipsoid(r * v(0.9, 1.1), r * v(0.8, 1.1), r).at(0, trunk + r * 0.6, 0)]
    crown += [Ellipsoid(r * v(0.5, 0.7)).at(r * 0.6, trunk + r * v(0.2, 1.0), 0).orbit('y', a + v(0, 60))
              for a in range(0, 360, 90)]
    return [frustum(0.13, 0.09, trunk + 0.2).at(0, trunk / 2, 0).paint('wood').fine(1.3), *crown]


@OUTDOORS.register
def cactus(v: Vary) -> list[Part]:
    r, height, pot = v(0.16, 0.22), v(0.9, 1.3), v(0.3, 0.38)
    arms = []
    for side, y in ((1, height * v(0.35, 0.5)), (-1, height * v(0.45, 0.62))):
        reach, up = v(0.34, 0.44), v(0.3, 0.5)
        arms += [Capsule(r * 0.6, reach).between((0, y, 0), (side * reach, y, 0)),
                 Capsule(r * 0.6, up).between((side * reach, y, 0), (side * reach, y + up, 0))]
    return [Capsule(r, height).at(0, height / 2, 0), *arms, frustum(pot * 0.7, pot, 0.36).at(0, -0.2, 0).paint('clay'),
            cylinder(pot * 0.85, 0.04).at(0, -0.01, 0).paint('soil')]


@OUTDOORS.register
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


@OUTDOORS.register
def mushroom(v: Vary) -> list[Part]:
    r, cap, stem = v(0.6, 0.8), v(0.4, 0.6), v(0.55, 0.8)
    hood = Lathe([(0, 0.05), (r * 0.9, 0), *curve([(r, 0.04), (r * 0.88, cap * 0.5), (r * 0.5, cap * 0.88), (0, cap)])])
    return [hood.at(0, stem, 0), Lathe([(0, 0), *curve([(0.27, 0), (0.2, stem * 0.4), (0.19, stem + 0.1)]),
                                        (0, stem + 0.1)]).at().paint('cream')]
