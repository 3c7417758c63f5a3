import pytest
import torch

from clipgs_plugin.ops.visible_surface import flatten_patches, visible_points
from clipgs_plugin.structures.discs import surface_discs


def wall(depth, opacity):
    """Cover the plane z = depth with discs of one opacity."""
    grid = torch.cartesian_prod(torch.linspace(-0.5, 0.5, 25), torch.linspace(-0.5, 0.5, 25))
    positions = torch.cat([grid, torch.full((625, 1), depth)], dim=1).numpy()
    normals = torch.tensor([[0.0, 0, 1]]).repeat(625, 1).numpy()
    return surface_discs(positions, normals, 0 * positions + 0.25, opacity=opacity, thickness=0.01)


def test_points_of_a_wall_lie_on_it_in_its_colour():
    points, colors = visible_points(wall(0.1, 0.99), num_views=2, size=48)
    inside = points[:, :2].abs().amax(1) < 0.5
    assert inside.sum() > 200
    assert (points[inside, 2] - 0.1).abs().mean() < 0.03
    assert torch.allclose(colors, torch.full_like(colors, 0.25), atol=0.01)


def test_depths_of_large_spread_have_no_point():
    cloud = wall(0.4, 0.5)
    both = type(cloud)(*(torch.cat([a, b]) for (_, a), (_, b) in zip(cloud.fields(), wall(-0.4, 0.9).fields())))
    every, _ = visible_points(both, 4, 32, max_spread=9.0)
    clear, _ = visible_points(both, 4, 32, max_spread=0.01, min_share=0.25)
    assert len(clear) == pytest.approx(0.25 * len(every), abs=2)


def test_nothing_is_seen_of_transparent_gaussians():
    points, colors = visible_points(wall(0.0, 0.01), 2, 16)
    assert points.shape == colors.shape == (0, 3)


def test_flat_patches_lose_noise_across_the_surface_and_keep_places_along_it():
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(500, 3, generator=generator) * torch.tensor([1.0, 1, 0])
    noisy = flat + 0.01 * torch.randn(500, 3, generator=generator) * torch.tensor([0.0, 0, 1])
    points, normals, nearest = flatten_patches(noisy, 24)
    assert points[:, 2].square().mean() < 0.25 * noisy[:, 2].square().mean()
    assert (points - flat)[:, :2].abs().mean() < 0.005
    assert normals[:, 2].abs().mean() > 0.98
    assert torch.equal(nearest[:, 0], torch.arange(500))
