"""Truth of a fitted scene: the object of each Gaussian by the nearest surface, checked against pictures."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.generation.objects import Mesh, Surface, Views
from clipgs_plugin.generation.rendering import render_mesh
from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.generation.scenes.rays import Blockers
from clipgs_plugin.ops import render
from clipgs_plugin.ops.spherical_harmonics import C0
from clipgs_plugin.structures import GaussianCloud

UNSURE = -1        # label of a Gaussian that belongs to no surface for certain
MAX_DISTANCE = 0.03
MIN_MARGIN = 0.006
COVER = 0.02       # distance before a surface within which another mesh covers it
SAMPLES = 60_000   # points on a unit of area, about 0.004 apart; a sparser surface would lose to a denser one


def label_gaussians(means: ndarray, meshes: Sequence[Mesh], seed: int = 0) -> ndarray:
    """Label Gaussians by the nearest of several surfaces.

    A surface does not count where another mesh covers it, as the floor under a plate. A Gaussian is unsure if no
    surface is within ``MAX_DISTANCE``, or if the nearest two differ by less than ``MIN_MARGIN``, as at the edge of an
    object on the floor.

    Args:
        means: Means of the Gaussians, (N, 3).
        meshes: Surfaces; the index is the label.
        seed: Random seed of the points that stand for the surfaces.

    Returns:
        Indices of meshes, or ``UNSURE``, (N,) int64.
    """
    from scipy.spatial import cKDTree
    distances = np.full((len(meshes), len(means)), np.inf)
    for i, mesh in enumerate(meshes):
        surface = sample_surface(mesh, max(1000, int(SAMPLES * area(mesh))), seed)
        others = [other for other in meshes if other is not mesh]
        points = surface.positions
        if others:
            cover = COVER * surface.normals
            points = points[~Blockers(*others).blocked(points - 0.1 * cover, points + cover)]
        if len(points):
            distances[i] = cKDTree(points).query(means, distance_upper_bound=MAX_DISTANCE + MIN_MARGIN)[0]
    first, *rest = np.sort(distances, axis=0)
    sure = first <= MAX_DISTANCE
    if rest:
        with np.errstate(invalid='ignore'):  # infinity minus infinity, far from all surfaces
            sure &= ~(rest[0] - first < MIN_MARGIN)
    return np.where(sure, distances.argmin(0), UNSURE)


def area(mesh: Mesh) -> float:
    """Compute the area of the triangles of a mesh."""
    triangles = np.concatenate([part.triangles for part in mesh.parts]).astype(np.float64)
    edges = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2)


def render_ids(meshes: Sequence[Mesh], views: Views, renderer: str) -> ndarray:
    """Render the index of the mesh that each pixel's centre shows, (V, H, W) int64; -1 where it shows none."""
    parts = tuple(part._replace(texture=None, uv=None, colors=None, base_color=np.array([i / 255, 0, 0, 1], np.float32))
                  for i, mesh in enumerate(meshes) for part in mesh.parts)
    height, width = views.images.shape[1:3]
    images = render_mesh(Mesh(parts), views.viewmats, views.intrinsics, width, height, samples=1, renderer=renderer)
    return np.where(images[..., 3] > 0.5, np.rint(255 * images[..., 0]).astype(np.int64), -1)


def render_labels(cloud: GaussianCloud, labels: ndarray, count: int, views: Views) -> ndarray:
    """Render the label that has the greatest weight in each pixel, (V, H, W) int64; -1 where no Gaussian shows.

    Gaussians of the label ``UNSURE`` cover others but are never the answer.
    """
    height, width = views.images.shape[1:3]
    cameras = [torch.from_numpy(np.asarray(x, np.float32)) for x in (views.viewmats, views.intrinsics)]
    weights = []
    for start in range(0, count, 3):
        own = torch.from_numpy(labels)[:, None] == torch.arange(start, start + 3)
        flags = cloud.replace(sh=((own.float() - 0.5) / C0)[:, None])
        weights.append(render(flags, *cameras, width, height)[0])
    weight, found = torch.cat(weights, -1)[..., :count].max(-1)
    return torch.where(weight > 0.25, found, -1).numpy()


def agreement(cloud: GaussianCloud, labels: ndarray, meshes: Sequence[Mesh], views: Views, renderer: str) -> float:
    """Compute the share of pixels of objects in which the labels of the Gaussians show the right object.

    The pixels are those in which the meshes or the Gaussians show an object, a mesh other than the first.
    """
    true = render_ids(meshes, views, renderer)
    shown = render_labels(cloud, labels, len(meshes), views)
    counted = (true > 0) | (shown > 0)
    return float((true == shown)[counted].mean())


def joined(surfaces: Sequence[Surface]) -> GaussianCloud:
    """Cover several surfaces with Gaussians, each by itself, in one cloud."""
    clouds = [surface.discs() for surface in surfaces]
    return GaussianCloud(*(torch.cat(values) for values in zip(*([x for _, x in cloud.fields()] for cloud in clouds))))
