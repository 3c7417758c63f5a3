"""Rendered images against closed forms and a plain loop, for every backend."""
import numpy as np
import pytest
import torch
from raster_scenes import BACKENDS, gaussians, one_view, views

from clipgs_plugin import ops
from clipgs_plugin.ops.spherical_harmonics import C0, C1


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def rotation_matrix(q):
    """Return the rotation matrix by Rodrigues' formula, float64."""
    q = np.asarray(q, dtype=np.float64) / np.linalg.norm(q)
    angle = 2 * np.arctan2(np.linalg.norm(q[1:]), q[0])
    axis = q[1:] / max(np.linalg.norm(q[1:]), 1e-12)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def footprint(cloud, n, viewmat, camera):
    """Return centre and covariance in pixels, and depth; the Jacobian is by central differences."""
    viewmat, camera = viewmat.double().numpy(), camera.double().numpy()

    def project(point):
        x, y, z = viewmat[:3, :3] @ point + viewmat[:3, 3]
        return np.array([camera[0, 0] * x / z + camera[0, 2], camera[1, 1] * y / z + camera[1, 2]])

    mean = cloud.means[n].double().numpy()
    jacobian = np.stack([(project(mean + step) - project(mean - step)) / 2e-5 for step in np.eye(3) * 1e-5], axis=1)
    rotation = rotation_matrix(cloud.quats[n].numpy())
    covariance = rotation @ np.diag(np.exp(2 * cloud.log_scales[n].double().numpy())) @ rotation.T
    depth = (viewmat[:3, :3] @ mean + viewmat[:3, 3])[2]
    return project(mean), jacobian @ covariance @ jacobian.T + 0.3 * np.eye(2), depth


def plain_loop(cloud, viewmat, camera, width, height):
    """Render an image pixel by pixel and Gaussian by Gaussian; SH degree 0."""
    colors = np.maximum(0, 0.5 + C0 * cloud.sh[:, 0].double().numpy())
    opacities = 1 / (1 + np.exp(-cloud.opacity_logits.double().numpy()))
    splats = [(*footprint(cloud, n, viewmat, camera), opacities[n], colors[n]) for n in range(len(cloud))]
    splats = [(center, np.linalg.inv(covariance), depth, opacity, color)
              for center, covariance, depth, opacity, color in splats if depth > 0.01]
    splats.sort(key=lambda splat: splat[2])
    image, alphas = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            transmittance = 1.0
            for center, inverse, _, opacity, color in splats:
                d = np.array([x + 0.5, y + 0.5]) - center
                alpha = min(0.999, opacity * np.exp(-0.5 * d @ inverse @ d))
                if alpha < 1 / 255:
                    continue
                if transmittance * (1 - alpha) <= 1e-4:
                    break
                image[y, x] += transmittance * alpha * color
                transmittance *= 1 - alpha
            alphas[y, x] = 1 - transmittance
    return image, alphas


# Single Gaussians

def test_round_gaussian_on_the_axis_matches_the_closed_form(backend):
    image, alpha = ops.render(gaussians([0.0, 0.0, 0.0], 0.15, 0.8, (1.0, 0.5, 0.25)), *one_view(), 33, 33,
                              backend=backend)
    focal = 16.5 / np.tan(np.radians(20))
    variance = (focal * 0.15 / 3) ** 2 + 0.3
    offsets = np.arange(33) + 0.5 - 16.5
    expected = 0.8 * np.exp(-0.5 * (offsets[:, None] ** 2 + offsets[None] ** 2) / variance)
    expected[expected < 1 / 255] = 0
    assert 0 < (expected > 0).sum() < expected.size
    assert alpha.shape == (1, 33, 33) and image.shape == (1, 33, 33, 3)
    np.testing.assert_allclose(alpha[0], expected, atol=1e-5)
    np.testing.assert_allclose(image[0], expected[..., None] * [1, 0.5, 0.25], atol=1e-5)


def test_oblique_gaussian_has_the_linearised_footprint(backend):
    cloud = gaussians([0.35, -0.2, 0.4], [0.05, 0.2, 0.12], 0.9, quats=[0.7, -0.3, 0.5, 0.2])
    viewmats, cameras = ops.look_at((1.0, 1.5, 2.0), (0.1, 0.0, 0.2))[None], ops.intrinsics(45, 40, 28)[None]
    _, alpha = ops.render(cloud, viewmats, cameras, 40, 28, backend=backend)
    center, covariance, _ = footprint(cloud, 0, viewmats[0], cameras[0])
    ys, xs = np.mgrid[:28, :40] + 0.5
    d = np.stack([xs, ys], -1) - center
    expected = 0.9 * np.exp(-0.5 * np.einsum('...i,ij,...j', d, np.linalg.inv(covariance), d))
    expected[expected < 1 / 255] = 0
    np.testing.assert_allclose(alpha[0], expected, atol=1e-5)


