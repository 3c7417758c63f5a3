import itertools
import math

import numpy as np
import pytest

from clipgs_plugin import ops
from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart
from clipgs_plugin.generation.rendering import ViewRule, choose_renderer, render_mesh
from clipgs_plugin.generation.rendering.meshes import RENDERERS
from clipgs_plugin.generation.rendering.surfaces import normalised, turned
from clipgs_plugin.generation.sources.mesh import MeshSource

pytest.importorskip('trimesh')

# Tolerance of a colour; OpenGL rounds samples to 8 bits.
TOLERANCE = dict(raycast=1e-5, egl=0.5 / 255 + 1e-5)


@pytest.fixture(params=RENDERERS)
def renderer(request) -> str:
    return require(request.param)


def require(name: str) -> str:
    try:
        return choose_renderer(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))


RED, GREEN, BLUE, WHITE = (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 1, 1)


def part(triangles, color=WHITE, normals=None, **look) -> MeshPart:
    """Triangles (F, 3, 3) with the normals of their planes."""
    triangles = np.asarray(triangles, np.float32)
    if normals is None:
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals = np.repeat((normals / np.linalg.norm(normals, axis=1, keepdims=True))[:, None], 3, 1)
    return MeshPart(triangles, np.asarray(normals, np.float32), np.asarray(color, np.float32), **look)


def quad(half: float = 1.0, z: float = 0.0) -> np.ndarray:
    """A square about the z axis that faces +z, (2, 3, 3)."""
    a, b, c, d = (-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)
    return np.array([[a, b, c], [a, c, d]])


QUAD_UV = np.array([[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]], np.float32)
FRONT = ops.look_at([[0.0, 0.0, 3.0]]).numpy()  # from +z with y up: right is x, up is y


def filling(width: int, height: int, half: float = 1.0) -> np.ndarray:
    """Intrinsics that make a quad at the origin, seen from ``FRONT``, as wide as the image."""
    focal = width * 3.0 / (2 * half)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


# Projection

@pytest.mark.parametrize('eye, pixel', [
    # Image axes by hand, x right and y down, for cameras at 0, 90 and 180 degrees.
    ((0.0, 0.0, 3.0), lambda x, y, z: (x / (3 - z), -y / (3 - z))),
    ((3.0, 0.0, 0.0), lambda x, y, z: (-z / (3 - x), -y / (3 - x))),
    ((0.0, 0.0, -3.0), lambda x, y, z: (-x / (3 + z), -y / (3 + z))),
])
@pytest.mark.parametrize('point', [(0.5, 0.3, -0.2), (-0.4, 0.6, 0.5), (0.1, -0.7, 0.3)])
def test_a_point_appears_at_the_pixel_of_the_pinhole_formula(eye, pixel, point, renderer):
    tetrahedron = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) * 0.02 + point
    mesh = Mesh((part([tetrahedron[list(face)] for face in itertools.combinations(range(4), 3)]),))
    size, focal = 64, 70.0
    intrinsics = np.array([[focal, 0, 30], [0, focal, 34], [0, 0, 1]])  # a principal point off the centre
    viewmats = ops.look_at([eye]).numpy()
    alpha = render_mesh(mesh, viewmats, intrinsics, size, size, samples=8, renderer=renderer)[0, ..., 3].astype(float)
    rows, columns = np.mgrid[:size, :size] + 0.5
    found = [(alpha * columns).sum() / alpha.sum(), (alpha * rows).sum() / alpha.sum()]
    x, y = pixel(*point)
    np.testing.assert_allclose(found, [30 + focal * x, 34 + focal * y], atol=0.15)


def box_rays(low, high, colors, viewmat, intrinsics, size: int, samples: int) -> np.ndarray:
    """A box of six colours (-x, +x, -y, +y, -z, +z) by the slab method, ray by ray in float64."""
    rotation, eye = viewmat[:3, :3].astype(float), -viewmat[:3, :3].T.astype(float) @ viewmat[:3, 3]
    image = np.zeros((size, size, 4))
    for row, column in itertools.product(range(size), range(size)):
        hits = []
        for i, j in itertools.product(range(samples), range(samples)):
            place = np.array([column + (i + 0.5) / samples, row + (j + 0.5) / samples, 1.0])
            ray = rotation.T @ np.linalg.solve(intrinsics, place)
            enter, leave = (low - eye) / ray, (high - eye) / ray
            near, far = np.minimum(enter, leave), np.maximum(enter, leave)
            if near.max() < far.min():
                axis = near.argmax()
                hits.append(colors[2 * axis + (enter[axis] > leave[axis])])
        if hits:
            image[row, column] = *np.mean(hits, 0)[:3], len(hits) / samples ** 2
    return image


