"""Scenes and their lights, the same for every renderer."""
from __future__ import annotations

from typing import NamedTuple

from numpy import ndarray

from clipgs_plugin.generation.objects import Mesh


class Light(NamedTuple):
    """A light without shadows: a surface has the brightness ``ambient + (1 - ambient) * max(0, normal . towards)``.

    The normal is interpolated between the corners and turned to the camera's side of the triangle.
    """

    ambient: float                           # share of the light that comes from everywhere
    towards: tuple[float, float, float]      # unit direction to the source of the rest, in OpenCV camera axes


class Scene(NamedTuple):
    """A mesh, cameras and a light."""

    mesh: Mesh
    viewmats: ndarray                        # (V, 4, 4) float64
    intrinsics: ndarray                      # (V, 3, 3) float64
    light: Light | None                      # None renders the colours of the mesh


LIGHTS = {'none': None, 'soft': Light(0.45, (0.0, -0.6, -0.8))}
