"""Discs on surfaces: orientation, size, and agreement of the two forms of the turn."""
import numpy as np
import pytest
import torch

from clipgs_plugin.structures import SH_C0, surface_discs


def sphere(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and colours of a unit sphere, both poles included."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[:2] = [[0, 0, 1], [0, 0, -1]]
    return points, points, rng.random((n, 3))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('twisted', [False, True])
def test_third_axis_is_the_normal(dtype, twisted):
    points, normals, colors = (x.astype(dtype) for x in sphere())
    twist = np.random.default_rng(1).uniform(0, 2 * np.pi, len(points)) if twisted else None
    cloud = surface_discs(points, normals, colors, twist=twist).validate()
    assert torch.allclose(cloud.rotations[:, :, 2], torch.from_numpy(normals).float(), atol=1e-6)
    assert torch.allclose(cloud.quats.norm(dim=-1), torch.ones(len(cloud)), atol=1e-6)


def test_without_a_twist_the_turn_is_the_shortest():
    points, normals, colors = sphere()
    cloud = surface_discs(points, normals, colors)
    angles = 2 * torch.acos(cloud.quats[:, 0].double().clamp(-1, 1))
    assert torch.allclose(angles, torch.from_numpy(np.arccos(normals[:, 2].clip(-1, 1))), atol=1e-3)
    untwisted = surface_discs(points, normals, colors, twist=np.zeros(len(points)))
    assert torch.allclose(cloud.quats, untwisted.quats, atol=1e-6)


def test_twist_turns_the_disc_about_its_normal():
    points, normals, colors = sphere()
    twist = np.random.default_rng(1).uniform(0, 2 * np.pi, len(points))
    plain, turned = (surface_discs(points, normals, colors, twist=t).rotations for t in (None, twist))
    cos, sin = (torch.from_numpy(f(twist)).float()[:, None] for f in (np.cos, np.sin))
    assert torch.allclose(turned[:, :, 0], cos * plain[:, :, 0] + sin * plain[:, :, 1], atol=1e-5)


def test_sizes_opacities_and_colours_follow_the_arguments():
    points, normals, colors = sphere(60)
    opacity = np.linspace(0.2, 0.9, 60)
    cloud = surface_discs(points, normals, colors, opacity=opacity, thickness=0.25)
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 1:4]
    sigma = torch.from_numpy(0.6 * np.sqrt((distances ** 2).mean(1))).float()
    assert torch.allclose(cloud.scales, sigma[:, None] * torch.tensor([1.0, 1.0, 0.25]), rtol=1e-5)
    assert torch.allclose(cloud.opacities, torch.from_numpy(opacity).float())
    assert torch.allclose(0.5 + SH_C0 * cloud.sh[:, 0], torch.from_numpy(colors).float(), atol=1e-6)
    assert torch.equal(cloud.means, torch.from_numpy(points).float())


def test_single_and_coinciding_points_keep_a_size():
    point, normal, color = np.zeros((1, 3)), np.array([[0.0, 1.0, 0.0]]), np.full((1, 3), 0.5)
    assert surface_discs(point, normal, color, alone=0.2).scales[0, 0].item() == pytest.approx(0.2)
    cloud = surface_discs(*(np.repeat(x, 5, axis=0) for x in (point, normal, color)))
    assert cloud.scales[:, 0].tolist() == pytest.approx([1e-4] * 5)


@pytest.mark.parametrize(('change', 'message'), [
    (dict(positions=np.zeros((0, 3))), r'positions has shape \(0, 3\)'),
    (dict(normals=np.zeros((3, 3))), r'normals has shape \(3, 3\)'),
    (dict(colors=np.zeros((4, 4))), r'colors has shape \(4, 4\)')])
def test_wrong_shapes_are_named(change, message):
    arguments = dict(positions=np.zeros((4, 3)), normals=np.ones((4, 3)), colors=np.ones((4, 3)))
    with pytest.raises(ValueError, match=message):
        surface_discs(**arguments | change)
