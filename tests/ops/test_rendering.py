"""Rendered pictures against closed forms and a plain loop; the fast kernels against the reference."""
import multiprocessing
import sys
import types

import numpy as np
import pytest
import torch
from conftest import START_METHODS, run_python
from gsplat_stand_in import stand_in

from clipgs_plugin import GaussianCloud, ops, read_gaussians
from clipgs_plugin.ops import rendering
from clipgs_plugin.ops.backends import load_backend
from clipgs_plugin.ops.spherical_harmonics import C0, C1

BACKENDS = [name for name in ops.available_backends('render') if name != 'gsplat']
PICTURE_TOLERANCE = 1e-4    # maximum, between the reference and float32 kernels; a footprint's edge is worth 4e-3
GRADIENT_TOLERANCE = 1e-2   # of a parameter's gradient, in norm


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def gaussians(means, scale=0.1, opacity=0.8, rgb=(1.0, 1.0, 1.0), quats=None, dtype=torch.float32):
    """Gaussians of given means; scale, opacity and colour of all of them or of each."""
    means = torch.as_tensor(means, dtype=dtype).reshape(-1, 3)
    n = len(means)
    fill = lambda value, *shape: torch.as_tensor(value, dtype=dtype).expand(n, *shape).clone()  # noqa: E731
    quats = fill([1.0, 0.0, 0.0, 0.0] if quats is None else quats, 4)
    return GaussianCloud(means, quats, fill(scale, 3).log(), torch.logit(fill(opacity)),
                         ((fill(rgb, 3) - 0.5) / C0)[:, None])


def one_view(width=33, height=33, fov=40.0, distance=3.0):
    """A camera on +z that looks at the origin."""
    return ops.look_at((0.0, 0.0, distance))[None], ops.intrinsics(fov, width, height)[None]


def views(count, width, height, distance=3.2):
    return ops.sphere_cameras(count, distance), ops.intrinsics(40, width, height).expand(count, 3, 3)


def rotation_matrix(q):
    """By Rodrigues' formula, float64."""
    q = np.asarray(q, dtype=np.float64) / np.linalg.norm(q)
    angle = 2 * np.arctan2(np.linalg.norm(q[1:]), q[0])
    axis = q[1:] / max(np.linalg.norm(q[1:]), 1e-12)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def footprint(cloud, n, viewmat, camera):
    """Centre and covariance in pixels and depth of a Gaussian; the Jacobian by central differences."""
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
    """The definition of the picture, pixel by pixel and Gaussian by Gaussian; SH degree 0."""
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


# One Gaussian

def test_round_gaussian_on_the_axis_is_the_closed_form(backend):
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


@pytest.mark.parametrize('logit, expected', [(60.0, 0.999), (8.0, 0.999), (0.0, 0.5), (-5.0, 1 / (1 + np.exp(5.0))),
                                             (-5.6, 0.0), (-60.0, 0.0)])
def test_opacity_is_clipped_above_and_skipped_below(backend, logit, expected):
    cloud = gaussians([0.0, 0.0, 0.0]).replace(opacity_logits=torch.tensor([logit]))
    _, alpha = ops.render(cloud, *one_view(), 33, 33, backend=backend)
    assert alpha[0, 16, 16].item() == pytest.approx(expected, abs=1e-5)


def test_clipped_alpha_has_no_gradient_but_its_colour_has(backend):
    cloud = gaussians([0.0, 0.0, 0.0], 50.0).replace(opacity_logits=torch.tensor([9.0]))
    cloud = cloud.apply(torch.Tensor.requires_grad_)
    image, _ = ops.render(cloud, *one_view(5, 5), 5, 5, backend=backend)
    image.sum().backward()
    assert cloud.opacity_logits.grad.item() == 0 and cloud.log_scales.grad.abs().max() == 0
    assert cloud.sh.grad.flatten().tolist() == pytest.approx([25 * 0.999 * C0] * 3, rel=1e-5)


