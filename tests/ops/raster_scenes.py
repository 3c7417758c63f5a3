"""Scenes of renderer tests, and the comparison of images and gradients."""
import torch

from clipgs_plugin import GaussianCloud, ops
from clipgs_plugin.ops.spherical_harmonics import C0

BACKENDS = [name for name in ops.available_backends('render') if name != 'gsplat']
IMAGE_TOLERANCE = 1e-4      # maximum difference of float32 kernels from the reference; a footprint's edge is worth 4e-3
GRADIENT_TOLERANCE = 1e-2   # norm of the difference, relative to the norm of a parameter's gradient


def gaussians(means, scale=0.1, opacity=0.8, rgb=(1.0, 1.0, 1.0), quats=None, dtype=torch.float32):
    """Return Gaussians of given means, with one or N scales, opacities and colours."""
    means = torch.as_tensor(means, dtype=dtype).reshape(-1, 3)
    n = len(means)
    fill = lambda value, *shape: torch.as_tensor(value, dtype=dtype).expand(n, *shape).clone()  # noqa: E731
    quats = fill([1.0, 0.0, 0.0, 0.0] if quats is None else quats, 4)
    return GaussianCloud(means, quats, fill(scale, 3).log(), torch.logit(fill(opacity)),
                         ((fill(rgb, 3) - 0.5) / C0)[:, None])


def one_view(width=33, height=33, fov=40.0, distance=3.0):
    """Return a camera on +z that looks at the origin."""
    return ops.look_at((0.0, 0.0, distance))[None], ops.intrinsics(fov, width, height)[None]


def views(count, width, height, distance=3.2):
    return ops.sphere_cameras(count, distance), ops.intrinsics(40, width, height).expand(count, 3, 3)


def image_and_gradients(cloud, viewmats, cameras, width, height, backend):
    cloud = cloud.apply(lambda x: x.detach().clone().requires_grad_())
    image, alpha = ops.render(cloud, viewmats, cameras, width, height, (0.2, 0.5, 1.0), backend=backend)
    weights = torch.randn(*image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    ((image - weights).square().sum() + (alpha * weights[..., 0]).sum()).backward()
    return image.detach(), {name: value.grad for name, value in cloud.fields()}


def assert_agree(found, expected):
    (image, grads), (expected_image, expected_grads) = found, expected
    assert (image - expected_image).abs().max() <= IMAGE_TOLERANCE
    for name, reference in expected_grads.items():
        grad = grads[name].double().flatten()
        reference = reference.double().flatten()
        assert reference.norm() > 0, name
        assert (grad - reference).norm() <= GRADIENT_TOLERANCE * reference.norm(), name
        assert torch.corrcoef(torch.stack([grad, reference]))[0, 1] > 0.9999, name