@pytest.mark.parametrize('log_length', [20.0, 40.0, 100.0])
@pytest.mark.parametrize('quats', [[0.7, -0.3, 0.5, 0.2], [0.9, 0.3, 0.2, -0.1], [0.7, 0.0, 0.0, 0.7]])
def test_a_needle_is_as_thin_as_its_other_axes(backend, quats, log_length):
    # The covariance along the needle has no influence across it, however large it is. With the determinant as a
    # difference of products, its rounding error exceeds the width.
    cloud = gaussians([0.35, -0.2, 0.4], [1.0, 0.2, 0.12], 0.9, quats=quats)
    viewmats, cameras = ops.look_at((1.0, 1.5, 2.0), (0.1, 0.0, 0.2))[None], ops.intrinsics(45, 40, 28)[None]
    flat = cloud.replace(log_scales=cloud.log_scales + torch.tensor([-torch.inf, 0, 0]))
    (center, unit, _), (_, thin, _) = (footprint(c, 0, viewmats[0], cameras[0]) for c in (cloud, flat))
    along = np.linalg.eigh(unit - thin)[1][:, -1]
    across = np.array([-along[1], along[0]])
    ys, xs = np.mgrid[:28, :40] + 0.5
    expected = 0.9 * np.exp(-0.5 * ((np.stack([xs, ys], -1) - center) @ across) ** 2 / (across @ thin @ across))
    edge = abs(expected - 1 / 255) < 1e-4
    expected[expected < 1 / 255] = 0
    assert 100 < (expected > 0).sum() < expected.size
    needle = cloud.replace(log_scales=torch.cat([torch.tensor([[log_length]]), cloud.log_scales[:, 1:]], 1))
    _, alpha = ops.render(needle, viewmats, cameras, 40, 28, backend=backend)
    np.testing.assert_allclose(np.where(edge, 0, alpha[0]), np.where(edge, 0, expected), atol=1e-4)


def test_gaussians_of_equal_depth_in_float32_keep_their_order(backend):
    means = torch.zeros(2, 3, dtype=torch.float64)
    for step in (-1e-9, 0.0, 1e-9):  # the camera looks along -z
        means[0, 2] = step
        cloud = gaussians(means, rgb=torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double(), dtype=torch.float64)
        image, _ = ops.render(cloud, *one_view(), 33, 33, backend=backend)
        torch.testing.assert_close(image[0, 16, 16], torch.tensor([0.8, 0.16, 0]).double(), atol=1e-5, rtol=0)


def test_no_views(backend):
    viewmats, cameras = (x[:0] for x in one_view())
    image, alpha = ops.render(gaussians([0.0, 0.0, 0.0]), viewmats, cameras, 5, 7, backend=backend)
    assert image.shape == (0, 7, 5, 3) and alpha.shape == (0, 7, 5) and image.dtype == alpha.dtype == torch.float32
    images, alphas = ops.render_batch([gaussians([0.0, 0.0, 0.0])] * 2, viewmats.expand(2, 0, 4, 4),
                                      cameras.expand(2, 0, 3, 3), 5, 7, backend=backend)
    assert images.shape == (2, 0, 7, 5, 3) and alphas.shape == (2, 0, 7, 5)


@pytest.mark.parametrize('logit, expected', [(60.0, 0.999), (8.0, 0.999), (0.0, 0.5), (-5.0, 1 / (1 + np.exp(5.0))),
                                             (-5.6, 0.0), (-60.0, 0.0)])
def test_opacity_is_clipped_above_and_skipped_below(backend, logit, expected):
    cloud = gaussians([0.0, 0.0, 0.0]).replace(opacity_logits=torch.tensor([logit]))
    _, alpha = ops.render(cloud, *one_view(), 33, 33, backend=backend)
    assert alpha[0, 16, 16].item() == pytest.approx(expected, abs=1e-5)