def test_colour_turns_with_the_direction_and_is_clamped_at_zero(backend):
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


# Several

@pytest.mark.parametrize('front_first', [True, False])
def test_nearer_hides_farther_whatever_their_order(backend, front_first):
    cloud = gaussians([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]], 0.3, [0.9, 0.8], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    cloud = cloud if front_first else cloud[torch.tensor([1, 0])]
    image, alpha = ops.render(cloud, *one_view(), 33, 33, backend=backend)
    assert image[0, 16, 16].tolist() == pytest.approx([0.9, 0.1 * 0.8, 0], abs=1e-4)
    assert alpha[0, 16, 16].item() == pytest.approx(1 - 0.1 * 0.2, abs=1e-4)


@pytest.mark.parametrize('seed', [0, 1])
def test_picture_is_the_plain_loops(backend, random_cloud, seed):
    cloud = random_cloud(40, seed=seed)
    cloud = cloud.replace(log_scales=cloud.log_scales + 1, opacity_logits=cloud.opacity_logits + 2)
    viewmats, cameras = views(2, 22, 17, distance=2.5)
    image, alpha = ops.render(cloud, viewmats, cameras, 22, 17, backend=backend)
    for view in range(2):
        expected, expected_alpha = plain_loop(cloud, viewmats[view], cameras[view], 22, 17)
        assert expected_alpha.max() > 0.9
        np.testing.assert_allclose(image[view], expected, atol=1e-4)
        np.testing.assert_allclose(alpha[view], expected_alpha, atol=1e-4)


def test_finished_pixels_take_nothing_more(backend):
    # 0.999 thrice would leave 1e-9: the second Gaussian is refused, and so is the weak one behind it.
    cloud = gaussians([[0.0, 0.0, 0.6], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]], 2.0, [0.99, 0.995, 0.5],
                      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    image, alpha = ops.render(cloud, *one_view(5, 5), 5, 5, backend=backend)
    assert image[0, 2, 2].tolist() == pytest.approx([0.99, 0, 0], abs=1e-4)
    assert alpha[0, 2, 2].item() == pytest.approx(0.99, abs=1e-4)


def test_background_shows_where_the_object_does_not(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(50), views(2, 20, 24)
    black, alpha = ops.render(cloud, viewmats, cameras, 20, 24, backend=backend)
    background = torch.tensor([0.2, 0.7, 1.0], requires_grad=True)
    image, same_alpha = ops.render(cloud, viewmats, cameras, 20, 24, background, backend=backend)
    assert torch.equal(alpha, same_alpha)
    assert torch.allclose(image, black + (1 - alpha)[..., None] * background, atol=1e-6)
    image.sum().backward()
    assert background.grad.tolist() == pytest.approx([(1 - alpha).sum().item()] * 3, rel=1e-5)


@pytest.mark.parametrize('means', [[0.0, 0.0, 5.0], [0.0, 0.0, 2.995], [40.0, 0.0, 0.0]],
                         ids=['behind', 'before the near plane', 'beside'])
def test_what_is_not_in_sight_leaves_the_background(backend, means):
    cloud = gaussians(means).apply(torch.Tensor.requires_grad_)
    image, alpha = ops.render(cloud, *one_view(), 33, 33, (0.1, 0.2, 0.3), backend=backend)
    assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).expand(1, 33, 33, 3)) and not alpha.any()
    (image.sum() + alpha.sum()).backward()
    assert all(not value.grad.any() for _, value in cloud.fields())


def test_cloud_of_nothing_renders_the_background(backend):
    image, alpha = ops.render(gaussians(torch.zeros(0, 3)), *one_view(7, 5), 7, 5, (0.1, 0.2, 0.3), backend=backend)
    assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).expand(1, 5, 7, 3)) and not alpha.any()


