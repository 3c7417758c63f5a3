"""Gaussians and views of objects."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.ops import intrinsics, look_at, render
from clipgs_plugin.structures import GaussianCloud, surface_discs
from clipgs_plugin.toy_world.appearances import TONES, WEARS
from clipgs_plugin.toy_world.captions import captions
from clipgs_plugin.toy_world.categories import Vary
from clipgs_plugin.toy_world.patterns import MATERIALS, paint, shade
from clipgs_plugin.toy_world.solids import Part, Surface, even_draws
from clipgs_plugin.toy_world.specs import CATEGORIES, ObjectSpec

CLEARANCE = 2e-3  # a point is visible if a step of this length along its normal leaves all parts
TILE = 0.36       # size of a pattern, in radii of the object
THICKNESS = 0.08  # of a disc, in its standard deviations


@dataclass(frozen=True, eq=False)
class ToyObject:
    """Gaussians of an object in the unit sphere, y up, with its category, captions and attributes."""

    gaussians: GaussianCloud
    category: str
    captions: list[str]
    attributes: dict[str, str]


@dataclass(frozen=True, eq=False)
class Skin:
    """Evenly spread points of an object's visible surface, in the unit sphere."""

    points: ndarray   # (n, 3)
    normals: ndarray  # (n, 3) unit, outward
    rgb: ndarray      # (n, 3) without light
    centre: ndarray   # (3,) of the unit sphere, in the units of the parts
    radius: float     # of the unit sphere, in the units of the parts


def build_parts(spec: ObjectSpec) -> list[Part]:
    """Return the parts of an object, in the units of its category."""
    return CATEGORIES[spec.category].build(Vary(np.random.default_rng([*spec.seed, 0])))


def _hidden(points: ndarray, normals: ndarray, parts: list[Part]) -> ndarray:
    """Return the mask of points (n,) whose step along the normal ends inside a part."""
    stepped = points + CLEARANCE * normals
    hidden = np.zeros(len(points), dtype=bool)
    for part in parts:
        near = np.flatnonzero(~hidden & (((stepped - part.position) ** 2).sum(1) <= part.solid.reach ** 2))
        hidden[near] = part.contains(stepped[near])
    return hidden


