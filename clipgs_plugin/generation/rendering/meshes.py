"""Images of meshes: checks and preparation for every renderer, and the choice of the renderer."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Mesh, MeshPart
from clipgs_plugin.generation.rendering import egl, raycast
from clipgs_plugin.generation.rendering.lights import LIGHTS, Scene

RENDERERS = ('egl', 'raycast')


def choose_renderer(name: str = 'auto') -> str:
    """Return the name of a renderer that is available on this machine.

    Args:
        name: ``'egl'`` (OpenGL through moderngl), ``'raycast'`` (Embree), or ``'auto'`` for the first available one.

    Returns:
        ``'egl'`` or ``'raycast'``.

    Raises:
        ValueError: The name is unknown.
        ImportError: The package of the renderer is not installed; for ``'auto'``, both are missing.
        NoRenderer: ``'egl'`` cannot create an OpenGL context; the message says why and what to install.
    """
    if name not in ('auto', *RENDERERS):
        raise ValueError(f'renderer={name!r}: expected one of {("auto", *RENDERERS)}')
    if name != 'raycast':
        try:
            egl.require()
            return 'egl'
        except (ImportError, egl.NoRenderer):
            if name == 'egl':
                raise
    raycast.require()
    return 'raycast'


def render_mesh(
    mesh: Mesh,
    viewmats: ndarray,    # (V, 4, 4) world to camera, OpenCV axes
    intrinsics: ndarray,  # (3, 3) or (V, 3, 3) pixels
    width: int,
    height: int,
    samples: int = 3,
    light: str = 'none',
    renderer: str = 'raycast',
) -> ndarray:
    """Render a mesh.

    Every pixel is the mean of ``samples`` x ``samples`` samples on a regular grid: alpha is the share of the samples
    that meet the mesh, and the colour is their mean. Both sides of a surface are visible; nothing reflects or casts a
    shadow. Textures are bilinear. Textures with more than two texels a sample are reduced first.

    The renderers agree to the tolerance of :mod:`~clipgs_plugin.generation.rendering.egl`, not to the byte. Each
    returns the same bytes again on the same machine. A mesh with any transparency is always rendered by ray casting,
    which composites its layers.

    Args:
        mesh: At least one triangle.
        viewmats: Camera poses.
        intrinsics: Intrinsics of all cameras or of each; the first pixel's centre is at (0.5, 0.5).
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        samples: Samples along a side of a pixel.
        light: ``'none'`` for the colours of the mesh, ``'soft'`` for a light from above the camera.
        renderer: Name of a renderer, see :func:`choose_renderer`.

    Returns:
        sRGB in [0, 1], not premultiplied, and alpha, (V, height, width, 4) float32; zero outside of the mesh.

    Raises:
        ValueError: The light or the renderer is unknown, a shape is wrong, or the mesh has no triangles.
        ImportError: The renderer's package is not installed, or the mesh is transparent and embreex is not installed.
        NoRenderer: ``renderer='egl'`` cannot create an OpenGL context.
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
        raise ValueError(f'light={light!r}: expected one of {tuple(LIGHTS)}')
    if not sum(len(part.triangles) for part in mesh.parts):
        raise ValueError('a mesh without triangles cannot be rendered')
    renderer = choose_renderer(renderer)
    images = np.zeros((len(viewmats), height, width, 4), np.float32)
    if len(viewmats):
        mesh = _with_reduced_textures(mesh, viewmats, intrinsics, samples)
        draw = egl.draw if renderer == 'egl' and _is_opaque(mesh) else raycast.draw
        draw(images, Scene(mesh, viewmats, intrinsics, LIGHTS[light]), samples)
    return images


def _is_opaque(mesh: Mesh) -> bool:
    """Check that no texel, corner or base colour is transparent, whether visible or not."""
    return all(part.base_color[3] >= 1 and (part.colors is None or (part.colors[..., 3] >= 1).all())
               and (part.texture is None or (part.texture[..., 3] == 255).all()) for part in mesh.parts)


def _with_reduced_textures(mesh: Mesh, viewmats: ndarray, intrinsics: ndarray, samples: int) -> Mesh:
    """Reduce textures to at most two texels a sample, at the mean density of the mesh and the median camera."""
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts])
    middle = (corners.min(0) + corners.max(0)) / 2.0
    distance = np.median(np.linalg.norm(viewmats[:, :3, :3] @ middle + viewmats[:, :3, 3], axis=1))
    rate = samples * float(np.median(intrinsics[:, 0, 0])) / max(float(distance), 1e-12)
    return Mesh(tuple(part if part.texture is None else part._replace(texture=_shrink(part, rate))
                      for part in mesh.parts))


def _shrink(part: MeshPart, rate: float) -> ndarray:
    """Halve the texture of a part until it has at most two texels a sample, at ``rate`` samples a unit of length."""
    edges = part.triangles[:, 1:] - part.triangles[:, :1]
    uv_edges = (part.uv[:, 1:] - part.uv[:, :1]) * part.texture.shape[1::-1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    texels = np.abs(uv_edges[:, 0, 0] * uv_edges[:, 1, 1] - uv_edges[:, 0, 1] * uv_edges[:, 1, 0])
    if not area.sum() > 0:
        return part.texture
    density = np.sqrt(float(texels.sum(dtype=np.float64)) / float(area.sum(dtype=np.float64))) / rate  # texels a sample
    factor = 1
    while density / factor > 2 and min(part.texture.shape[:2]) >= 4 * factor:
        factor *= 2
    if factor == 1:
        return part.texture
    from PIL import Image
    return np.asarray(Image.fromarray(part.texture, 'RGBA').reduce(factor))
