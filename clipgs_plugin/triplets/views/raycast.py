"""Meshes rendered by casting rays with Embree: headless, without a GPU, pip-installed parts only."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.triplets.objects import Mesh, MeshPart
from clipgs_plugin.triplets.surfaces import colors_at

LIGHTS = ('none', 'soft')
# Of the soft light: what comes from everywhere, and where the rest comes from in camera axes (x right, y down,
# z forward).
AMBIENT = 0.45
TO_LIGHT = (0.0, -0.6, -0.8)
# Transparent surfaces one behind another that are still looked through.
_MAX_LAYERS = 12


def render_mesh(
    mesh: Mesh,
    viewmats: ndarray,    # (V, 4, 4) world to camera, OpenCV axes
    intrinsics: ndarray,  # (3, 3) or (V, 3, 3) pixels
    width: int,
    height: int,
    samples: int = 3,
    light: str = 'none',
) -> ndarray:
    """Pictures of a mesh.

    Every pixel is the mean of ``samples`` x ``samples`` rays on a regular grid within it: alpha is the share of the
    pixel that the mesh covers, and the colour that of the covered rays. Both sides of a surface are seen; nothing
    reflects or casts a shadow. Textures are bilinear, and where they have more than two texels a ray they are first
    reduced to less.

    Args:
        mesh: At least one triangle.
        viewmats: Cameras, any that ``numpy.asarray`` takes.
        intrinsics: Of all cameras or of each; the first pixel's centre is at (0.5, 0.5).
        width: Pixels.
        height: Pixels.
        samples: Rays along a side of a pixel.
        light: ``'none'`` gives the bare colours, ``'soft'`` a plain light from above the camera.

    Returns:
        sRGB in [0, 1], not premultiplied, and alpha, (V, height, width, 4) float32; zero where nothing is.

    Raises:
        ValueError: Unknown light, shapes that do not fit, or no triangles.
        ImportError: embreex is not installed.
    """
    viewmats = np.asarray(viewmats, np.float64)
    if viewmats.ndim != 3 or viewmats.shape[1:] != (4, 4):
        raise ValueError(f'viewmats have shape {viewmats.shape}, expected (V, 4, 4)')
    intrinsics = np.asarray(intrinsics, np.float64)
    if intrinsics.shape not in ((3, 3), (len(viewmats), 3, 3)):
        raise ValueError(f'intrinsics have shape {intrinsics.shape}, expected (3, 3) or {(len(viewmats), 3, 3)}')
    intrinsics = np.broadcast_to(intrinsics, (len(viewmats), 3, 3))
    if min(width, height, samples) < 1:
        raise ValueError(f'width={width}, height={height}, samples={samples}: expected at least 1 each')
    if light not in LIGHTS:
        raise ValueError(f'light={light!r}: expected one of {LIGHTS}')
    if not sum(len(part.triangles) for part in mesh.parts):
        raise ValueError('a mesh without triangles cannot be rendered')
    images = np.zeros((len(viewmats), height, width, 4), np.float32)
    if len(viewmats):
        caster = _Caster(_reduced(mesh, viewmats, intrinsics, samples), light)
        for image, viewmat, intrinsic in zip(images, viewmats, intrinsics):
            caster.render(image, viewmat, intrinsic, samples)
    return images


class _Caster:
    """A mesh in an Embree scene."""

    def __init__(self, mesh: Mesh, light: str) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise ImportError('rendering meshes needs embreex; pip install "clipgs_plugin[triplets]"') from error
        self.mesh, self.light = mesh, light
        triangles = np.concatenate([part.triangles for part in mesh.parts]).astype(np.float32)
        self.corners = triangles.reshape(-1, 3).astype(np.float64)
        self.normals = np.concatenate([part.normals for part in mesh.parts]) if light == 'soft' else None
        self.step = 1e-5 * float(np.ptp(self.corners, axis=0).max())  # past a transparent surface
        self.scene = EmbreeScene(robust=True)  # no ray slips between two triangles
        TriangleMesh(self.scene, triangles)

    def render(self, image: ndarray, viewmat: ndarray, intrinsic: ndarray, samples: int) -> None:
        """Fill one picture, (H, W, 4)."""
        rows, columns = self._window(image.shape[:2], viewmat, intrinsic)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
        inside = (np.arange(samples) + 0.5) / samples
        x = (np.arange(columns.start, columns.stop)[:, None] + inside).reshape(-1)
        y = (np.arange(rows.start, rows.stop)[:, None] + inside).reshape(-1)
        # A pixel (x, y, 1) lies in the direction R^T K^-1 (x, y, 1).
        to_world = rotation.T @ np.linalg.inv(intrinsic)
        across, down = x[:, None] * to_world[:, 0], y[:, None] * to_world[:, 1] + to_world[:, 2]
        directions = (down.astype(np.float32)[:, None] + across.astype(np.float32)).reshape(-1, 3)
        origin = (-rotation.T @ translation).astype(np.float32)
        found = self._cast(np.broadcast_to(origin, directions.shape), directions, rotation.T @ np.array(TO_LIGHT))
        rays = found.reshape(len(y) // samples, samples, len(x) // samples, samples, 4)
        mean = sum(rays[:, i, :, j] for i in range(samples) for j in range(samples)) / samples ** 2
        np.divide(mean[..., :3], mean[..., 3:], out=mean[..., :3], where=mean[..., 3:] > 0)
        image[rows, columns] = np.clip(mean, 0.0, 1.0)

    def _window(self, shape: tuple[int, int], viewmat: ndarray, intrinsic: ndarray) -> tuple[slice, slice]:
        """Rows and columns outside of which no ray meets the mesh."""
        height, width = shape
        seen = self.corners @ (intrinsic @ viewmat[:3, :3]).T + intrinsic @ viewmat[:3, 3]
        if seen[:, 2].min() <= 0:  # some of it lies beside or behind the camera
            return slice(0, height), slice(0, width)
        places = seen[:, :2] / seen[:, 2:]
        low = np.clip(np.floor(places.min(0)) - 1, 0, (width, height)).astype(int)
        high = np.clip(np.ceil(places.max(0)) + 1, 0, (width, height)).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def _cast(self, origins: ndarray, directions: ndarray, to_light: ndarray) -> ndarray:
        """Premultiplied colour and alpha of rays, (n, 4) float32, front to back through what is transparent."""
        found = np.zeros((len(directions), 4), np.float32)
        rays = np.arange(len(directions))
        for depth in range(_MAX_LAYERS):
            hit = self.scene.run(np.ascontiguousarray(origins), directions, query='INTERSECT', output=True)
            met = np.flatnonzero(hit['primID'] >= 0)
            faces, u, v = hit['primID'][met], hit['u'][met], hit['v'][met]
            weights = np.stack([1 - u - v, u, v], axis=1)
            colors = colors_at(self.mesh, faces, weights)
            if self.light == 'soft':
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
        """Brightness of points, (n,) float32: their corners' normals, turned to the camera's side of the triangle."""
        normals = np.einsum('nk,nkc->nc', weights, self.normals[faces])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        outward = np.einsum('nc,nc->n', normals, across) < 0
        away = np.einsum('nc,nc->n', directions, across) > 0
        lit = normals @ to_light.astype(np.float32)
        return AMBIENT + (1 - AMBIENT) * np.maximum(np.where(outward != away, -lit, lit), 0.0)


def _reduced(mesh: Mesh, viewmats: ndarray, intrinsics: ndarray, samples: int) -> Mesh:
    """The mesh with textures that have two texels a ray at most, in the middle of its surface and of the cameras."""
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts])
    middle = (corners.min(0) + corners.max(0)) / 2.0
    distance = np.median(np.linalg.norm(viewmats[:, :3, :3] @ middle + viewmats[:, :3, 3], axis=1))
    rays = samples * float(np.median(intrinsics[:, 0, 0])) / max(float(distance), 1e-12)  # a unit of length
    return Mesh(tuple(part if part.texture is None else part._replace(texture=_shrink(part, rays))
                      for part in mesh.parts))


def _shrink(part: MeshPart, rays: float) -> ndarray:
    """The texture of a part, halved as often as it has more than two texels a ray."""
    edges = part.triangles[:, 1:] - part.triangles[:, :1]
    uv_edges = (part.uv[:, 1:] - part.uv[:, :1]) * part.texture.shape[1::-1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    texels = np.abs(uv_edges[:, 0, 0] * uv_edges[:, 1, 1] - uv_edges[:, 0, 1] * uv_edges[:, 1, 0])
    if not area.sum() > 0:
        return part.texture
    density = np.sqrt(float(texels.sum(dtype=np.float64)) / float(area.sum(dtype=np.float64))) / rays  # texels a ray
    factor = 1
    while density / factor > 2 and min(part.texture.shape[:2]) >= 4 * factor:
        factor *= 2
    if factor == 1:
        return part.texture
    from PIL import Image
    return np.asarray(Image.fromarray(part.texture, 'RGBA').reduce(factor))