def box(low, high, colors) -> Mesh:
    corner = np.array(list(itertools.product(*zip(low, high)))).reshape(2, 2, 2, 3)
    parts = []
    for axis, side in itertools.product(range(3), range(2)):
        a, b, c, d = corner.take(side, axis).reshape(4, 3)
        parts.append(part([[a, b, d], [a, d, c]], colors[2 * axis + side]))
    return Mesh(tuple(parts))


@pytest.mark.parametrize('eye', [(1.9, 1.1, 2.2), (-1.3, -2.3, 0.7)])
def test_a_box_of_six_colours_equals_plain_ray_tracing(eye, renderer):
    low, high = np.array([-0.5, -0.3, -0.4]), np.array([0.6, 0.45, 0.3])
    colors = np.array([RED, GREEN, BLUE, (1, 1, 0, 1), (0, 1, 1, 1), (0.25, 0.5, 0.75, 1)], float)
    viewmat, intrinsics = ops.look_at(eye).numpy(), ops.intrinsics(35.0, 24, 24).numpy().astype(float)
    found = render_mesh(box(low, high, colors), viewmat[None], intrinsics, 24, 24, samples=2, renderer=renderer)[0]
    expected = box_rays(low, high, colors, viewmat, intrinsics, 24, 2)
    assert 0.1 < (expected[..., 3] > 0).mean() < 0.9 and len(np.unique(expected[..., 3])) > 3
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[renderer])


def test_alpha_is_the_share_of_samples_and_colour_is_not_premultiplied(renderer):
    half, size, samples = 0.58, 16, 3
    mesh = Mesh((part(quad(half), (0.2, 0.4, 0.6, 1)),))
    found = render_mesh(mesh, FRONT, filling(size, size), size, size, samples, renderer=renderer)[0]
    places = (np.arange(size * samples) + 0.5) / samples * 2 / size - 1  # of the rays on the plane z = 0
    covered = (np.abs(places) < half).reshape(size, samples).mean(1)
    np.testing.assert_allclose(found[..., 3], np.outer(covered, covered), atol=TOLERANCE[renderer])
    edge = (found[..., 3] > 0) & (found[..., 3] < 1)
    assert edge.sum() > 20
    np.testing.assert_allclose(found[edge][:, :3], np.tile((0.2, 0.4, 0.6), (edge.sum(), 1)), atol=TOLERANCE[renderer])
    assert (found[found[..., 3] == 0] == 0).all()


@pytest.mark.parametrize('width, height', [(2, 2), (6, 5)])
def test_a_texture_that_fills_the_image_equals_the_image(width, height, renderer):
    texture = np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)
    texture[..., 3] = 255
    plane = quad() * (1.0, height / width, 1.0)
    mesh = Mesh((part(plane, uv=QUAD_UV, texture=texture),))
    # Centres of pixels and texels coincide; the first row is at v = 1.
    found = render_mesh(mesh, FRONT, filling(width, height), width, height, samples=1, renderer=renderer)[0]
    np.testing.assert_allclose(found, texture / 255, atol=2e-3)


def test_corner_colours_are_interpolated_and_multiplied_by_the_base_colour(renderer):
    colors = np.array([[RED, GREEN, BLUE]], np.float32)
    triangle = np.array([[(-1, -1, 0), (1, -1, 0), (-1, 1, 0)]])
    mesh = Mesh((part(triangle, (0.5, 1.0, 0.25, 1.0), colors=colors),))
    found = render_mesh(mesh, FRONT, filling(8, 8), 8, 8, samples=1, renderer=renderer)[0]
    for row, column in [(7, 0), (6, 1), (4, 2), (1, 0)]:
        x, y = (column + 0.5) / 4 - 1, 1 - (row + 0.5) / 4
        expected = np.array([(-x - y) / 2, (x + 1) / 2, (y + 1) / 2]) * (0.5, 1.0, 0.25)
        np.testing.assert_allclose(found[row, column], [*expected, 1], atol=max(1e-4, TOLERANCE[renderer]))


