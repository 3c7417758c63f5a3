"""Cameras of other libraries: known answers by hand, then the libraries themselves."""
import math

import numpy as np
import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.ops import flip_camera_axes, intrinsics, look_at, quaternion_to_matrix

WIDTH, HEIGHT = 80, 60
# A camera at (0, 0, 5) that looks along -z with y up: world x is right, world y is up.
FRONT = look_at(torch.tensor([[0.0, 0, 5]], dtype=torch.float64))
K = torch.tensor([[[100.0, 0, 42], [0, 50, 27], [0, 0, 1]]], dtype=torch.float64)
# Worked by hand: depth 5, 5 and 4; u = 42 + 100 x / depth, v = 27 - 50 y / depth.
POINTS = torch.tensor([[0.0, 0, 0], [-1, 0, 0], [0.4, 0.8, 1]], dtype=torch.float64)
PIXELS = torch.tensor([[42.0, 27], [22, 27], [52, 17]], dtype=torch.float64)


def random_cameras(count=6, seed=0):
    """Cameras anywhere, of different focal lengths and principal points."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    viewmats[:, :3, :3] = quaternion_to_matrix(draw(count, 4))
    viewmats[:, :3, 3] = draw(count, 3)
    matrices = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    matrices[:, 0, 0], matrices[:, 1, 1] = 60 + 10 * draw(count), 90 + 10 * draw(count)
    matrices[:, :2, 2] = torch.tensor([40.0, 30.0]) + 5 * draw(count, 2)
    return viewmats, matrices


def project(viewmats, matrices, points):
    """Project points by the formulas of this library, (V, N, 2)."""
    seen = points @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
    image = seen @ matrices.mT
    return image[..., :2] / image[..., 2:]


def pytorch3d_pixels(R, T, focal_length, principal_point, image_size, in_ndc):
    """Project points as the notes on cameras of pytorch3d have it: rows, x left, y up, and the shorter side [-1, 1]."""
    seen = POINTS @ R[0] + T[0]
    height, width = image_size[0].tolist()
    half = min(width, height) / 2
    if not in_ndc:
        focal_length = focal_length / half
        principal_point = (torch.tensor([width / 2, height / 2]) - principal_point) / half
    ndc = focal_length[0] * seen[:, :2] / seen[:, 2:] + principal_point[0]
    return torch.tensor([width / 2, height / 2]) - ndc * half


def test_points_have_these_pixels_here():
    assert torch.allclose(project(FRONT, K, POINTS)[0], PIXELS, atol=1e-12)


@pytest.mark.parametrize('in_ndc', [True, False])
def test_points_have_these_pixels_in_pytorch3d(in_ndc):
    camera = ops.cameras_to_pytorch3d(FRONT, K, WIDTH, HEIGHT, in_ndc)
    assert torch.allclose(pytorch3d_pixels(**camera), PIXELS, atol=1e-12)
    # The camera's left and up are world -x and y, and it looks along -z from 5.
    assert torch.equal(camera['R'][0], torch.diag(torch.tensor([-1.0, 1, -1], dtype=torch.float64)))
    assert camera['T'].tolist() == [[0, 0, 5]] and camera['image_size'].tolist() == [[60, 80]]
    expected = ([[100 / 30, 50 / 30]], [[(40 - 42) / 30, (30 - 27) / 30]]) if in_ndc else ([[100, 50]], [[42, 27]])
    assert torch.allclose(camera['focal_length'], torch.tensor(expected[0], dtype=torch.float64))
    assert torch.allclose(camera['principal_point'], torch.tensor(expected[1], dtype=torch.float64))


def test_the_camera_in_opencv_colmap_opengl_and_nerf():
    rotations, translations, matrices = ops.cameras_to_opencv(FRONT, K)
    assert rotations[0].tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]] and translations.tolist() == [[0, 0, 5]]
    assert matrices[0].tolist() == [[100, 0, 41.5], [0, 50, 26.5], [0, 0, 1]]
    quats, translations = ops.viewmats_to_colmap(FRONT)
    assert quats.tolist() == [[0, 1, 0, 0]] and translations.tolist() == [[0, 0, 5]]  # half a turn about x
    # OpenGL's camera has world axes here, so a point in front has negative z.
    assert torch.equal(flip_camera_axes(FRONT)[0, :3, :3], torch.eye(3, dtype=torch.float64))
    assert ops.viewmats_to_nerf(FRONT)[0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]


def test_a_camera_of_nerf_has_its_position_and_directions_as_columns():
    viewmats, _ = random_cameras()
    columns = ops.viewmats_to_nerf(viewmats)
    right, up, backward, position = columns[:, :3].unbind(-1)
    ones = torch.ones(6, 1, dtype=torch.float64)
    for point, expected in ((position, [0, 0, 0]), (position + right, [1, 0, 0]), (position + up, [0, -1, 0]),
                            (position - backward, [0, 0, 1])):
        seen = (viewmats @ torch.cat([point, ones], 1)[..., None])[:, :3, 0]
        assert torch.allclose(seen, torch.tensor(expected).double().expand(6, 3), atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('there_and_back', [
    lambda v, k: ops.cameras_from_opencv(*ops.cameras_to_opencv(v, k)),
    lambda v, k: (ops.viewmats_from_colmap(*ops.viewmats_to_colmap(v)), k),
    lambda v, k: (ops.viewmats_from_nerf(ops.viewmats_to_nerf(v)), k),
    lambda v, k: (ops.viewmats_from_nerf(ops.viewmats_to_nerf(v)[:, :3]), k),
    lambda v, k: ops.cameras_from_pytorch3d(**ops.cameras_to_pytorch3d(v, k, WIDTH, HEIGHT)),
    lambda v, k: ops.cameras_from_pytorch3d(**ops.cameras_to_pytorch3d(v, k, HEIGHT, WIDTH, in_ndc=False)),
], ids=['opencv', 'colmap', 'nerf', 'nerf 3x4', 'pytorch3d ndc', 'pytorch3d screen'])
def test_there_and_back(there_and_back, dtype):
    expected = [value.to(dtype) for value in random_cameras()]
    for found, wanted in zip(there_and_back(*expected), expected):
        assert found.dtype == dtype and found.shape == wanted.shape
        assert torch.allclose(found, wanted, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12)


def test_gradients_flow_through_every_conversion():
    def through(viewmats, matrices):
        viewmats = ops.viewmats_from_colmap(*ops.viewmats_to_colmap(viewmats))
        viewmats = ops.viewmats_from_nerf(ops.viewmats_to_nerf(viewmats))
        viewmats, matrices = ops.cameras_from_opencv(*ops.cameras_to_opencv(viewmats, matrices))
        matrices = matrices * torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.float64)
        viewmats, matrices = ops.cameras_from_pytorch3d(**ops.cameras_to_pytorch3d(viewmats, matrices, WIDTH, HEIGHT))
        return project(viewmats, matrices, POINTS)

    translations = random_cameras(2)[0][:, :3, 3].add(torch.tensor([0.0, 0, 6])).requires_grad_()
    matrices = random_cameras(2)[1].requires_grad_()

    def pixels(translations, matrices, way):
        viewmats = torch.cat([random_cameras(2)[0][:, :, :3] * 1.0,
                              torch.nn.functional.pad(translations, (0, 1), value=1)[..., None]], -1)
        return way(viewmats, matrices)
    expected = torch.autograd.grad(pixels(translations, matrices, lambda v, k: project(v, k, POINTS)).square().sum(),
                                   (translations, matrices))
    found = torch.autograd.grad(pixels(translations, matrices, through).square().sum(), (translations, matrices))
    assert torch.allclose(found[0], expected[0], rtol=1e-9, atol=1e-9)
    free = matrices.new_tensor([[1, 0, 1], [0, 1, 1], [0, 0, 0]])  # focal lengths and principal point
    assert torch.allclose(found[1] * free, expected[1] * free, rtol=1e-9, atol=1e-9) and (found[0] != 0).all()


@pytest.mark.parametrize('convert', [
    lambda quats: ops.viewmats_to_nerf(ops.viewmats_from_colmap(quats, torch.ones(3).double())),
    lambda quats: ops.viewmats_to_colmap(ops.viewmats_from_colmap(quats, torch.ones(3).double()))[0]])
def test_gradients_of_rotations_are_difference_quotients(convert):
    g = torch.Generator().manual_seed(1)
    quats, step = torch.randn(2, 4, dtype=torch.float64, generator=g)
    quats.requires_grad_()
    weights = torch.randn(convert(quats).shape, dtype=torch.float64, generator=g)
    slope, = torch.autograd.grad((weights * convert(quats)).sum(), quats)
    ahead, behind = ((weights * convert(quats.detach() + sign * 1e-5 * step)).sum() for sign in (1, -1))
    assert float(slope @ step) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-7)


def test_a_scaled_camera_of_nerf_is_the_same_camera():
    viewmats, _ = random_cameras()
    scaled = ops.viewmats_to_nerf(viewmats)
    scaled[:, :3, :3] *= 7
    assert torch.allclose(ops.viewmats_from_nerf(scaled), viewmats, atol=1e-12)


def test_one_camera_needs_no_batch_where_the_other_library_needs_none():
    assert torch.equal(ops.viewmats_to_nerf(FRONT[0]), ops.viewmats_to_nerf(FRONT)[0])
    assert ops.viewmats_to_colmap(FRONT[0])[0].tolist() == [0, 1, 0, 0]
    assert torch.equal(ops.cameras_to_opencv(FRONT[0], K[0])[2], ops.cameras_to_opencv(FRONT, K)[2][0])


def test_one_matrix_and_one_focal_length_serve_all_cameras():
    viewmats = ops.sphere_cameras(4)
    camera = ops.cameras_to_pytorch3d(viewmats, intrinsics(60, WIDTH, HEIGHT), WIDTH, HEIGHT)
    # The field of view spans the shorter side, which is [-1, 1].
    assert torch.allclose(camera['focal_length'], torch.full((4, 2), 1 / math.tan(math.radians(30))))
    assert torch.equal(camera['principal_point'], torch.zeros(4, 2))
    for focal in (camera['focal_length'][:, 0], camera['focal_length'][:, :1]):
        found = ops.cameras_from_pytorch3d(**{**camera, 'focal_length': focal})[1]
        assert torch.allclose(found, intrinsics(60, WIDTH, HEIGHT).expand(4, 3, 3))


@pytest.mark.parametrize(('convert', 'message'), [
    (lambda: ops.cameras_to_pytorch3d(FRONT[0], K, 8, 8), r'viewmats have shape \(4, 4\), expected \(V, 4, 4\)'),
    (lambda: ops.cameras_to_pytorch3d(FRONT, K[..., :2], 8, 8), r'intrinsics have shape \(1, 3, 2\), expected'),
    (lambda: ops.cameras_to_pytorch3d(FRONT, K + 1, 8, 8), r'skew at \[0, 1\].*pass a matrix K'),
    (lambda: ops.viewmats_to_nerf(FRONT[:, :3]), r'viewmats have shape \(1, 3, 4\), expected \(\.\.\., 4, 4\)'),
    (lambda: ops.viewmats_from_nerf(FRONT[..., :3]), r'camera_to_world has shape \(1, 4, 3\)'),
    (lambda: ops.cameras_to_opencv(FRONT, torch.eye(4)), r'intrinsics have shape \(4, 4\), expected \(\.\.\., 3, 3\)')])
def test_other_shapes_raise(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()


def test_opencv_projects_to_the_same_places():
    cv2 = pytest.importorskip('cv2')
    viewmats, matrices = random_cameras()
    points = POINTS + torch.tensor([0.0, 0, 1])
    for viewmat, matrix in zip(viewmats, matrices):
        rotation, translation, camera = (value.numpy() for value in ops.cameras_to_opencv(viewmat, matrix))
        found, _ = cv2.projectPoints(points.numpy(), cv2.Rodrigues(rotation)[0], translation, camera, None)
        # OpenCV counts from the centre of the first pixel, this library from its corner.
        assert np.allclose(found[:, 0] + 0.5, project(viewmat[None], matrix[None], points)[0], atol=1e-6)


# pytorch3d itself

@pytest.mark.parametrize('in_ndc', [True, False])
@pytest.mark.parametrize(('width', 'height'), [(80, 60), (50, 90), (64, 64)])
def test_pytorch3d_projects_to_the_same_pixels(width, height, in_ndc):
    renderer = pytest.importorskip('pytorch3d.renderer.cameras')
    viewmats, matrices = (value.float() for value in random_cameras())
    arguments = ops.cameras_to_pytorch3d(viewmats, matrices, width, height, in_ndc)
    cameras = renderer.PerspectiveCameras(**arguments)
    points = viewmats.mT[:, None, :3, :3] @ (torch.randn(6, 9, 3, 1) + torch.tensor([[0.0], [0.0], [6.0]]))
    points = points[..., 0] - (viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:]).mT  # in front of each camera
    found = cameras.transform_points_screen(points)
    assert torch.allclose(found[..., :2], project(viewmats, matrices, points), atol=2e-3)
    seen = cameras.get_world_to_view_transform().transform_points(points)
    assert torch.allclose(seen * torch.tensor([-1.0, -1, 1]),
                          points @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3], atol=1e-5)
    back = ops.cameras_from_pytorch3d(cameras.R, cameras.T, cameras.focal_length, cameras.principal_point,
                                      cameras.image_size, cameras.in_ndc())
    assert torch.allclose(back[0], viewmats, atol=1e-6) and torch.allclose(back[1], matrices, atol=2e-5)


def test_the_conversion_of_pytorch3d_from_opencv_leaves_the_principal_point():
    """Its function is this library's conversion: it does not move the principal point by half a pixel."""
    utils = pytest.importorskip('pytorch3d.utils')
    viewmats, matrices = (value.float() for value in random_cameras())
    sizes = torch.tensor([[HEIGHT, WIDTH]]).expand(6, 2)
    theirs = utils.cameras_from_opencv_projection(viewmats[:, :3, :3], viewmats[:, :3, 3], matrices, sizes)
    ours = ops.cameras_to_pytorch3d(viewmats, matrices, WIDTH, HEIGHT)
    for name in ('R', 'T', 'focal_length', 'principal_point'):
        assert torch.allclose(getattr(theirs, name), ours[name], atol=1e-6), name