def test_clipped_alpha_passes_gradients_to_colours_only(backend):
    cloud = gaussians([0.0, 0.0, 0.0], 50.0).replace(opacity_logits=torch.tensor([9.0]))
    cloud = cloud.apply(torch.Tensor.requires_grad_)
    image, _ = ops.render(cloud, *one_view(5, 5), 5, 5, backend=backend)
    image.sum().backward()
    assert cloud.opacity_logits.grad.item() == 0 and cloud.log_scales.grad.abs().max() == 0
    assert cloud.sh.grad.flatten().tolist() == pytest.approx([25 * 0.999 * C0] * 3, rel=1e-5)


def test_colour_depends_on_the_direction_and_is_clamped_at_zero(backend):
    sh = torch.zeros(1, 4, 3)
    sh[0, 0] = torch.tensor([0.3, -5.0, 0.0]) / C0  # green is far below black
    sh[0, 3, 0] = 0.4 / C1                           # red falls along +x
    cloud = gaussians([0.0, 0.0, 0.0], 5.0, 0.99).replace(sh=sh)
    eyes = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    image, alpha = ops.render(cloud, ops.look_at(eyes), ops.intrinsics(40, 9, 9).expand(3, 3, 3), 9, 9, backend=backend)
    colors = image[:, 4, 4] / alpha[:, 4, 4, None]
    # The direction is from the camera to the Gaussian, and the harmonic is -C1 x.
    np.testing.assert_allclose(colors, [[1.2, 0, 0.5], [0.4, 0, 0.5], [0.8, 0, 0.5]], atol=1e-4)
    flat, _ = ops.render(cloud, ops.look_at(eyes), ops.intrinsics(40, 9, 9).expand(3, 3, 3), 9, 9, sh_degree=0,
                         backend=backend)
    np.testing.assert_allclose(flat[:, 4, 4, 0] / alpha[:, 4, 4], 0.8, atol=1e-4)


# Several Gaussians

@pytest.mark.parametrize('front_first', [True, False])
def test_near_gaussians_hide_far_ones_in_any_order(backend, front_first):
    cloud = gaussians([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]], 0.3, [0.9, 0.8], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    cloud = cloud if front_first else cloud[torch.tensor([1, 0])]
    image, alpha = ops.render(cloud, *one_view(), 33, 33, backend=backend)
    assert image[0, 16, 16].tolist() == pytest.approx([0.9, 0.1 * 0.8, 0], abs=1e-4)
    assert alpha[0, 16, 16].item() == pytest.approx(1 - 0.1 * 0.2, abs=1e-4)


@pytest.mark.parametrize('seed', [0, 1])
def test_image_matches_the_plain_loop(backend, random_cloud, seed):
    cloud = random_cloud(40, seed=seed)
    cloud = cloud.replace(log_scales=cloud.log_scales + 1, opacity_logits=cloud.opacity_logits + 2)
    viewmats, cameras = views(2, 22, 17, distance=2.5)
    image, alpha = ops.render(cloud, viewmats, cameras, 22, 17, backend=backend)
    for view in range(2):
        expected, expected_alpha = plain_loop(cloud, viewmats[view], cameras[view], 22, 17)
        assert expected_alpha.max() > 0.9
        np.testing.assert_allclose(image[view], expected, atol=1e-4)
        np.testing.assert_allclose(alpha[view], expected_alpha, atol=1e-4)


def test_finished_pixels_do_not_change(backend):
    # The second Gaussian would leave 5e-5 of the light, below the limit of 1e-4. The pixel ends before it, so the weak
    # third one is skipped too.
    cloud = gaussians([[0.0, 0.0, 0.6], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]], 2.0, [0.99, 0.995, 0.5],
                      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    image, alpha = ops.render(cloud, *one_view(5, 5), 5, 5, backend=backend)
    assert image[0, 2, 2].tolist() == pytest.approx([0.99, 0, 0], abs=1e-4)
    assert alpha[0, 2, 2].item() == pytest.approx(0.99, abs=1e-4)


