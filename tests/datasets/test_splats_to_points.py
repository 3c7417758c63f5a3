import math

import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud
from clipgs_plugin.datasets.transforms import SplatsToPoints, build_pipeline
from clipgs_plugin.structures.discs import surface_discs

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def directions(count):
    """Fibonacci directions, (count, 3)."""
    index = np.arange(count)
    height, angle = 1 - (2 * index + 1) / count, index * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - height ** 2)
    return np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], 1)


def shell(radius, color, count=3000):
    normals = directions(count)
    return surface_discs(radius * normals, normals, np.tile(color, (count, 1)), opacity=0.99)


def joined(*clouds):
    return GaussianCloud(*(torch.cat(values) for values in zip(*([x for _, x in c.fields()] for c in clouds))))


def to_points(cloud, count=1000, **settings):
    return SplatsToPoints(count, **settings)(dict(gaussians=cloud))['gaussians']


def test_all_points_lie_on_the_outer_of_two_shells_in_its_colour():
    points = to_points(joined(shell(0.5, BLUE), shell(1.0, RED)))
    assert len(points) == 1000 and points.sh_degree == 0
    radii = points.means.norm(dim=1)
    assert abs(radii.mean() - 1) < 0.03 and radii.min() > 0.9 and radii.max() < 1.12
    assert (points.rgb[:, 0] - points.rgb[:, 2]).min() > 0.9


def test_points_of_a_sphere_are_even_and_know_the_normal():
    points = to_points(shell(1.0, RED))
    gaps = torch.cdist(points.means, points.means).fill_diagonal_(9).amin(1)
    assert gaps.min() > 0.5 * gaps.max() > 0.02
    outward = torch.nn.functional.normalize(points.means, dim=1)
    assert (points.rotations[:, :, 2] * outward).sum(1).abs().quantile(0.02) > 0.9


def test_order_of_the_file_does_not_matter():
    cloud = joined(shell(1.0, RED, 500), shell(0.9, BLUE, 300))
    shuffled = cloud[torch.from_numpy(np.random.default_rng(0).permutation(len(cloud)))]
    for (name, a), (_, b) in zip(to_points(cloud, 300).fields(), to_points(shuffled, 300).fields()):
        assert torch.equal(a, b), name


def test_size_and_place_of_the_object_are_kept():
    here, moved = to_points(shell(1.0, RED, 500), 300), to_points(
        shell(1.0, RED, 500).translate_scale(torch.tensor([1.0, -2.0, 3.0]), 7.0), 300)
    assert torch.allclose(moved.means.amin(0), (here.means.amin(0) + torch.tensor([1.0, -2.0, 3.0])) * 7, atol=0.05)
    assert torch.allclose(moved.means.amax(0), (here.means.amax(0) + torch.tensor([1.0, -2.0, 3.0])) * 7, atol=0.05)


def test_discs_are_covered_beyond_their_centres():
    """A square of 25 flat discs, at distances of two standard deviations."""
    grid = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3)) * 0.25
    cloud = GaussianCloud(
        means=torch.cat([grid, torch.zeros(25, 1)], 1), quats=torch.tensor([1.0, 0, 0, 0]).repeat(25, 1),
        log_scales=torch.tensor([0.125, 0.125, 0.001]).log().repeat(25, 1), opacity_logits=torch.full((25,), 5.0),
        sh=torch.zeros(25, 1, 3))
    points = to_points(cloud, 900).means
    assert points[:, 2].abs().mean() < 0.05
    cells = ((points[:, :2] + 0.5) / 0.25).floor()
    inside = ((cells >= 0) & (cells < 4)).all(1)
    counts = torch.bincount((cells[inside, 0] * 4 + cells[inside, 1]).long(), minlength=16)
    assert counts.min() > 0.5 * counts.max() > 0


def test_floaters_are_dropped_and_counted():
    far = shell(1.0, BLUE, 12)
    far = far.replace(means=20 * far.means)
    results = SplatsToPoints(500)(dict(gaussians=joined(shell(1.0, RED), far)))
    assert results['floaters'] == 12
    assert results['gaussians'].means.norm(dim=1).max() < 1.12


def test_colour_is_seen_from_outside():
    """The first SH band makes a sphere red to cameras at +x and blue to those at -x."""
    cloud = shell(1.0, (0.5, 0.0, 0.5)).with_sh_degree(1)
    sh = cloud.sh.clone()
    sh[:, 3, 0], sh[:, 3, 2] = 0.8, -0.8
    points = to_points(cloud.replace(sh=sh))
    right, left = points.rgb[points.means[:, 0] > 0.8].mean(0), points.rgb[points.means[:, 0] < -0.8].mean(0)
    assert right[0] - right[2] > 0.2 and left[2] - left[0] > 0.2


def test_sharpening_gives_back_contrast_that_blending_takes(monkeypatch):
    normals = directions(3000)
    waves = 0.5 + 0.3 * np.sin(12 * normals[:, :1])
    cloud = surface_discs(normals, normals, np.repeat(waves, 3, 1), opacity=0.9)
    found = to_points(cloud)
    monkeypatch.setattr('clipgs_plugin.datasets.transforms.points.SHARPENING', 0)
    blended = to_points(cloud)
    assert torch.equal(found.means, blended.means)
    outward = torch.nn.functional.normalize(found.means, dim=1)
    true = 0.5 + 0.3 * torch.sin(12 * outward[:, 0])
    contrasts = [float(points.rgb[:, 0].std() / true.std()) for points in (found, blended)]
    assert contrasts[1] + 0.03 < contrasts[0] < 1


def test_an_object_of_few_pixels_is_completed_with_its_centres():
    cloud = shell(1.0, RED, 40)
    faint = cloud.replace(opacity_logits=torch.full((40,), -2.0))  # no pixel is opaque enough
    assert torch.allclose(to_points(faint, 100).means.norm(dim=1), torch.ones(40), atol=0.5)
    assert len(to_points(cloud[:1], 10)) == 10


@pytest.mark.parametrize('settings', [dict(num_points=0), dict(num_points=5, num_views=0)])
def test_counts_below_one_are_refused(settings):
    with pytest.raises(ValueError, match='=0: expected at least 1'):
        SplatsToPoints(**settings)


def test_the_transform_is_built_from_a_config():
    made = build_pipeline([dict(type='SplatsToPoints', num_points=50)])(dict(gaussians=shell(1.0, RED, 200)))
    assert len(made['gaussians']) == 50
