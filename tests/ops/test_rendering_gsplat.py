"""Rendering by gsplat, through its documented signature or on CUDA, and batches of clouds."""
import sys
import types

import pytest
import torch
from gsplat_stand_in import stand_in
from raster_scenes import IMAGE_TOLERANCE, assert_agree, image_and_gradients, views

from clipgs_plugin import ops
from clipgs_plugin.ops import rendering
from clipgs_plugin.ops.kernels import raster_gsplat


def test_gsplat_is_called_by_its_documented_signature(monkeypatch, random_cloud):
    cloud, (viewmats, cameras) = random_cloud(20, sh_degree=2), views(2, 12, 10)
    seen = {}

    # Signature of gsplat 1.5.
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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_gsplat_agrees_with_the_reference(random_cloud):
    pytest.importorskip('gsplat')
    cloud, (viewmats, cameras) = random_cloud(400, sh_degree=3).to('cuda'), views(2, 37, 30)
    scene = viewmats.cuda(), cameras.cuda()
    assert_agree(image_and_gradients(cloud, *scene, 37, 30, 'gsplat'),
                 image_and_gradients(cloud, *scene, 37, 30, 'reference'))


def batch_of(random_cloud):
    """Return clouds of different sizes, and two cameras per cloud."""
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


def one_by_one(clouds, viewmats, cameras):
    drawn = [ops.render(cloud, *scene, 20, 16, (0.2, 0.5, 1.0), backend='reference')
             for *scene, cloud in zip(viewmats, cameras, clouds)]
    return tuple(torch.stack(x) for x in zip(*drawn))


@pytest.mark.parametrize('backend', ['cpu', 'reference', 'gsplat'])
def test_batch_matches_single_clouds(monkeypatch, random_cloud, backend):
    scene, (gsplat, calls) = batch_of(random_cloud), stand_in()
    with monkeypatch.context() as patch:
        if backend == 'gsplat':
            from clipgs_plugin.ops.kernels import raster_gsplat
            patch.setitem(sys.modules, 'gsplat', gsplat)
            patch.setattr(rendering, 'load_backend', lambda *_: raster_gsplat)
        found = batch_and_gradients(lambda *x: rendering.render_batch(*x, 20, 16, (0.2, 0.5, 1.0), backend), *scene)
    expected = batch_and_gradients(one_by_one, *scene)
    assert found[0].shape == (3, 2, 16, 20, 3) and found[1].shape == (3, 2, 16, 20)
    assert (found[1] - expected[1]).abs().max() <= IMAGE_TOLERANCE
    for image, grads, expected_image, expected_grads in zip(*found[::2], *expected[::2]):
        assert_agree((image, grads), (expected_image, expected_grads))
    assert calls == ([(3,)] if backend == 'gsplat' else [])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_gsplat_batch_matches_the_reference(random_cloud):
    pytest.importorskip('gsplat')
    clouds, viewmats, cameras = batch_of(random_cloud)
    scene = [cloud.to('cuda') for cloud in clouds], viewmats.cuda(), cameras.cuda()
    found = batch_and_gradients(lambda *x: rendering.render_batch(*x, 20, 16, (0.2, 0.5, 1.0)), *scene)
    expected = batch_and_gradients(one_by_one, *scene)
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