@pytest.mark.parametrize('width, height', [(1, 1), (3, 17), (18, 5), (17, 16)])
def test_any_size_of_picture(backend, random_cloud, width, height):
    cloud = random_cloud(30, seed=4)
    viewmats, cameras = ops.sphere_cameras(1, 2.5), ops.intrinsics(110, width, height)[None]
    image, alpha = ops.render(cloud, viewmats, cameras, width, height, backend=backend)
    expected, expected_alpha = plain_loop(cloud, viewmats[0], cameras[0], width, height)
    assert expected_alpha.max() > 0
    np.testing.assert_allclose(image[0], expected, atol=1e-4)
    np.testing.assert_allclose(alpha[0], expected_alpha, atol=1e-4)


def test_views_together_are_the_views_alone(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(60, sh_degree=1), views(3, 20, 20)
    image, alpha = ops.render(cloud, viewmats, cameras, 20, 20, backend=backend)
    for view in range(3):
        alone, alone_alpha = ops.render(cloud, viewmats[view:view + 1], cameras[:1], 20, 20, backend=backend)
        assert torch.equal(image[view], alone[0]) and torch.equal(alpha[view], alone_alpha[0])


def test_picture_does_not_depend_on_order_or_on_the_quaternions_norm(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(200, seed=2), views(1, 32, 32)
    image, _ = ops.render(cloud, viewmats, cameras, 32, 32, backend=backend)
    shuffled = cloud[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    shuffled = shuffled.replace(quats=-3.7 * shuffled.quats)
    again, _ = ops.render(shuffled, viewmats, cameras, 32, 32, backend=backend)
    assert torch.allclose(image, again, atol=1e-5)


def test_units_of_the_world_do_not_matter(backend, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(100, seed=3), views(1, 32, 32)
    image, _ = ops.render(cloud, viewmats, cameras, 32, 32, backend=backend)
    scaled, far = cloud.translate_scale(torch.zeros(3), 50.0), viewmats.clone()
    far[:, :3, 3] *= 50
    again, _ = ops.render(scaled, far, cameras, 32, 32, backend=backend)
    assert torch.allclose(image, again, atol=1e-4)


# Gradients

def picture_and_gradients(cloud, viewmats, cameras, width, height, backend):
    cloud = cloud.apply(lambda x: x.detach().clone().requires_grad_())
    image, alpha = ops.render(cloud, viewmats, cameras, width, height, (0.2, 0.5, 1.0), backend=backend)
    weights = torch.randn(*image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    ((image - weights).square().sum() + (alpha * weights[..., 0]).sum()).backward()
    return image.detach(), {name: value.grad for name, value in cloud.fields()}


def assert_agree(found, expected):
    (image, grads), (expected_image, expected_grads) = found, expected
    assert (image - expected_image).abs().max() <= PICTURE_TOLERANCE
    for name, reference in expected_grads.items():
        grad = grads[name].double().flatten()
        reference = reference.double().flatten()
        assert reference.norm() > 0, name
        assert (grad - reference).norm() <= GRADIENT_TOLERANCE * reference.norm(), name
        assert torch.corrcoef(torch.stack([grad, reference]))[0, 1] > 0.9999, name


def test_reference_gradients_are_numerical_ones():
    cloud = gaussians([[0.1, 0.0, 0.2], [-0.15, 0.1, -0.1], [0.05, -0.2, 0.0]], [[0.2, 0.3, 0.25]], [0.3, 0.5, 0.4],
                      [[0.9, 0.2, 0.4], [0.1, 0.8, 0.3], [0.5, 0.6, 0.9]], quats=[0.8, 0.3, -0.4, 0.2],
                      dtype=torch.float64).with_sh_degree(2)
    generator = torch.Generator().manual_seed(0)
    sh = cloud.sh + 0.05 * torch.randn(cloud.sh.shape, generator=generator, dtype=torch.float64)
    viewmats, cameras = (x.double() for x in one_view(4, 3, fov=12.0))  # all pixels lie well inside the footprints
    parameters = [x.requires_grad_() for x in (cloud.means, cloud.quats, cloud.log_scales, cloud.opacity_logits, sh)]
    assert torch.autograd.gradcheck(
        lambda *fields: ops.render(GaussianCloud(*fields), viewmats, cameras, 4, 3, backend='reference'), parameters)


@pytest.mark.parametrize('sh_degree', [0, 1, 2, 3])
@pytest.mark.parametrize('width, height, distance', [(37, 30, 3.2), (24, 40, 1.25)], ids=['outside', 'among them'])
def test_numba_agrees_with_the_reference(random_cloud, sh_degree, width, height, distance):
    cloud, scene = random_cloud(400, seed=sh_degree, sh_degree=sh_degree), views(2, width, height, distance)
    assert_agree(picture_and_gradients(cloud, *scene, width, height, 'cpu'),
                 picture_and_gradients(cloud, *scene, width, height, 'reference'))


@pytest.mark.parametrize('name', ['camera.ply', 'potted_plant.splat', 'fruit_drops_sh3.ply'])
def test_numba_agrees_with_the_reference_on_real_splats(splats, name):
    cloud = read_gaussians(splats / name).normalise()
    scene = views(1, 40, 40, distance=1.5)
    assert_agree(picture_and_gradients(cloud, *scene, 40, 40, 'cpu'),
                 picture_and_gradients(cloud, *scene, 40, 40, 'reference'))


def test_gradients_lead_an_object_to_its_picture(random_cloud):
    target, scene = random_cloud(150, seed=5), views(4, 32, 32)
    with torch.no_grad():
        pictures, _ = ops.render(target, *scene, 32, 32)
    g = torch.Generator().manual_seed(1)
    cloud = target.apply(lambda x: (x + 0.05 * torch.randn(x.shape, generator=g)).requires_grad_())
    optimizer = torch.optim.Adam([value for _, value in cloud.fields()], lr=5e-3)
    losses = []
    for _ in range(60):
        image, _ = ops.render(cloud, *scene, 32, 32)
        loss = (image - pictures).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_reference_moves_cameras_and_numba_says_it_cannot(random_cloud):
    cloud, (viewmats, cameras) = random_cloud(30), views(1, 16, 16)
    viewmats.requires_grad_()
    ops.render(cloud, viewmats, cameras, 16, 16, backend='reference')[0].sum().backward()
    assert viewmats.grad[0, :3].abs().min() > 0
    with pytest.raises(ValueError, match='gives cameras no gradients'):
        ops.render(cloud, viewmats, cameras, 16, 16, backend='cpu')


@pytest.mark.parametrize('changed', ['means', 'alpha'])
def test_values_changed_before_the_backward_pass_are_noticed(random_cloud, changed):
    cloud = random_cloud(30).apply(torch.Tensor.requires_grad_)
    image, alpha = ops.render(cloud, *views(1, 16, 16), 16, 16, backend='cpu')
    loss = image.sum() + alpha.sum()
    with torch.no_grad():
        (cloud.means if changed == 'means' else alpha).add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_dtype_of_the_cloud_returns(backend, random_cloud, dtype):
    cloud, scene = random_cloud(60, dtype=torch.float32), views(1, 16, 16)
    rounded = cloud.to(dtype)
    image, alpha = ops.render(rounded, *scene, 16, 16, backend=backend)
    expected, _ = ops.render(rounded.to(torch.float32), *scene, 16, 16, backend=backend)
    assert image.dtype == alpha.dtype == dtype
    assert torch.allclose(image.float(), expected, atol=1e-2 if dtype == torch.bfloat16 else 1e-5)


# Threads and processes

def test_number_of_threads_does_not_change_the_picture(random_cloud, set_threads):
    cloud, scene = random_cloud(500, seed=6), views(1, 45, 39)
    results = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        results.append(picture_and_gradients(cloud, *scene, 45, 39, 'cpu'))
    for image, grads in results[1:]:
        assert torch.equal(image, results[0][0])
        for name, grad in grads.items():  # sums over bands are grouped differently
            assert torch.allclose(grad, results[0][1][name], rtol=1e-3, atol=1e-3), name


def _render_in_worker(queue, cloud, scene):
    queue.put(ops.render(cloud, *scene, 24, 24)[0].numpy())


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('method', START_METHODS)
def test_workers_render_after_their_parent_did(random_cloud, method):
    cloud, scene = random_cloud(100), views(1, 24, 24)
    expected, _ = ops.render(cloud, *scene, 24, 24)  # the parent's pool of threads is up
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=_render_in_worker, args=(queue, cloud, scene))
    worker.start()
    worker.join(120)
    alive = worker.is_alive()
    worker.kill()
    assert not alive, 'the worker hangs'
    assert worker.exitcode == 0
    np.testing.assert_allclose(queue.get(), expected, atol=1e-6)


def test_import_leaves_numba_alone():
    code = ('import sys, clipgs_plugin; from clipgs_plugin.ops import render, sphere_cameras; '
            'print([name for name in ("numba", "gsplat") if name in sys.modules])')
    assert run_python(code) == '[]'


# Choice of backend, and errors

def test_auto_is_numba_on_the_cpu(random_cloud):
    cloud, scene = random_cloud(100), views(1, 20, 20)
    assert torch.equal(ops.render(cloud, *scene, 20, 20)[0], ops.render(cloud, *scene, 20, 20, backend='cpu')[0])


def test_missing_gsplat_is_named_with_its_install_command():
    if 'gsplat' in ops.available_backends('render'):
        pytest.skip('gsplat is installed')
    for backend in ('auto', 'gsplat'):
        with pytest.raises(ModuleNotFoundError, match='pip install gsplat'):
            load_backend('render', backend, torch.device('cuda'))


def test_gsplat_is_called_by_its_documented_signature(monkeypatch, random_cloud):
    from clipgs_plugin.ops.kernels import raster_gsplat
    cloud, (viewmats, cameras) = random_cloud(20, sh_degree=2), views(2, 12, 10)
    seen = {}

    # The signature of gsplat 1.5.
    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01,
                      far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=None, packed=True, tile_size=16,
                      backgrounds=None, render_mode='RGB', sparse_grad=False, absgrad=False,
                      rasterize_mode='classic', channel_chunk=32, distributed=False, camera_model='pinhole',
                      segmented=False, covars=None):
        seen.update(locals())
        return torch.ones(2, height, width, 3), torch.ones(2, height, width, 1), {}

    monkeypatch.setitem(sys.modules, 'gsplat', types.SimpleNamespace(rasterization=rasterization))
    fields = [value for _, value in cloud.fields()]
    image, alpha = raster_gsplat.rasterise(*fields, viewmats, cameras, 12, 10, 0.02, 0.4)
    assert image.shape == (2, 10, 12, 3) and alpha.shape == (2, 10, 12)
    assert torch.equal(seen['scales'], cloud.scales) and torch.equal(seen['opacities'], cloud.opacities)
    assert torch.equal(seen['colors'], cloud.sh) and seen['sh_degree'] == 2 and seen['rasterize_mode'] == 'classic'
    assert (seen['near_plane'], seen['eps2d'], seen['width'], seen['height']) == (0.02, 0.4, 12, 10)


# Several clouds at once

def batch_of(random_cloud):
    """Clouds of different sizes, and two cameras of each."""
    clouds = [random_cloud(count, seed=seed, sh_degree=degree) for seed, (count, degree) in
              enumerate([(60, 1), (25, 0), (60, 1)])]
    viewmats, cameras = views(6, 20, 16)
    return clouds, viewmats.unflatten(0, (3, 2)), cameras.reshape(3, 2, 3, 3)


def batch_and_gradients(render, clouds, viewmats, cameras):
    clouds = [cloud.apply(lambda x: x.detach().clone().requires_grad_()) for cloud in clouds]
    image, alpha = render(clouds, viewmats, cameras)
    weights = torch.randn(*image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    ((image - weights).square().sum() + (alpha * weights[..., 0]).sum()).backward()
    return image.detach(), alpha.detach(), [{name: x.grad for name, x in cloud.fields()} for cloud in clouds]


def by_themselves(clouds, viewmats, cameras):
    drawn = [ops.render(cloud, *scene, 20, 16, (0.2, 0.5, 1.0), backend='reference')
             for *scene, cloud in zip(viewmats, cameras, clouds)]
    return tuple(torch.stack(x) for x in zip(*drawn))


@pytest.mark.parametrize('backend', ['cpu', 'reference', 'gsplat'])
def test_clouds_of_a_batch_look_as_they_do_alone(monkeypatch, random_cloud, backend):
    scene, (gsplat, calls) = batch_of(random_cloud), stand_in()
    with monkeypatch.context() as patch:
        if backend == 'gsplat':
            from clipgs_plugin.ops.kernels import raster_gsplat
            patch.setitem(sys.modules, 'gsplat', gsplat)
            patch.setattr(rendering, 'load_backend', lambda *_: raster_gsplat)
        found = batch_and_gradients(lambda *x: rendering.render_batch(*x, 20, 16, (0.2, 0.5, 1.0), backend), *scene)
    expected = batch_and_gradients(by_themselves, *scene)
    assert found[0].shape == (3, 2, 16, 20, 3) and found[1].shape == (3, 2, 16, 20)
    assert (found[1] - expected[1]).abs().max() <= PICTURE_TOLERANCE
    for image, grads, expected_image, expected_grads in zip(*found[::2], *expected[::2]):
        assert_agree((image, grads), (expected_image, expected_grads))
    assert calls == ([(3,)] if backend == 'gsplat' else [])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_gsplat_draws_a_batch_as_the_reference_does(random_cloud):
    pytest.importorskip('gsplat')
    clouds, viewmats, cameras = batch_of(random_cloud)
    scene = [cloud.to('cuda') for cloud in clouds], viewmats.cuda(), cameras.cuda()
    found = batch_and_gradients(lambda *x: rendering.render_batch(*x, 20, 16, (0.2, 0.5, 1.0)), *scene)
    expected = batch_and_gradients(by_themselves, *scene)
    for image, grads, expected_image, expected_grads in zip(*found[::2], *expected[::2]):
        assert_agree((image, grads), (expected_image, expected_grads))


@pytest.mark.parametrize('change, message', [
    (dict(clouds=[]), '0 clouds on'), (dict(viewmats=torch.eye(4).expand(2, 4, 4)), r'expected \(1, V, 4, 4\)'),
    (dict(intrinsics=torch.eye(3).expand(2, 3, 3)), r'expected \(1, 2, 3, 3\)'), (dict(width=0), 'width=0'),
    (dict(background=(1.0, 1.0)), r'background has shape \(2,\)')])
def test_misuse_of_a_batch_is_explained(random_cloud, change, message):
    viewmats, cameras = views(2, 8, 8)
    arguments = dict(clouds=[random_cloud(5)], viewmats=viewmats[None], intrinsics=cameras[None], width=8, height=8)
    with pytest.raises(ValueError, match=message):
        rendering.render_batch(**arguments | change)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_gsplat_agrees_with_the_reference(random_cloud):
    pytest.importorskip('gsplat')
    cloud, (viewmats, cameras) = random_cloud(400, sh_degree=3).to('cuda'), views(2, 37, 30)
    scene = viewmats.cuda(), cameras.cuda()
    assert_agree(picture_and_gradients(cloud, *scene, 37, 30, 'gsplat'),
                 picture_and_gradients(cloud, *scene, 37, 30, 'reference'))


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