def _sample_visible(parts: list[Part], count: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, list[Surface]]:
    """Sample the visible surface: points and normals (count, 3), and each part's share in its own frame."""
    weights = np.array([part.solid.area * part.density for part in parts])
    shifts = rng.random((len(parts), 3))
    total = 1.5 * count
    while True:
        surfaces = [part.solid.sample(even_draws(math.ceil(total * share), shift))
                    for part, share, shift in zip(parts, weights / weights.sum(), shifts)]
        points = np.concatenate([s.points @ part.rotation.T + part.position for s, part in zip(surfaces, parts)])
        normals = np.concatenate([s.normals @ part.rotation.T for s, part in zip(surfaces, parts)])
        visible = ~_hidden(points, normals, parts)
        found = int(visible.sum())
        if found >= count:
            break
        total *= 1.1 * count / max(found, count // 8)
    # Points below a common rank cover each part in proportion to its density.
    ranks = np.where(visible, np.concatenate([s.rank for s in surfaces]), np.inf)
    chosen = np.zeros(len(ranks), dtype=bool)
    chosen[np.argsort(ranks, kind='stable')[:count]] = True
    pieces = np.split(chosen, np.cumsum([len(s.points) for s in surfaces])[:-1])
    return points[chosen], normals[chosen], [Surface(*(x[c] for x in s)) for s, c in zip(surfaces, pieces)]


def make_skin(spec: ObjectSpec, count: int) -> Skin:
    """Return points, normals and unlit colours of an object's visible surface.

    Args:
        spec: Specification of the object.
        count: Number of points.

    Returns:
        Skin centred on the mean of its points; the farthest point has distance 1.
    """
    parts = build_parts(spec)
    rng = np.random.default_rng([*spec.seed, 1])
    points, normals, surfaces = _sample_visible(parts, count, rng)
    centre = points.mean(0)
    radius = float(np.linalg.norm(points - centre, axis=1).max()) or 1.0  # 0 for a single point
    low, high = points[:, 1].min(), points[:, 1].max()
    heights = np.split((points[:, 1] - low) / max(high - low, 1e-9), np.cumsum([len(s.points) for s in surfaces])[:-1])
    rgb = []
    for part, surface, height in zip(parts, surfaces, heights):
        if callable(part.colour):
            rgb.append(part.colour(surface))
        elif part.colour == 'main':
            rgb.append(paint(*spec.look, surface.uv, part.solid.around, TILE * radius, height))
        else:
            rgb.append(np.broadcast_to(MATERIALS[part.colour], surface.points.shape))
    rgb, points = np.concatenate(rgb), (points - centre) / radius
    if CATEGORIES[spec.category].group is not None:
        rgb = WEARS[spec.look[1]](TONES[spec.look[0]](rgb), points, normals, np.random.default_rng([*spec.seed, 2]))
    return Skin(points, normals, rgb, centre, radius)


def skin_discs(skin: Skin, rng: np.random.Generator) -> GaussianCloud:
    """Cover a skin with lit thin discs of random opacity, randomly turned about their normals."""
    opacity = rng.uniform(0.90, 0.99, len(skin.points))
    twist = rng.uniform(0, 2 * math.pi, len(skin.points))
    return surface_discs(skin.points, skin.normals, shade(skin.rgb, skin.normals), opacity=opacity,
                         thickness=THICKNESS, twist=twist, alone=0.1)


def make_object(spec: ObjectSpec, num_gaussians: int = 1024) -> ToyObject:
    """Make the Gaussians and captions of an object; equal arguments return equal bytes.

    Args:
        spec: Specification of the object.
        num_gaussians: Number of Gaussians, at least 1.

    Returns:
        Object with centred Gaussians of SH degree 0 in the unit sphere, y up. A soft light from above is baked into
        the colours, as in a scan.

    Raises:
        ValueError: ``num_gaussians`` is below 1.
    """
    if num_gaussians < 1:
        raise ValueError(f'num_gaussians={num_gaussians}: an object needs at least 1 Gaussian')
    cloud = skin_discs(make_skin(spec, num_gaussians), np.random.default_rng([*spec.seed, 3]))
    sentences = captions(spec.category, spec.look, np.random.default_rng([*spec.seed, 4]))
    return ToyObject(cloud, spec.category, sentences, spec.attributes)


# Views

VIEW_FOV = 37.0                  # degrees; an object at VIEW_DISTANCE just fits
VIEW_DISTANCE = 3.2              # radii of the object
VIEW_ELEVATIONS = (-10.0, 50.0)  # degrees
VIEW_GAUSSIANS = 6000            # views show a denser object, with sharp edges and patterns
BACKGROUND = (0.93, 0.93, 0.93)


def viewpoints(spec: ObjectSpec, num_views: int = 8) -> ndarray:
    """Return azimuth and elevation of each view, (V, 2) degrees; azimuths are evenly spaced from a random start."""
    turn, rise = np.random.default_rng([*spec.seed, 5]).random(2)
    index = np.arange(num_views)
    low, high = VIEW_ELEVATIONS
    # Steps of the golden ratio give neighbouring views different elevations.
    return np.stack([360 * (index + turn) / num_views, low + (high - low) * ((0.6180339887 * index + rise) % 1)], 1)


def view_cameras(cloud: GaussianCloud, azimuth_elevation: ndarray) -> torch.Tensor:
    """Return cameras that see a whole object; they look at the centre of its bounding box.

    Args:
        cloud: Gaussians of the object, y up.
        azimuth_elevation: Angles of each view, (V, 2) degrees. Azimuth 0 views the front from +z, azimuth 90 views
            from +x.

    Returns:
        World to camera, OpenCV axes, (V, 4, 4).
    """
    target = (cloud.means.amin(0) + cloud.means.amax(0)) / 2
    radius = (cloud.means - target).norm(dim=-1).max()
    azimuth, elevation = np.radians(azimuth_elevation).T
    away = np.stack([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], 1)
    return look_at(target + VIEW_DISTANCE * radius * torch.from_numpy(away).to(cloud.means), target)


def render_views(spec: ObjectSpec, num_views: int = 8, size: int = 64) -> ndarray:
    """Render views of an object on light grey.

    Args:
        spec: Specification of the object.
        num_views: Number of views V.
        size: Width and height in pixels.

    Returns:
        sRGB, (V, size, size, 3) uint8.
    """
    cloud = skin_discs(make_skin(spec, VIEW_GAUSSIANS), np.random.default_rng([*spec.seed, 6]))
    images, _ = render(cloud, view_cameras(cloud, viewpoints(spec, num_views)),
                         intrinsics(VIEW_FOV, size, size).expand(num_views, 3, 3), size, size, BACKGROUND)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
