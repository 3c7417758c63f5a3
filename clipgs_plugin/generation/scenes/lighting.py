"""One light for all objects of a scene, baked into the colours of the corners of their triangles.

Renderers have no lights that stand in the world and cast shadows. Baked colours are seen by each of them alike, and the
samples of a surface have them too. The price is the resolution: shadows are interpolated between corners.

Light adds up and multiplies in linear light, not in sRGB: half of the light is a factor of 0.73 in sRGB. A power
function is close enough to its curve.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import Mesh, MeshPart
from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.generation.scenes.rays import Blockers
from clipgs_plugin.generation.scenes.truth import area
from clipgs_plugin.ops.cameras import sphere_directions

FAR = 10.0         # beyond every surface of a scene
LIFT = 2e-3        # of the starts of rays above their surface, which must not shadow itself
SKY_RAYS = 8       # to the hemisphere above a point, for the light from everywhere
LAMP_RAYS = 3      # to the lamp, for soft edges of shadows
BOUNCE = 0.3       # light from what blocks the sky: it reflects 40 % of three quarters of the brightest light
GAMMA = 2.2        # of sRGB
MIDDLE = 0.18      # mean of the linear luminance of a picture that the exposure of cameras aims at
SAMPLES = 4000     # of the surfaces, to expose them
_LUMINANCE = 0.2126, 0.7152, 0.0722


class Lamp(NamedTuple):
    """A lamp and light from everywhere; surfaces are Lambertian.

    A surface gets the light ``ambient * open + BOUNCE * (1 - open) + (1 - ambient) * lit * max(0, normal . towards)``:
    open is the share of the hemisphere above it that nothing blocks, lit the share of the lamp that it sees.
    """

    towards: ndarray         # (3,) unit
    ambient: float           # in [0, 1]
    color: ndarray           # (3,) of the light of the lamp
    width: float = 0.06      # standard deviation of the directions to the lamp


def draw_lamp(rng: np.random.Generator, azimuth: float) -> Lamp:
    """Draw a lamp within 70 degrees of an azimuth (radians, 0 is z, a quarter is x), 40 to 70 degrees high."""
    around, height = azimuth + np.radians(rng.uniform(-70, 70)), np.radians(rng.uniform(40, 70))
    towards = np.array([np.sin(around) * np.cos(height), np.sin(height), np.cos(around) * np.cos(height)])
    warmth = rng.uniform(-0.12, 0.12)
    return Lamp(towards, rng.uniform(0.4, 0.6), np.array([1 + warmth, 1, 1 - warmth]))


def lit(mesh: Mesh, lamp: Lamp, blockers: Blockers, rng: np.random.Generator) -> Mesh:
    """Multiply the colours of a mesh by the shade of the light that reaches its corners.

    Args:
        mesh: Mesh with outward normals.
        lamp: The light.
        blockers: All surfaces of the scene, this mesh among them.
        rng: Random generator of the rays.
    """
    return Mesh(tuple(_lit_part(part, lamp, blockers, rng) for part in mesh.parts))


def _lit_part(part: MeshPart, lamp: Lamp, blockers: Blockers, rng: np.random.Generator) -> MeshPart:
    corners = np.concatenate([part.triangles, part.normals], -1).reshape(-1, 6)
    unique, index = np.unique(corners, axis=0, return_inverse=True)
    light = brightness(unique[:, :3], unique[:, 3:], lamp, blockers, rng)[index.reshape(-1)]
    colors = np.ones((*part.triangles.shape[:2], 4), np.float32) if part.colors is None else part.colors.copy()
    colors[..., :3] *= (light ** (1 / GAMMA)).reshape(*colors.shape[:2], 3).astype(np.float32)
    return part._replace(colors=colors)


def exposed(meshes: Sequence[Mesh]) -> list[Mesh]:
    """Multiply the colours of meshes with colours of corners by one gain, as the automatic exposure of a camera does.

    The mean linear luminance of all surfaces becomes ``MIDDLE``; surfaces may become brighter than white then.
    """
    areas = np.array([area(mesh) for mesh in meshes])
    samples = [sample_surface(mesh, max(16, int(SAMPLES * share)), 0).colors for mesh, share in
               zip(meshes, areas / areas.sum())]
    bright = [float((colors ** GAMMA @ _LUMINANCE).mean()) for colors in samples]
    gain = (MIDDLE / float(np.average(bright, weights=areas))) ** (1 / GAMMA)
    scale = np.array([gain, gain, gain, 1], np.float32)
    return [Mesh(tuple(part._replace(colors=part.colors * scale) for part in mesh.parts)) for mesh in meshes]


def brightness(
    points: ndarray,   # (n, 3)
    normals: ndarray,  # (n, 3) unit
    lamp: Lamp,
    blockers: Blockers,
    rng: np.random.Generator,
) -> ndarray:          # (n, 3)
    """Compute the linear light that reaches points of surfaces; 1 in the open, facing the lamp."""
    starts = points + LIFT * normals
    open_, seen = np.zeros(len(points)), np.zeros(len(points))
    for direction in sphere_directions(SKY_RAYS).numpy():
        # A direction of the sphere plus the normal is distributed like the cosine over the hemisphere.
        turned = unit_vectors(normals + unit_vectors(direction + 0.3 * rng.normal(size=points.shape)))
        open_ += ~blockers.blocked(starts, starts + FAR * turned)
    for _ in range(LAMP_RAYS):
        turned = unit_vectors(lamp.towards + lamp.width * rng.normal(size=points.shape))
        seen += ~blockers.blocked(starts, starts + FAR * turned)
    facing = np.maximum(normals @ lamp.towards, 0) * seen / LAMP_RAYS
    sky = open_ / SKY_RAYS
    return (lamp.ambient * sky + BOUNCE * (1 - sky))[:, None] + (1 - lamp.ambient) * facing[:, None] * lamp.color
