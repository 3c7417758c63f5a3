"""Rasterisation."""
from __future__ import annotations

import torch

from clipgs_plugin.tools.benchmarks.inputs import surface_gaussians
from clipgs_plugin.tools.benchmarks.timing import Case, compare, on_threads


def render(points: int = 10_000, size: int = 128, threads: str = '1,2') -> list[Case]:
    """Time rasterisation of one view on the CPU, forward and backward; baseline: the reference in torch."""
    from clipgs_plugin import ops

    cloud = surface_gaussians(points)
    viewmat = ops.sphere_cameras(1, 3.2, elevation=40.0)
    camera = ops.intrinsics(40, size, size)[None]
    fitted = cloud.apply(lambda x: x.clone().requires_grad_())
    picture, alpha = ops.render(cloud, viewmat, camera, size, size)
    target = picture.flip(1)
    standard = (points, size) == (10_000, 128)

    def step(backend: str) -> None:
        image, _ = ops.render(fitted, viewmat, camera, size, size, backend=backend)
        torch.autograd.grad((image - target).abs().mean(), [value for _, value in fitted.fields()])

    def cases() -> list[Case]:
        budgeted = standard and torch.get_num_threads() == 2
        backends = ('reference', 'cpu')
        return [
            *compare('forward', {b: lambda b=b: ops.render(cloud, viewmat, camera, size, size, backend=b)
                                 for b in backends}, 1, 'view', {'cpu': 5} if budgeted else None,
                     {'cpu': f'covers {(alpha > 0.5).float().mean():.0%}'}),
            *compare('forward, L1 and backward', {b: lambda b=b: step(b) for b in backends}, 1, 'view',
                     {'cpu': 12} if budgeted else None),
        ]
    return on_threads(threads, cases)