@pytest.mark.parametrize('in_ndc', [True, False])
@pytest.mark.parametrize(('width', 'height'), [(40, 30), (20, 36)])
def test_pytorch3d_rasterises_points_into_their_pixels(width, height, in_ndc):
    """The pixel that a point lands in here is the one that pytorch3d draws it in, to half a pixel."""
    points_renderer = pytest.importorskip('pytorch3d.renderer.points.rasterizer')
    structures, cameras = pytest.importorskip('pytorch3d.structures'), pytest.importorskip('pytorch3d.renderer.cameras')
    viewmat, matrix = look_at((1.0, 0.5, 4.0))[None], intrinsics(40, width, height)
    points = torch.rand(12, 3, generator=torch.Generator().manual_seed(2)) * 1.6 - 0.8
    rasterise = points_renderer.PointsRasterizer(
        cameras.PerspectiveCameras(**ops.cameras_to_pytorch3d(viewmat, matrix, width, height, in_ndc)),
        points_renderer.PointsRasterizationSettings(image_size=(height, width), bin_size=0,
                                                    radius=2.0 / min(width, height), points_per_pixel=12))
    found = rasterise(structures.Pointclouds(points=[points]))
    squared = found.dists[0] * (min(width, height) / 2) ** 2  # from the centre of a pixel, in pixels
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
    for index, (x, y) in enumerate(project(viewmat, matrix[None], points)[0].tolist()):
        drawn = found.idx[0] == index
        expected = (columns - x).square() + (rows - y).square()
        assert drawn.any(-1).sum() in (2, 3, 4) and drawn.any(-1)[int(y), int(x)]
        assert torch.allclose(squared[drawn], expected[drawn.any(-1)], atol=2e-3)