def test_background_fills_the_remaining_alpha(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(50), views(2, 20, 24)
    black, alpha = ops.render(cloud, viewmats, cameras, 20, 24, backend=backend)
    background = torch.tensor([0.2, 0.7, 1.0], requires_grad=True)
    image, same_alpha = ops.render(cloud, viewmats, cameras, 20, 24, background, backend=backend)
    assert torch.equal(alpha, same_alpha)
    assert torch.allclose(image, black + (1 - alpha)[..., None] * background, atol=1e-6)
    image.sum().backward()
    assert background.grad.tolist() == pytest.approx([(1 - alpha).sum().item()] * 3, rel=1e-5)


@pytest.mark.parametrize('means', [[0.0, 0.0, 5.0], [0.0, 0.0, 2.995], [40.0, 0.0, 0.0]],
                         ids=['behind', 'in front of the near plane', 'beside'])
def test_invisible_gaussians_leave_the_background(backend, means):
    cloud = gaussians(means).apply(torch.Tensor.requires_grad_)
    image, alpha = ops.render(cloud, *one_view(), 33, 33, (0.1, 0.2, 0.3), backend=backend)
    assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).expand(1, 33, 33, 3)) and not alpha.any()
    (image.sum() + alpha.sum()).backward()
    assert all(not value.grad.any() for _, value in cloud.fields())


def test_empty_cloud_renders_the_background(backend):
    image, alpha = ops.render(gaussians(torch.zeros(0, 3)), *one_view(7, 5), 7, 5, (0.1, 0.2, 0.3), backend=backend)
    assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).expand(1, 5, 7, 3)) and not alpha.any()


@pytest.mark.parametrize('width, height', [(1, 1), (3, 17), (18, 5), (17, 16)])
def test_any_image_size_matches_the_plain_loop(backend, random_cloud, width, height):
    cloud = random_cloud(30, seed=4)
    viewmats, cameras = ops.sphere_cameras(1, 2.5), ops.intrinsics(110, width, height)[None]
    image, alpha = ops.render(cloud, viewmats, cameras, width, height, backend=backend)
    expected, expected_alpha = plain_loop(cloud, viewmats[0], cameras[0], width, height)
    assert expected_alpha.max() > 0
    np.testing.assert_allclose(image[0], expected, atol=1e-4)
    np.testing.assert_allclose(alpha[0], expected_alpha, atol=1e-4)


def test_several_views_match_single_views(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(60, sh_degree=1), views(3, 20, 20)
    image, alpha = ops.render(cloud, viewmats, cameras, 20, 20, backend=backend)
    for view in range(3):
        alone, alone_alpha = ops.render(cloud, viewmats[view:view + 1], cameras[:1], 20, 20, backend=backend)
        assert torch.equal(image[view], alone[0]) and torch.equal(alpha[view], alone_alpha[0])


def test_image_does_not_depend_on_order_or_quaternion_norm(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(200, seed=2), views(1, 32, 32)
    image, _ = ops.render(cloud, viewmats, cameras, 32, 32, backend=backend)
    shuffled = cloud[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    shuffled = shuffled.replace(quats=-3.7 * shuffled.quats)
    again, _ = ops.render(shuffled, viewmats, cameras, 32, 32, backend=backend)
    assert torch.allclose(image, again, atol=1e-5)


def test_image_does_not_depend_on_the_unit(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(100, seed=3), views(1, 32, 32)
    image, _ = ops.render(cloud, viewmats, cameras, 32, 32, backend=backend)
    scaled, far = cloud.translate_scale(torch.zeros(3), 50.0), viewmats.clone()
    far[:, :3, 3] *= 50
    again, _ = ops.render(scaled, far, cameras, 32, 32, backend=backend)
    assert torch.allclose(image, again, atol=1e-4)


# Backends and errors

def test_auto_is_numba_on_the_cpu(random_cloud):
    cloud, scene = random_cloud(100), views(1, 20, 20)
    assert torch.equal(ops.render(cloud, *scene, 20, 20)[0], ops.render(cloud, *scene, 20, 20, backend='cpu')[0])


@pytest.mark.parametrize('change, message', [
    (dict(viewmats=torch.eye(4)), r'viewmats has shape \(4, 4\), expected \(V, 4, 4\)'),
    (dict(intrinsics=torch.eye(3)), r'expected \(2, 3, 3\), one per view'),
    (dict(width=0), 'width=0'),
    (dict(near=0.0), 'near=0.0'),
    (dict(sh_degree=2), 'sh_degree=2: expected 0 to 1'),
    (dict(background=(1.0, 1.0)), r'background has shape \(2,\)'),
    (dict(backend='opengl'), "backend='opengl': expected 'auto' or one of"),
    (dict(backend='gsplat'), 'works on cuda, got tensors on cpu'),
])
def test_misuse_is_explained(random_cloud, change, message):
    viewmats, cameras = views(2, 8, 8)
    arguments = dict(viewmats=viewmats, intrinsics=cameras, width=8, height=8) | change
    with pytest.raises(ValueError, match=message):
        ops.render(random_cloud(5, sh_degree=1), **arguments)
