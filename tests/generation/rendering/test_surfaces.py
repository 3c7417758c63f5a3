import itertools

import numpy as np
import pytest
import torch

from clipgs_plugin.generation.objects import Mesh, MeshPart, Points, PosedImages
from clipgs_plugin.generation.rendering.surfaces import colors_at, normalised, sample_surface, texture_at, turned

UPS = {'x': (1, 0, 0), 'y': (0, 1, 0), 'z': (0, 0, 1), '-x': (-1, 0, 0), '-y': (0, -1, 0), '-z': (0, 0, -1)}


def part(triangles, color=(1, 1, 1, 1), **look) -> MeshPart:
    triangles = np.asarray(triangles, np.float32)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals = np.repeat((normals / np.linalg.norm(normals, axis=1, keepdims=True))[:, None], 3, 1)
    return MeshPart(triangles, normals.astype(np.float32), np.asarray(color, np.float32), **look)


def sphere(steps: int = 24) -> MeshPart:
    """A unit sphere of triangles with exact normals at the corners."""
    polar, around = np.linspace(1e-3, np.pi - 1e-3, steps), np.linspace(0, 2 * np.pi, 2 * steps)
    grid = np.stack([np.sin(polar)[:, None] * np.cos(around), np.sin(polar)[:, None] * np.sin(around),
                     np.cos(polar)[:, None] + 0 * around], -1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3, 3), np.stack([a, c, d], 2).reshape(-1, 3, 3)])
    return MeshPart(triangles.astype(np.float32), triangles.astype(np.float32), np.ones(4, np.float32))


def bilinear(texture: np.ndarray, u: float, v: float) -> np.ndarray:
    """One look-up in float64 with weights of alpha in a repeated texture."""
    height, width = texture.shape[:2]
    x, y = u * width - 0.5, (1 - v) * height - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    total, alpha = np.zeros(3), 0.0
    for i, j in itertools.product(range(2), range(2)):
        texel = texture[(row + i) % height, (column + j) % width] / 255.0
        weight = (1 - abs(y - row - i)) * (1 - abs(x - column - j)) * texel[3]
        total += weight * texel[:3]
        alpha += weight
    return np.array([*(total / alpha if alpha > 0 else total), alpha])


# Rotation and normalisation

@pytest.mark.parametrize('up', UPS)
def test_up_becomes_y_and_nothing_is_mirrored(up, random_cloud):
    axes = np.eye(3, dtype=np.float32)
    points = turned(Points(np.array([UPS[up], *axes], np.float32), normals=np.array([UPS[up], *axes], np.float32)), up)
    np.testing.assert_array_equal(points.positions[0], (0, 1, 0))
    np.testing.assert_array_equal(points.normals[0], (0, 1, 0))
    rotation = points.positions[1:].T
    assert np.linalg.det(rotation) == pytest.approx(1) and np.abs(rotation).sum() == 3
    mesh = turned(Mesh((part([axes]),)), up)
    np.testing.assert_array_equal(mesh.parts[0].triangles[0], rotation.T)
    np.testing.assert_allclose(mesh.parts[0].normals[0, 0], rotation @ np.full(3, 3 ** -0.5), atol=1e-6)
    cloud = random_cloud(5)
    after = turned(cloud, up)
    np.testing.assert_allclose(after.means, cloud.means.numpy() @ rotation.T, atol=1e-6)
    np.testing.assert_allclose(after.covariances, rotation @ cloud.covariances.numpy() @ rotation.T, atol=1e-6)


@pytest.mark.parametrize('up', UPS)
def test_posed_images_see_the_rotated_points_at_the_same_pixels(up):
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    viewmats = np.eye(4, dtype=np.float32)[None].repeat(2, 0)
    viewmats[:, :3, :3], viewmats[:, :3, 3] = rotation * np.sign(np.linalg.det(rotation)), (0.1, 0.2, 3.0)
    images = np.zeros((2, 4, 4, 4), np.float32)
    before = PosedImages(images, viewmats, np.eye(3, dtype=np.float32)[None].repeat(2, 0),
                         Points(rng.normal(size=(6, 3)).astype(np.float32)))
    after = turned(before, up)
    for old, new in zip(before.viewmats, after.viewmats):
        np.testing.assert_allclose(after.points.positions @ new[:3, :3].T + new[:3, 3],
                                   before.points.positions @ old[:3, :3].T + old[:3, 3], atol=1e-5)
    assert after.images is images and np.array_equal(before.viewmats, viewmats)


