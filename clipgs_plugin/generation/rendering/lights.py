"""How meshes may be lit; the same for every renderer."""
from __future__ import annotations

from typing import NamedTuple


class Light(NamedTuple):
    """A plain light that casts no shadow: a surface is ``ambient + (1 - ambient) * max(0, normal . towards)`` bright.

    The normal is that of the corners, turned to the camera's side of the triangle.
    """

    ambient: float                           # what comes from everywhere
    towards: tuple[float, float, float]      # where the rest comes from, unit, x right, y down, z forward


LIGHTS = {'none': None, 'soft': Light(0.45, (0.0, -0.6, -0.8))}