def test_transparent_surfaces_show_the_next_surface(renderer):
    veil, wall = part(quad(z=0.5), (1, 0, 0, 0.25)), part(quad(z=-0.5), BLUE)
    front = render_mesh(Mesh((wall, veil)), FRONT, filling(8, 8, 2), 8, 8, renderer=renderer)[0, 4, 4]
    np.testing.assert_allclose(front, [0.25, 0, 0.75, 1], atol=TOLERANCE[renderer])
    alone = render_mesh(Mesh((veil,)), FRONT, filling(8, 8, 2), 8, 8, renderer=renderer)[0, 4, 4]
    np.testing.assert_allclose(alone, [1, 0, 0, 0.25], atol=TOLERANCE[renderer])
    twice = render_mesh(Mesh((veil, part(quad(z=0.0), (0, 1, 0, 0.5)))), FRONT, filling(8, 8, 2), 8, 8)[0, 4, 4]
    np.testing.assert_allclose(twice, [0.25 / 0.625, 0.375 / 0.625, 0, 0.625], atol=TOLERANCE[renderer])


def test_a_camera_inside_the_mesh_sees_it_everywhere(renderer):
    room = box(np.full(3, -5.0), np.full(3, 5.0), [RED, GREEN, BLUE, WHITE, (0, 1, 1, 1), (1, 0, 1, 1)])
    found = render_mesh(room, FRONT, filling(8, 8), 8, 8, samples=1, renderer=renderer)[0]
    wall = np.broadcast_to((0, 1, 1, 1), (8, 8, 4))  # at -z
    np.testing.assert_allclose(found, wall, atol=TOLERANCE[renderer])


def test_a_texture_finer_than_the_samples_is_averaged(renderer):
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    texture = np.stack([checks, checks, checks, np.full_like(checks, 255)], -1).astype(np.uint8)
    mesh = Mesh((part(quad(), uv=QUAD_UV, texture=texture),))
    found = render_mesh(mesh, FRONT, filling(16, 16), 16, 16, samples=1, renderer=renderer)[0]
    np.testing.assert_allclose(found[..., :3], 0.5, atol=0.01)


def test_the_soft_light_comes_from_above_the_camera_and_lights_both_sides(renderer):
    def brightness(triangles, normals=None) -> float:
        mesh = Mesh((part(triangles, normals=normals),))
        return render_mesh(mesh, FRONT, filling(8, 8), 8, 8, light='soft', renderer=renderer)[0, 4, 4, 0]

    turn = np.array([[1, 0, 0], [0, math.cos(0.6), -math.sin(0.6)], [0, math.sin(0.6), math.cos(0.6)]])
    assert brightness(quad()) == pytest.approx(0.45 + 0.55 * 0.8, abs=TOLERANCE[renderer])
    assert brightness(quad()[:, ::-1]) == pytest.approx(0.45 + 0.55 * 0.8, abs=TOLERANCE[renderer])
    for matrix in (turn, turn.T):  # one faces up, one down
        expected = 0.45 + 0.55 * (matrix @ (0, 0, 1)) @ (0, 0.6, 0.8)
        assert brightness(quad() @ matrix.T) == pytest.approx(expected, abs=TOLERANCE[renderer])
    smooth = np.broadcast_to((0.0, 0.6, 0.8), (2, 3, 3))
    assert brightness(quad(), smooth) == pytest.approx(1.0, abs=TOLERANCE[renderer])
    assert brightness(quad(), -smooth) == pytest.approx(1.0, abs=TOLERANCE[renderer])


