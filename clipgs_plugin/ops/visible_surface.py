"""Points on the surface that Gaussians show to cameras around them."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.cameras import intrinsics, sphere_cameras
from clipgs_plugin.ops.neighbors import knn
from clipgs_plugin.ops.rendering import render
from clipgs_plugin.ops.spherical_harmonics import C0

DISTANCE = 3.0      # of the cameras to the centre, in radii of the object
FIELD_OF_VIEW = 42  # degrees: a sphere of radius 1.07 fits
FARTHEST = 4.0      # depth that is rendered as colour 1, in radii
MIN_ALPHA = 0.5     # of a pixel that shows the object


def visible_points(
    cloud,  # GaussianCloud in the unit sphere
    num_views: int,
    size: int,
    sharpness: float = 10.0,
    max_spread: float = 0.1,
    min_share: float = 0.4,
) -> tuple[Tensor, Tensor]:
    r"""Return the surface points behind the pixels of views from all sides, (P, 3), and their colours, (P, 3) sRGB.

    The depth of a pixel follows from the depths :math:`z_i` of the Gaussians that it blends by their weights. With mean
    :math:`m` and variance :math:`s^2` it is

    .. math:: -\frac{1}{b} \log E[e^{-b z}] \approx m - \frac{b}{2} s^2

    with sharpness :math:`b`: the mean where the Gaussians agree, and nearer to the camera where the light passes
    through several layers.

    Args:
        cloud: Gaussians within the unit sphere around the origin.
        num_views: Number of cameras, spread evenly over the sphere.
        size: Width and height of the views in pixels.
        sharpness: Inverse length b, at least 0; 0 is the mean depth.
        max_spread: Maximum standard deviation of the depths in a pixel. Pixels beyond it lie on the border of a part
            in front of another, and have no point.
        min_share: Share of the pixels that have a point at least, those of the least deviation, so that a translucent
            object is not lost.
    """
    camera = intrinsics(FIELD_OF_VIEW, size, size)[None].to(cloud.means)
    rays = _rays(camera[0], size)
    starts, directions, depths, variances, colors = [], [], [], [], []
    for viewmat in sphere_cameras(num_views, DISTANCE).to(cloud.means):
        rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
        distances = (cloud.means @ rotation[2] + translation[2]) / FARTHEST
        channels = torch.stack([distances, distances.square(), torch.zeros_like(distances)], dim=1)
        moments, alpha = render(cloud.replace(sh=((channels - 0.5) / C0)[:, None]), viewmat[None], camera, size, size)
        seen, _ = render(cloud, viewmat[None], camera, size, size)
        shown = alpha[0] >= MIN_ALPHA
        mean, square, _ = (FARTHEST * moments[0][shown] / alpha[0][shown, None]).unbind(-1)
        variances.append((FARTHEST * square - mean.square()).clamp_min(0))
        depths.append(mean - sharpness / 2 * variances[-1])
        directions.append(rays[shown] @ rotation)
        starts.append((-translation @ rotation).expand(len(mean), 3))
        colors.append((seen[0][shown] / alpha[0][shown, None]).clamp(0, 1))
    points = torch.cat(starts) + torch.cat(directions) * torch.cat(depths)[:, None]
    variance = torch.cat(variances)
    if not len(points):
        return points, torch.cat(colors)
    middle = variance.kthvalue(max(1, int(min_share * len(variance)))).values
    clear = variance <= max(max_spread ** 2, float(middle))
    return points[clear], torch.cat(colors)[clear]


def flatten_patches(
    points: Tensor,  # (N, 3)
    neighbors: int = 16,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move each point along the normal onto the plane through its nearest points, which removes noise across a surface.

    Returns:
        Moved points, (N, 3); unit normals of no particular sign, (N, 3); and the nearest points, (N, K).
    """
    index = knn(points[None], points[None], min(neighbors, len(points)))[0][0]
    patches = points.double()[index]
    centers = patches.mean(1)
    offsets = patches - centers[:, None]
    normals = torch.linalg.eigh(offsets.transpose(1, 2) @ offsets).eigenvectors[..., 0]
    heights = ((points - centers) * normals).sum(-1, keepdim=True)
    return (points - heights * normals).to(points), normals.to(points), index


def _rays(camera: Tensor, size: int) -> Tensor:
    """Return the points at depth 1 behind the pixels of a camera (3, 3), in its frame, (size, size, 3)."""
    pixels = torch.arange(size).to(camera) + 0.5
    y, x = torch.meshgrid(pixels, pixels, indexing='ij')
    return torch.stack([(x - camera[0, 2]) / camera[0, 0], (y - camera[1, 2]) / camera[1, 1], torch.ones_like(x)], -1)
