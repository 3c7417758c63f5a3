"""Renderer of meshes by ray casting with Embree: headless, without a GPU and without system libraries."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.rendering.lights import Scene
from clipgs_plugin.generation.rendering.surfaces import colors_at

_MAX_LAYERS = 12  # transparent surfaces that a ray passes


def require() -> tuple[type, type]:
    """Return the classes of Embree's mesh and scene.

    Raises:
        ImportError: embreex is not installed.
    """
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise ImportError('ray casting needs embreex, of the extra triplets; pip install embreex') from error
    return TriangleMesh, EmbreeScene


def draw(images: ndarray, scene: Scene, samples: int) -> None:
    """Render a scene as :func:`~clipgs_plugin.generation.rendering.render_mesh` into ``images``, which are zero.

    Raises:
        ImportError: embreex is not installed.
    """
    caster = _Caster(scene)
    for image, viewmat, intrinsic in zip(images, scene.viewmats, scene.intrinsics):
        caster.render(image, viewmat, intrinsic, samples)


class _Caster:
    """A mesh in Embree's memory."""

    def __init__(self, scene: Scene) -> None:
        TriangleMesh, EmbreeScene = require()
        self.mesh, self.light = scene.mesh, scene.light
        triangles = np.concatenate([part.triangles for part in self.mesh.parts]).astype(np.float32)
        self.corners = triangles.reshape(-1, 3).astype(np.float64)
        self.normals = None if self.light is None else np.concatenate([part.normals for part in self.mesh.parts])
        self.step = 1e-5 * float(np.ptp(self.corners, axis=0).max())  # past a transparent surface
        self.embree = EmbreeScene(robust=True)  # no ray slips between two triangles
        TriangleMesh(self.embree, triangles)

    def render(self, image: ndarray, viewmat: ndarray, intrinsic: ndarray, samples: int) -> None:
        """Render into one image, (H, W, 4)."""
        rows, columns = self._window(image.shape[:2], viewmat, intrinsic)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
        inside = (np.arange(samples) + 0.5) / samples
        x = (np.arange(columns.start, columns.stop)[:, None] + inside).reshape(-1)
        y = (np.arange(rows.start, rows.stop)[:, None] + inside).reshape(-1)
        # The ray of the pixel (x, y, 1) has the direction R^T K^-1 (x, y, 1).
        to_world = rotation.T @ np.linalg.inv(intrinsic)
        across, down = x[:, None] * to_world[:, 0], y[:, None] * to_world[:, 1] + to_world[:, 2]
        directions = (down.astype(np.float32)[:, None] + across.astype(np.float32)).reshape(-1, 3)
        origin = (-rotation.T @ translation).astype(np.float32)
        to_light = None if self.light is None else rotation.T @ np.array(self.light.towards)
        found = self._cast(np.broadcast_to(origin, directions.shape), directions, to_light)
        rays = found.reshape(len(y) // samples, samples, len(x) // samples, samples, 4)
        mean = sum(rays[:, i, :, j] for i in range(samples) for j in range(samples)) / samples ** 2
        np.divide(mean[..., :3], mean[..., 3:], out=mean[..., :3], where=mean[..., 3:] > 0)
        image[rows, columns] = np.clip(mean, 0.0, 1.0)

    def _window(self, shape: tuple[int, int], viewmat: ndarray, intrinsic: ndarray) -> tuple[slice, slice]:
        """Return the rows and columns that contain the mesh."""
        height, width = shape
        seen = self.corners @ (intrinsic @ viewmat[:3, :3]).T + intrinsic @ viewmat[:3, 3]
        if seen[:, 2].min() <= 0:  # part of the mesh lies beside or behind the camera
            return slice(0, height), slice(0, width)
        places = seen[:, :2] / seen[:, 2:]
        low = np.clip(np.floor(places.min(0)) - 1, 0, (width, height)).astype(int)
        high = np.clip(np.ceil(places.max(0)) + 1, 0, (width, height)).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def _cast(self, origins: ndarray, directions: ndarray, to_light: ndarray | None) -> ndarray:
        """Return the premultiplied colour and alpha of rays, (n, 4) float32, composited front to back."""
        found = np.zeros((len(directions), 4), np.float32)
        rays = np.arange(len(directions))
        for depth in range(_MAX_LAYERS):
            hit = self.embree.run(np.ascontiguousarray(origins), directions, query='INTERSECT', output=True)
            met = np.flatnonzero(hit['primID'] >= 0)
            faces, u, v = hit['primID'][met], hit['u'][met], hit['v'][met]
            weights = np.stack([1 - u - v, u, v], axis=1)
            colors = colors_at(self.mesh, faces, weights)
            if self.light is not None:
                colors[:, :3] *= self._shade(faces, weights, hit['Ng'][met], directions[met], to_light)[:, None]
            rays = rays[met]
            if depth == 0 and (colors[:, 3] == 1).all():  # most meshes
                found[rays] = colors
                break
            alpha = (1 - found[rays, 3:]) * colors[:, 3:]
            found[rays] += np.concatenate([alpha * colors[:, :3], alpha], axis=1)
            through = np.flatnonzero(found[rays, 3] < 0.999)
            if not len(through):
                break
            rays, past = rays[through], met[through]
            directions = directions[past]
            stride = hit['tfar'][past] + self.step / np.linalg.norm(directions, axis=1)
            origins = origins[past] + stride[:, None] * directions
        return found

    def _shade(self, faces: ndarray, weights: ndarray, across: ndarray, directions: ndarray,
               to_light: ndarray) -> ndarray:
        """Return the brightness of points, (n,) float32, see :class:`Light`."""
        normals = unit_vectors(np.einsum('nk,nkc->nc', weights, self.normals[faces]))
        outward = np.einsum('nc,nc->n', normals, across) < 0
        away = np.einsum('nc,nc->n', directions, across) > 0
        lit = normals @ to_light.astype(np.float32)
        return self.light.ambient + (1 - self.light.ambient) * np.maximum(np.where(outward != away, -lit, lit), 0.0)