def test_normalisation_centres_the_bounding_box_and_moves_the_farthest_point_to_distance_one():
    cloud = np.array([(1, 2, 3), (5, 2, 3), (1, 4, 3), (2, 3, 9)], np.float32)  # box (1..5, 2..4, 3..9)
    points, centre, radius = normalised(Points(cloud))
    np.testing.assert_allclose(centre, (3, 3, 6))
    assert radius == pytest.approx(np.sqrt(4 + 1 + 9))  # of (1, 2, 3)
    np.testing.assert_allclose(points.positions * radius + centre, cloud, atol=1e-5)
    mesh, centre_of_mesh, radius_of_mesh = normalised(Mesh((part([cloud[:3]]), part([cloud[1:]]))))
    np.testing.assert_allclose(centre_of_mesh, centre)
    assert radius_of_mesh == pytest.approx(radius)
    np.testing.assert_allclose(mesh.parts[1].triangles[0], points.positions[1:], atol=1e-6)


def test_coinciding_points_are_only_centred():
    points, centre, radius = normalised(Points(np.array([(1e4, -3, 0.1)] * 3, np.float32)))
    assert radius == 1 and (points.positions == 0).all() and centre[0] == 1e4


def test_content_of_other_types_is_refused(random_cloud):
    with pytest.raises(TypeError, match='GaussianCloud'):
        normalised(random_cloud(3))
    with pytest.raises(TypeError, match='list'):
        turned([], 'z')
    with pytest.raises(ValueError, match="'w'"):
        turned(Points(np.zeros((1, 3), np.float32)), 'w')


# Textures

@pytest.mark.parametrize('opaque', [True, False])
@pytest.mark.parametrize('shape', [(5, 3), (1, 1), (2, 8)])
def test_textures_are_bilinear_and_repeat(opaque, shape):
    rng = np.random.default_rng(2)
    texture = rng.integers(0, 256, (*shape, 4), np.uint8)
    texture[..., 3] = 255 if opaque else rng.integers(0, 2, shape) * 200
    uv = rng.uniform(-3, 3, (200, 2))
    expected = [bilinear(texture, u, v) for u, v in uv]
    np.testing.assert_allclose(texture_at(texture, uv.astype(np.float32)), expected, atol=3e-4 * max(shape))


def test_colours_multiply_within_their_part():
    texture = np.full((2, 2, 4), (255, 102, 51, 255), np.uint8)
    triangle = np.array([[(0, 0, 0), (1, 0, 0), (0, 1, 0)]])
    colors = np.array([[(1, 1, 1, 1), (0, 1, 1, 1), (1, 0, 1, 0)]], np.float32)
    textured = part(triangle, (0.5, 1, 1, 1), colors=colors, uv=np.zeros((1, 3, 2), np.float32), texture=texture)
    mesh = Mesh((part(np.tile(triangle, (3, 1, 1)), (0.1, 0.2, 0.3, 1)), textured, part(triangle, (0, 0, 1, 0.5))))
    found = colors_at(mesh, np.array([3, 0, 4, 2]), np.array([(0.2, 0.3, 0.5)] * 4))
    np.testing.assert_allclose(found, [(0.5 * 0.7, 0.4 * 0.5, 0.2, 0.5), (0.1, 0.2, 0.3, 1), (0, 0, 1, 0.5),
                                       (0.1, 0.2, 0.3, 1)], atol=1e-6)


# Samples

