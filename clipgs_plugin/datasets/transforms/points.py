"""From splats to the points that models of point clouds were trained on."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.datasets.transforms.floaters import DropFloaters
from clipgs_plugin.datasets.transforms.selection import FilterOpacity
from clipgs_plugin.ops.ordering import canonical_order
from clipgs_plugin.ops.sampling import farthest_point_sample
from clipgs_plugin.ops.visible_surface import flatten_patches, visible_points
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.structures.attributes import pack
from clipgs_plugin.structures.discs import surface_discs

PATCH = 16              # points that define the plane at a point
SHARPENING = 0.5        # pixels blend Gaussians, so their colours differ less than those of the surface
OVERSAMPLE = 3          # surface points for each point
MIN_SIZE, MAX_SIZE = 96, 384  # pixels, of the views


@TRANSFORMS.register_module()
class SplatsToPoints(BaseTransform):
    """Points of the surface that a splat shows, as evenly as those sampled from a mesh.

    Centres of Gaussians are a poor sample of a surface: some are large, hidden or inside the object. Here the depth and
    the colour of the splat are rendered from all sides. Their pixels become points, noise across the surface is
    removed, and farthest point sampling thins the points. The result is deterministic and does not depend on the order
    of the file. It is a cloud of thin discs of SH degree 0, the third axis of each is the normal.

    Nearly transparent Gaussians and floaters are dropped first, as by :class:`FilterOpacity` and
    :class:`DropFloaters`. An object of which too few pixels are seen is completed with its centres.

    Args:
        num_points: Number of points. An object with fewer points and Gaussians together has all of these.
        num_views: Number of views, spread evenly over the sphere.
    """

    def __init__(self, num_points: int, num_views: int = 8) -> None:
        for name, value in dict(num_points=num_points, num_views=num_views).items():
            if value < 1:
                raise ValueError(f'{name}={value}: expected at least 1')
        self.num_points = num_points
        self.num_views = num_views
        self._clean = FilterOpacity(), DropFloaters()

    def transform(self, results: dict) -> dict:
        for clean in self._clean:
            results = clean(results)
        cloud = results['gaussians'].to(torch.float32)
        cloud = cloud[canonical_order(pack(cloud)[None])[0]]
        center, radius = _frame(cloud)
        points, normals, colors = self._surface(cloud.translate_scale(-center, 1 / radius))
        if len(points) > self.num_points:
            picked = farthest_point_sample(points[None], self.num_points, start='farthest')[0]
            points, normals, colors = points[picked], normals[picked], colors[picked]
        discs = surface_discs(points.numpy(), normals.numpy(), colors.numpy())
        results['gaussians'] = discs.translate_scale(center / radius, radius)
        return results

    def _surface(self, cloud: GaussianCloud) -> tuple[Tensor, Tensor, Tensor]:
        """Return surface points, their normals and colours of a cloud in the unit sphere, (P, 3) each."""
        size = (OVERSAMPLE * self.num_points / (self.num_views * _coverage(cloud.means))) ** 0.5
        points, colors = visible_points(cloud, self.num_views, int(min(max(size, MIN_SIZE), MAX_SIZE)))
        if len(points) < self.num_points:
            points, colors = torch.cat([points, cloud.means]), torch.cat([colors, cloud.rgb])
        points, normals, nearest = flatten_patches(points, PATCH)
        sharper = colors + SHARPENING * (colors - colors[nearest].mean(1))
        return points, normals, sharper.clamp(0, 1)


def _frame(cloud: GaussianCloud) -> tuple[Tensor, float]:
    """Return the centre, (3,), and the radius of a sphere around the means and one standard deviation of each."""
    center = (cloud.means.amin(0) + cloud.means.amax(0)) / 2
    reach = (cloud.means - center).norm(dim=1) + cloud.log_scales.amax(1).exp()
    return center, float(reach.max())


def _coverage(means: Tensor, cells: int = 32) -> float:
    """Estimate the share of an image that an object in the unit sphere covers, from its means (N, 3) along the axes."""
    grid = ((means + 1) * (cells / 2)).long().clamp(0, cells - 1)
    planes = torch.zeros(3, cells ** 2, dtype=torch.bool)
    for plane, (across, down) in zip(planes, ((0, 1), (1, 2), (2, 0))):
        plane[grid[:, across] * cells + grid[:, down]] = True
    return float(planes.double().mean())
