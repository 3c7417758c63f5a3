"""Surfaces of objects: rotation to y up, normalisation, and samples with colours and normals."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import Content, Mesh, MeshPart, Points, PosedImages, Surface
from clipgs_plugin.ops import axis_change
from clipgs_plugin.structures import GaussianCloud

_MAX_DRAWS = 16


def turned(content: Content, up: str) -> Content:
    """Rotate an object so that its up axis becomes y; nothing is mirrored.

    Args:
        content: Object in the frame of its file. For posed images the points and the camera poses rotate.
        up: Up axis of the file, ``'x'``, ``'y'``, ``'z'``, ``'-x'``, ``'-y'`` or ``'-z'``.

    Raises:
        ValueError: The axis is unknown.
        TypeError: The content is of an unknown type.
    """
    matrix = axis_change(up, 'y')
    if up == 'y':
        return content
    if isinstance(content, GaussianCloud):
        return content.transform(matrix)
    rotation = matrix.numpy().astype(np.float32)  # exact integers
    if isinstance(content, Mesh):
        return Mesh(tuple(part._replace(triangles=part.triangles @ rotation.T, normals=part.normals @ rotation.T)
                          for part in content.parts))
    if isinstance(content, Points):
        normals = None if content.normals is None else content.normals @ rotation.T
        return content._replace(positions=content.positions @ rotation.T, normals=normals)
    if isinstance(content, PosedImages):
        viewmats = content.viewmats.copy()
        viewmats[:, :3, :3] = viewmats[:, :3, :3] @ rotation.T
        points = None if content.points is None else turned(content.points, up)
        return content._replace(viewmats=viewmats, points=points)
    raise TypeError(f'turned() takes a Mesh, Points, PosedImages or a GaussianCloud, not {type(content).__name__}')


def normalised(content: Mesh | Points) -> tuple[Mesh | Points, ndarray, float]:
    """Move an object into the unit sphere around the centre of its bounding box.

    Args:
        content: Mesh or point cloud of at least one point.

    Returns:
        The object with points ``(x - centre) / radius``; the centre, (3,) float64; and the radius, the distance of the
        farthest point from the centre, or 1 if all points coincide.

    Raises:
        TypeError: The content is neither a mesh nor points; a :class:`GaussianCloud` has its own ``normalise``.
    """
    if isinstance(content, Mesh):
        arrays = [part.triangles.reshape(-1, 3) for part in content.parts]
    elif isinstance(content, Points):
        arrays = [content.positions]
    else:
        raise TypeError(f'normalised() takes a Mesh or Points, not {type(content).__name__}')
    low = np.min([array.min(0) for array in arrays], axis=0).astype(np.float64)
    high = np.max([array.max(0) for array in arrays], axis=0).astype(np.float64)
    centre = (low + high) / 2
    radius = max(float(np.linalg.norm(array - centre, axis=1).max()) for array in arrays)
    # The radius of coinciding points is a rounding error.
    radius = radius if radius > 1e-12 * np.abs(centre).max() else 1.0

    def moved(points: ndarray) -> ndarray:
        return ((points - centre) / radius).astype(np.float32)

    if isinstance(content, Mesh):
        return Mesh(tuple(p._replace(triangles=moved(p.triangles)) for p in content.parts)), centre, radius
    return content._replace(positions=moved(content.positions)), centre, radius


def sample_surface(mesh: Mesh, count: int, seed: int) -> Surface:
    """Sample points evenly over the area of a mesh, with colours and normals.

    One point is drawn in each of ``count`` equal shares of the area, in the order of the triangles, so the number on a
    patch varies less than with independent draws. On transparent surfaces a point is kept with the probability of its
    alpha, and others are drawn.

    Args:
        mesh: At least one triangle of nonzero area.
        count: Number of points N, at least 1.
        seed: Random seed.

    Returns:
        N points in the order of the triangles.

    Raises:
        ValueError: The count is below 1, the mesh has no area, or all of it is transparent.
    """
    if count < 1:
        raise ValueError(f'count={count}: expected at least one point')
    triangles = np.concatenate([part.triangles for part in mesh.parts]).astype(np.float64)
    normals = np.concatenate([part.normals for part in mesh.parts])
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2
    ends = area.cumsum()
    if not (len(ends) and ends[-1] > 0):
        raise ValueError(f'a mesh of {len(triangles)} triangles without area has no surface to sample')
    rng = np.random.default_rng((seed,))
    faces, weights, colors = [], [], []
    for _ in range(_MAX_DRAWS):
        places = (np.arange(count) + rng.random(count)) * (ends[-1] / count)
        face = np.minimum(np.searchsorted(ends, places, side='right'), len(ends) - 1)
        weight = _uniform_weights(rng.random((count, 2)))
        color = colors_at(mesh, face, weight)
        kept = rng.random(count) < color[:, 3]
        faces.append(face[kept])
        weights.append(weight[kept])
        colors.append(color[kept, :3])
        if sum(map(len, faces)) >= count:
            break
    face, weight, color = np.concatenate(faces), np.concatenate(weights), np.concatenate(colors)
    if not len(face):
        raise ValueError(f'none of {_MAX_DRAWS * count} points of the mesh was kept: all of it is transparent')
    if len(faces) > 1:
        chosen = rng.choice(len(face), count, replace=len(face) < count)
        chosen = chosen[np.argsort(face[chosen], kind='stable')]
        face, weight, color = face[chosen], weight[chosen], color[chosen]
    positions = np.einsum('nk,nkc->nc', weight, triangles[face])
    normals = unit_vectors(np.einsum('nk,nkc->nc', weight, normals[face]))
    normals[~normals.any(1)] = 0, 0, 1  # the normals of the corners cancel out
    return Surface(positions.astype(np.float32), normals.astype(np.float32), color)


def _uniform_weights(draws: ndarray) -> ndarray:
    """Map numbers (N, 2) in [0, 1) to barycentric weights (N, 3) of points spread evenly over a triangle.

    Source: Osada et al., "Shape Distributions", 2002, Sec. 4.1.
    """
    root = np.sqrt(draws[:, 0])
    return np.stack([1 - root, root * (1 - draws[:, 1]), root * draws[:, 1]], axis=1)


def colors_at(mesh: Mesh, faces: ndarray, weights: ndarray) -> ndarray:
    """Return the colours of points on a mesh.

    Args:
        mesh: The mesh.
        faces: Index of each point's triangle, counted through the parts, (n,) int.
        weights: Barycentric weights of the triangle's corners, (n, 3).

    Returns:
        sRGB, not premultiplied, and alpha, (n, 4) float32 in [0, 1].
    """
    weights = weights.astype(np.float32, copy=False)
    if len(mesh.parts) == 1:
        return _part_colors(mesh.parts[0], faces, weights)
    colors = np.empty((len(faces), 4), np.float32)
    first = np.cumsum([0, *(len(part.triangles) for part in mesh.parts)])
    owner = np.searchsorted(first, faces, side='right') - 1
    for index in np.unique(owner):
        of_part = np.flatnonzero(owner == index)
        colors[of_part] = _part_colors(mesh.parts[index], faces[of_part] - first[index], weights[of_part])
    return colors


def _part_colors(part: MeshPart, faces: ndarray, weights: ndarray) -> ndarray:
    """Return :func:`colors_at` for one part."""
    if part.texture is None:
        colors = np.ones((len(faces), 4), np.float32)
    else:
        colors = texture_at(part.texture, np.einsum('nk,nkc->nc', weights, part.uv[faces]))
    if part.colors is not None:
        colors *= np.einsum('nk,nkc->nc', weights, part.colors[faces])
    if (part.base_color != 1).any():
        colors *= part.base_color
    return np.clip(colors, 0.0, 1.0, out=colors)


def texture_at(texture: ndarray, uv: ndarray) -> ndarray:
    """Interpolate a texture, bilinear and repeated outside of [0, 1].

    Texels are weighted by alpha, so the colour of transparent texels does not bleed into their neighbours.

    Args:
        texture: sRGB and alpha, (h, w, 4) uint8, first row at v = 1.
        uv: Texture coordinates, (n, 2), v up; the first texel's centre is at (0.5 / w, 1 - 0.5 / h).

    Returns:
        sRGB and alpha in [0, 1], (n, 4) float32.
    """
    height, width = texture.shape[:2]
    uv = uv - np.floor(uv)  # first, because products of large coordinates lose their fraction
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    across, down = (x - left).astype(np.float32), (y - top).astype(np.float32)
    columns = [left.astype(np.int64) % width, (left.astype(np.int64) + 1) % width]
    rows = [(top.astype(np.int64) % height) * width, ((top.astype(np.int64) + 1) % height) * width]
    flat = np.ascontiguousarray(texture).view(np.uint32).reshape(-1)  # one look-up for four channels
    texels = [flat[row + column].view(np.uint8).reshape(-1, 4) for row in rows for column in columns]
    weights = [vertical * horizontal for vertical in (1 - down, down) for horizontal in (1 - across, across)]
    opaque = all((texel[:, 3] == 255).all() for texel in texels)
    total = np.zeros((len(uv), 4), np.float32)
    for texel, weight in zip(texels, weights):
        if opaque:
            total += texel * weight[:, None]
        else:
            alpha = texel[:, 3:] * weight[:, None]
            total += np.concatenate([texel[:, :3] * (alpha / 255), alpha], axis=1)
    total /= 255
    if opaque:
        total[:, 3] = 1
    else:
        np.divide(total[:, :3], total[:, 3:], out=total[:, :3], where=total[:, 3:] > 0)
    return total