def test_samples_of_a_sphere_are_even_and_have_its_normals():
    surface = sample_surface(Mesh((sphere(),)), 4000, seed=0)
    length = np.linalg.norm(surface.positions, axis=1)
    assert length.max() <= 1 + 1e-6 and length.min() > 0.99  # chords of 24 steps lie inside
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)
    assert ((surface.normals * surface.positions).sum(1) / length > 0.999).all()
    # The area of a zone of a sphere is its height (Archimedes).
    shares = np.histogram(surface.positions[:, 2], np.linspace(-1, 1, 6))[0] / 4000
    np.testing.assert_allclose(shares, 0.2, atol=0.012)


def test_the_points_of_a_triangle_are_proportional_to_its_area_up_to_one():
    small, large = [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 0, 5), (3, 0, 5), (0, 2, 5)]
    for seed in range(5):
        height = sample_surface(Mesh((part([small]), part([large]))), 700, seed).positions[:, 2]
        assert abs((height == 0).sum() - 100) <= 1


def test_points_spread_evenly_over_a_triangle():
    corners = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0)])
    x, y = sample_surface(Mesh((part([corners]),)), 6000, seed=1).positions[:, :2].T.astype(np.float64)
    assert (x >= 0).all() and (y >= 0).all() and (x + y <= 1 + 1e-6).all()
    # Moments of the uniform density 2 on the triangle: E x = 1/3, E x^2 = 1/6, E xy = 1/12.
    found = [x.mean(), y.mean(), (x * x).mean(), (y * y).mean(), (x * y).mean()]
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 6, 1 / 6, 1 / 12], atol=0.012)


def test_samples_have_the_colours_of_the_texture():
    texture = np.random.default_rng(3).integers(0, 256, (4, 6, 4), np.uint8)
    texture[..., 3] = 255
    square = [[(0, 0, 0), (1, 0, 0), (1, 1, 0)], [(0, 0, 0), (1, 1, 0), (0, 1, 0)]]
    uv = np.array(square, np.float32)[..., :2] * 2 - 0.5
    surface = sample_surface(Mesh((part(square, uv=uv, texture=texture),)), 300, seed=0)
    expected = [bilinear(texture, *(2 * position[:2].astype(float) - 0.5))[:3] for position in surface.positions]
    np.testing.assert_allclose(surface.colors, expected, atol=1e-4)


def test_transparent_surfaces_are_sampled_by_alpha():
    left, right = [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(5, 0, 0), (6, 0, 0), (5, 1, 0)]
    clear = sample_surface(Mesh((part([left], (1, 0, 0, 0)), part([right], (0, 1, 0, 1)))), 50, 0)
    assert len(clear.positions) == 50 and (clear.positions[:, 0] >= 5).all() and (clear.colors == (0, 1, 0)).all()
    misty = sample_surface(Mesh((part([left], (1, 0, 0, 0.25)), part([right], (0, 1, 0, 1)))), 4000, 0)
    assert (misty.colors[:, 0] == 1).mean() == pytest.approx(0.2, abs=0.025)
    assert len(sample_surface(Mesh((part([left], (1, 0, 0, 0.01)),)), 200, 0).positions) == 200
    with pytest.raises(ValueError, match='transparent'):
        sample_surface(Mesh((part([left], (1, 0, 0, 0)),)), 10, 0)


def test_the_same_seed_gives_the_same_points():
    mesh = Mesh((sphere(8),))
    one, same, other = (sample_surface(mesh, 100, seed) for seed in (4, 4, 5))
    for name in ('positions', 'normals', 'colors'):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
        assert getattr(one, name).dtype == np.float32
    assert not np.array_equal(one.positions, other.positions)
    torch.manual_seed(9)
    np.random.seed(9)  # global generators have no influence
    assert np.array_equal(one.positions, sample_surface(mesh, 100, 4).positions)


def test_a_mesh_without_area_and_a_count_of_zero_are_refused():
    flat = MeshPart(np.ones((2, 3, 3), np.float32), np.ones((2, 3, 3), np.float32), np.ones(4, np.float32))
    with pytest.raises(ValueError, match='2 triangles without area'):
        sample_surface(Mesh((flat,)), 10, 0)
    with pytest.raises(ValueError, match='count=0'):
        sample_surface(Mesh((sphere(4),)), 0, 0)
