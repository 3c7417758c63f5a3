"""Gradients against numerical ones and the reference; threads and worker processes."""
import multiprocessing

import numpy as np
import pytest
import torch
from conftest import START_METHODS, run_python
from raster_scenes import BACKENDS, assert_agree, gaussians, image_and_gradients, one_view, views

from clipgs_plugin import GaussianCloud, ops, read_gaussians


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_reference_gradients_match_numerical_ones():
    cloud = gaussians([[0.1, 0.0, 0.2], [-0.15, 0.1, -0.1], [0.05, -0.2, 0.0]], [[0.2, 0.3, 0.25]], [0.3, 0.5, 0.4],
                      [[0.9, 0.2, 0.4], [0.1, 0.8, 0.3], [0.5, 0.6, 0.9]], quats=[0.8, 0.3, -0.4, 0.2],
                      dtype=torch.float64).with_sh_degree(2)
    generator = torch.Generator().manual_seed(0)
    sh = cloud.sh + 0.05 * torch.randn(cloud.sh.shape, generator=generator, dtype=torch.float64)
    viewmats, cameras = (x.double() for x in one_view(4, 3, fov=12.0))  # all pixels are well inside the footprints
    parameters = [x.requires_grad_() for x in (cloud.means, cloud.quats, cloud.log_scales, cloud.opacity_logits, sh)]
    assert torch.autograd.gradcheck(
        lambda *fields: ops.render(GaussianCloud(*fields), viewmats, cameras, 4, 3, backend='reference'), parameters)


@pytest.mark.parametrize('sh_degree', [0, 1, 2, 3])
@pytest.mark.parametrize('width, height, distance', [(37, 30, 3.2), (24, 40, 1.25)], ids=['outside', 'among them'])
def test_numba_agrees_with_the_reference(random_cloud, sh_degree, width, height, distance):
    cloud, scene = random_cloud(400, seed=sh_degree, sh_degree=sh_degree), views(2, width, height, distance)
    assert_agree(image_and_gradients(cloud, *scene, width, height, 'cpu'),
                 image_and_gradients(cloud, *scene, width, height, 'reference'))


@pytest.mark.parametrize('name', ['camera.ply', 'potted_plant.splat', 'fruit_drops_sh3.ply'])
def test_numba_agrees_with_the_reference_on_real_splats(splats, name):
    cloud = read_gaussians(splats / name).normalise()
    scene = views(1, 40, 40, distance=1.5)
    assert_agree(image_and_gradients(cloud, *scene, 40, 40, 'cpu'),
                 image_and_gradients(cloud, *scene, 40, 40, 'reference'))


def test_gradients_fit_an_object_to_its_images(random_cloud):
    target, scene = random_cloud(150, seed=5), views(4, 32, 32)
    with torch.no_grad():
        targets, _ = ops.render(target, *scene, 32, 32)
    g = torch.Generator().manual_seed(1)
    cloud = target.apply(lambda x: (x + 0.05 * torch.randn(x.shape, generator=g)).requires_grad_())
    optimizer = torch.optim.Adam([value for _, value in cloud.fields()], lr=5e-3)
    losses = []
    for _ in range(60):
        image, _ = ops.render(cloud, *scene, 32, 32)
        loss = (image - targets).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_reference_has_camera_gradients_and_numba_raises(random_cloud):
    cloud, (viewmats, cameras) = random_cloud(30), views(1, 16, 16)
    viewmats.requires_grad_()
    ops.render(cloud, viewmats, cameras, 16, 16, backend='reference')[0].sum().backward()
    assert viewmats.grad[0, :3].abs().min() > 0
    with pytest.raises(ValueError, match='no gradients of cameras'):
        ops.render(cloud, viewmats, cameras, 16, 16, backend='cpu')


@pytest.mark.parametrize('changed', ['means', 'alpha'])
def test_in_place_changes_before_the_backward_pass_raise(random_cloud, changed):
    cloud = random_cloud(30).apply(torch.Tensor.requires_grad_)
    image, alpha = ops.render(cloud, *views(1, 16, 16), 16, 16, backend='cpu')
    loss = image.sum() + alpha.sum()
    with torch.no_grad():
        (cloud.means if changed == 'means' else alpha).add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_images_have_the_dtype_of_the_cloud(backend, random_cloud, dtype):
    cloud, scene = random_cloud(60, dtype=torch.float32), views(1, 16, 16)
    rounded = cloud.to(dtype)
    image, alpha = ops.render(rounded, *scene, 16, 16, backend=backend)
    expected, _ = ops.render(rounded.to(torch.float32), *scene, 16, 16, backend=backend)
    assert image.dtype == alpha.dtype == dtype
    assert torch.allclose(image.float(), expected, atol=1e-2 if dtype == torch.bfloat16 else 1e-5)


# Threads and processes

def test_number_of_threads_does_not_change_the_image(random_cloud, set_threads):
    cloud, scene = random_cloud(500, seed=6), views(1, 45, 39)
    results = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        results.append(image_and_gradients(cloud, *scene, 45, 39, 'cpu'))
    for image, grads in results[1:]:
        assert torch.equal(image, results[0][0])
        for name, grad in grads.items():  # the order of sums over bands differs
            assert torch.allclose(grad, results[0][1][name], rtol=1e-3, atol=1e-3), name


def _render_in_worker(queue, cloud, scene):
    queue.put(ops.render(cloud, *scene, 24, 24)[0].numpy())


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('method', START_METHODS)
def test_workers_render_after_their_parent(random_cloud, method):
    cloud, scene = random_cloud(100), views(1, 24, 24)
    expected, _ = ops.render(cloud, *scene, 24, 24)  # starts the parent's threads
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


def test_import_does_not_load_numba():
    code = ('import sys, clipgs_plugin; from clipgs_plugin.ops import render, sphere_cameras; '
            'print([name for name in ("numba", "gsplat") if name in sys.modules])')
    assert run_python(code) == '[]'
