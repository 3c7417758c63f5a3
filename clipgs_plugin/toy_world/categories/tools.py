"""Tools."""
from __future__ import annotations

from clipgs_plugin.toy_world.categories.base import Shapes, Vary
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Lathe, Part, Prism, Torus, cone, curve, cylinder

TOOLS = Shapes()


@TOOLS.register
def hammer(v: Vary) -> list[Part]:
    length, head, t = v(1.3, 1.7), v(0.65, 0.85), v(0.22, 0.28)
    claw = [Prism([(0, -t / 2), (head * 0.3, -t * 0.25), (head * 0.62, -t * 0.75), (head * 0.32, t * 0.35), (0, t / 2)],
                  t * 0.36).at(head * 0.16, length, z).paint('steel') for z in (-t * 0.28, t * 0.28)]
    return [Capsule(0.085, length * 0.95).at(0, length * 0.48, 0), *claw,
            Box(head * 0.5, t, t).at(-head * 0.05, length, 0).paint('steel'),
            cylinder(t * 0.66, 0.16).at(-head * 0.38, length, 0).turn('z', 90).paint('metal')]


@TOOLS.register
def screwdriver(v: Vary) -> list[Part]:
    grip, r, shaft = v(0.6, 0.8), v(0.17, 0.23), v(0.7, 1.0)
    handle = Lathe([(0, -grip), *curve([(r * 0.6, -grip), (r, -grip * 0.85), (r * 0.9, -grip * 0.35), (r * 0.55, -0.08),
                                        (r * 0.7, 0)]), (0, 0)])
    tip = Prism([(-0.055, 0), (0.055, 0), (0.085, 0.12), (0.06, 0.24), (-0.06, 0.24), (-0.085, 0.12)], 0.05)
    parts = [handle.at(), cylinder(0.05, shaft).at(0, shaft / 2, 0).paint('metal').fine(1.5),
             tip.at(0, shaft - 0.04, 0).paint('steel').fine(1.5)]
    lean = v(-35, 35)
    return [part.orbit('z', 180 + lean) for part in parts]


@TOOLS.register
def umbrella(v: Vary) -> list[Part]:
    r, dome, stick = v(0.85, 1.05), v(0.4, 0.55), v(1.2, 1.5)
    hook = v(0.12, 0.16)
    shell = curve([(r, 0), (r * 0.8, dome * 0.5), (r * 0.42, dome * 0.88), (0, dome)])
    roof = Lathe([*shell, *[(x * 0.96, y - 0.04) for x, y in reversed(shell)]])
    return [roof.at(0, stick, 0), cylinder(0.04, stick + dome).at(0, (stick + dome) / 2, 0).paint('steel').fine(2),
            cone(0.045, 0.18).at(0, stick + dome + 0.06, 0).paint('steel').fine(2),
            Torus(hook, 0.055, (180, 360)).at(hook, 0, 0).paint('wood').fine(2),
            Ellipsoid(0.06).at(2 * hook, 0, 0).paint('wood').fine(2)]