def test_invalid_arguments_are_named(renderer):
    mesh = Mesh((part(quad()),))
    for arguments, message in [
        (dict(light='sun'), "light='sun'"), (dict(samples=0), 'samples=0'), (dict(viewmats=FRONT[0]), r'\(V, 4, 4\)'),
        (dict(intrinsics=np.eye(4)), r'\(3, 3\)'), (dict(mesh=Mesh(())), 'without triangles'),
    ]:
        plain = dict(mesh=mesh, viewmats=FRONT, intrinsics=filling(4, 4), width=4, height=4)
        with pytest.raises(ValueError, match=message):
            render_mesh(**{**plain, **arguments}, renderer=renderer)
    assert render_mesh(mesh, FRONT[:0], filling(4, 4), 4, 4, renderer=renderer).shape == (0, 4, 4, 4)


def test_a_scanned_object_covers_part_of_the_image(data):
    path = data / 'gso' / 'Lactoferrin' / 'model_0.obj'
    mesh, _, _ = normalised(turned(MeshSource(up='z').load(Listed('x', path)), 'z'))
    rule = ViewRule(num_views=4, size=48)
    images = render_mesh(mesh, rule.train_cameras(), rule.intrinsics(), 48, 48, samples=2, renderer='auto')
    covered = images[..., 3] > 0.5
    assert (covered.mean((1, 2)) > 0.05).all() and (covered.mean((1, 2)) < 0.95).all()
    assert not covered[:, [0, -1]].any() and not covered[:, :, [0, -1]].any()
    assert (images[..., :3].std((1, 2)) > 0.02).all()
    # The bottle has a white cap above a blue label.
    label = images[2][(images[2][..., 2] > images[2][..., 0] + 0.15) & covered[2]]
    rows = np.mgrid[:48, :48][0]
    blue = (images[2][..., 2] > images[2][..., 0] + 0.15) & covered[2]
    white = (images[2][..., :3].min(-1) > 0.8) & covered[2]
    assert len(label) > 20 and rows[white].min() < rows[blue].min() - 3
    again = render_mesh(mesh, rule.train_cameras(), rule.intrinsics(), 48, 48, samples=2, renderer='auto')
    assert np.array_equal(images, again)


# Cameras

@pytest.mark.parametrize('num_views, num_test', [(36, 12), (8, 4), (5, 5), (1, 1)])
def test_cameras_look_at_the_origin_from_a_sphere_and_held_out_ones_differ(num_views, num_test):
    rule = ViewRule(num_views, num_test, distance=2.5)
    train, test = rule.train_cameras(), rule.test_cameras()
    assert train.shape == (num_views, 4, 4) and test.shape == (num_test, 4, 4)
    both = np.concatenate([train, test]).astype(np.float64)
    rotations = both[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape),
                               atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    np.testing.assert_allclose(both[:, :3, 3], np.broadcast_to((0, 0, 2.5), (len(both), 3)), atol=1e-5)
    assert (rotations[:, 1, 1] <= 1e-6).all()  # the y axis of the world never points down in the image
    eyes = -np.einsum('vji,vj->vi', rotations, both[:, :3, 3]) / 2.5
    closest = min(np.degrees(np.arccos(np.clip(a @ b, -1, 1))) for a in eyes[:num_views] for b in eyes[num_views:])
    # A quarter of the spacing of cameras spread evenly over a sphere; at most half is possible.
    assert closest > 0.25 * math.degrees(math.sqrt(4 * math.pi / num_views))


def test_the_unit_sphere_fits_into_the_default_image():
    rule = ViewRule()
    focal, center = rule.intrinsics()[0, 0], rule.intrinsics()[0, 2]
    edge = focal * math.tan(math.asin(1 / rule.distance))
    assert rule.intrinsics()[1, 1] == focal and center == rule.size / 2
    assert 0.95 * rule.size / 2 < edge < rule.size / 2


def test_a_rule_survives_a_round_trip_through_its_dict():
    rule = ViewRule(num_views=7, num_test=0, background=[0, 0.5, 1])
    assert ViewRule(**rule.to_dict()) == rule and rule.to_dict()['background'] == [0.0, 0.5, 1.0]
    assert rule.test_cameras().shape == (0, 4, 4)


@pytest.mark.parametrize('wrong', [dict(num_views=0), dict(num_test=-1), dict(size=0), dict(fov_degrees=180),
                                   dict(distance=1.0), dict(background=(1, 1)), dict(background=(0, 0, 255)),
                                   dict(keep_test='no')])
def test_rules_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ViewRule(**wrong)
