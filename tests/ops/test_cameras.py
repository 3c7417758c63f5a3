"""Cameras: position, view, and axes of other libraries."""
import math

import pytest
import torch

from clipgs_plugin.ops import flip_camera_axes, intrinsics, look_at, sphere_cameras
from clipgs_plugin.ops.cameras import sphere_directions


def pixel(viewmat, camera, point):
    """Project a point by the pinhole formula."""
    x, y, z = (viewmat @ torch.tensor([*point, 1.0]))[:3].tolist()
    return camera[0, 0].item() * x / z + camera[0, 2].item(), camera[1, 1].item() * y / z + camera[1, 2].item(), z


def test_look_at_centres_the_target_with_up_above():
    viewmat, camera = look_at((2.0, 1.0, 3.0), (0.5, 0.2, -0.3)), intrinsics(50, 80, 60)
    x, y, z = pixel(viewmat, camera, (0.5, 0.2, -0.3))
    assert (x, y) == pytest.approx((40, 30), abs=1e-4)
    assert z == pytest.approx(math.dist((2, 1, 3), (0.5, 0.2, -0.3)), rel=1e-6)
    above = pixel(viewmat, camera, (0.5, 0.4, -0.3))
    assert above[0] == pytest.approx(40, abs=1e-4) and above[1] < 30 - 1  # image rows count downwards


def test_camera_on_positive_z_sees_x_to_the_right():
    x, y, _ = pixel(look_at((0.0, 0.0, 3.0)), intrinsics(40, 64, 64), (0.3, 0.0, 0.0))
    assert x > 33 and y == pytest.approx(32, abs=1e-4)


@pytest.mark.parametrize('up', ['x', 'y', 'z', '-y', (1.0, 2.0, -0.5), (1.0, 1.0, 1.0), (-1.0, 1.0, -1.0)])
def test_matrices_are_rigid_even_along_the_up_axis(up):
    eyes = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -2.0], [-1.5, 0.0, 0.0], [1.0, 2.0, -0.5], [0.3, -0.7, 1.1],
                         [1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    rotation = look_at(eyes, up=up)[:, :3, :3].double()
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(7, dtype=torch.float64), atol=1e-6)


def test_along_an_up_axis_the_next_axis_is_up():
    for up, instead in (('y', [0.0, 0, 1]), ('z', [1.0, 0, 0]), ('-y', [0.0, 0, 1])):
        eye = torch.tensor({'y': [0.0, 3, 0], 'z': [0.0, 0, 3], '-y': [0.0, -3, 0]}[up])
        assert torch.allclose(look_at(eye, up=up)[:3, :3] @ torch.tensor(instead), torch.tensor([0.0, -1, 0]))


def test_camera_at_its_target_raises():
    with pytest.raises(ValueError, match='is at its target'):
        look_at((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    near = look_at((1.0, 1.0, 1.01), (1.0, 1.0, 1.0))
    assert torch.allclose(near @ torch.ones(4), torch.tensor([0, 0, 0.01, 1]), atol=1e-6)


@pytest.mark.parametrize('width, height', [(64, 64), (120, 60), (50, 90)])
def test_field_of_view_spans_the_shorter_side(width, height):
    camera = intrinsics(40, width, height)
    half = math.tan(math.radians(20))
    x, y, _ = pixel(torch.eye(4), camera, (half, half, 1.0))
    short = min(width, height)
    assert x - width / 2 == pytest.approx(short / 2, rel=1e-5) and y - height / 2 == pytest.approx(short / 2, rel=1e-5)


@pytest.mark.parametrize('fov', [0, -10, 180])
def test_impossible_field_of_view_raises(fov):
    with pytest.raises(ValueError, match='between 0 and 180'):
        intrinsics(fov, 64, 64)


def eyes_of(viewmats):
    return -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:]).squeeze(-1)


@pytest.mark.parametrize('up', ['y', 'z', '-x'])
@pytest.mark.parametrize('num_views', [1, 2, 13, 48])
def test_sphere_cameras_are_spread_at_their_distance(num_views, up):
    viewmats = sphere_cameras(num_views, 2.5, up=up)
    eyes = eyes_of(viewmats)
    assert viewmats.shape == (num_views, 4, 4) and viewmats.dtype == torch.float32
    assert torch.allclose(eyes.norm(dim=-1), torch.full((num_views,), 2.5), atol=1e-5)
    assert torch.equal(viewmats, sphere_cameras(num_views, 2.5, up=up))
    if num_views > 10:
        assert eyes.mean(0).norm() < 0.1
        # Nearest neighbours of n points spread evenly over a sphere have distances of about sqrt(4 pi r^2 / n).
        gaps = (torch.cdist(eyes, eyes) + 10 * torch.eye(num_views)).min(1).values
        assert gaps.min() > 0.6 * math.sqrt(4 * math.pi * 2.5 ** 2 / num_views)


def test_directions_are_unit_vectors_in_float64_from_the_top_down():
    directions = sphere_directions(7)
    assert torch.allclose(directions.norm(dim=1), torch.ones(7).double(), atol=1e-15, rtol=0)
    heights = torch.tensor([1 - (2 * i + 1) / 7 for i in range(7)], dtype=torch.float64)
    assert torch.allclose(directions[:, 1], heights, atol=1e-15, rtol=0)
    azimuths = torch.atan2(directions[:, 0], directions[:, 2])
    steps = azimuths.diff() % (2 * math.pi)
    golden_angle = torch.full((6,), math.pi * (3 - 5 ** 0.5), dtype=torch.float64)
    assert torch.allclose(steps, golden_angle, atol=1e-13, rtol=0) and azimuths[0] == 0


def test_rings_have_their_elevations():
    eyes = eyes_of(sphere_cameras(12, 2.0, elevation=(-20.0, 30.0), up='z'))
    found = torch.rad2deg(torch.asin(eyes[:, 2] / 2))
    assert torch.allclose(found, torch.tensor([-20.0, 30.0]).repeat(6), atol=1e-3)
    azimuth = torch.rad2deg(torch.atan2(eyes[:, 1], eyes[:, 0])) % 360
    assert torch.allclose(azimuth, torch.arange(12) * 30.0, atol=1e-3)


def test_up_name_and_vector_agree():
    up_in_camera = sphere_cameras(5, 2.0, elevation=10.0, up='-y')[:, :3, :3] @ torch.tensor([0.0, -1.0, 0.0])
    assert (up_in_camera[:, 1] < -0.9).all()  # OpenCV's y points down
    assert torch.allclose(look_at((1.0, 2.0, 3.0), up='z'), look_at((1.0, 2.0, 3.0), up=(0.0, 0.0, 7.0)))
    with pytest.raises(ValueError, match="up='w'"):
        sphere_cameras(3, up='w')


def test_opengl_axes():
    viewmat = look_at((1.0, 2.0, 3.0))
    point = torch.tensor([0.3, -0.2, 0.4, 1.0])
    x, y, z, w = (viewmat @ point).tolist()
    assert (flip_camera_axes(viewmat) @ point).tolist() == pytest.approx([x, -y, -z, w])
    assert torch.equal(flip_camera_axes(flip_camera_axes(viewmat)), viewmat)
