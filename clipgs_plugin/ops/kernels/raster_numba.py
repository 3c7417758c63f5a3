"""3D Gaussian rasterisation on the CPU in numba.

Three stages: projection of every Gaussian, a stable radix sort by depth, and compositing. The backward pass walks the
Gaussians front to back once more, with the light still to come in each pixel in place of the light so far, then goes
back through the projection.

Kernels release the interpreter's lock and work on a range of Gaussians or on a set of rows, so a small pool of Python
threads runs them. Numba's own threads are not used: they do not survive a fork, and spin while they wait.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops.kernels.raster_numba_compositing import composite, composite_backward, sort_by_depth
from clipgs_plugin.ops.kernels.raster_numba_layout import NUM_FIELDS, NUM_GRADIENTS
from clipgs_plugin.ops.kernels.raster_numba_projection import project, project_backward

MAX_THREADS = 4  # every band visits every Gaussian: more bands cost more set-up than they save


@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    """Return threads that wait without spinning; ``pid`` makes new ones after a fork, which does not copy threads."""
    return ThreadPoolExecutor(MAX_THREADS - 1, thread_name_prefix='clipgs-render')


def _num_parts() -> int:
    """Return the number of threads: that of torch, which is 1 in a data loader's worker, up to ``MAX_THREADS``."""
    return min(torch.get_num_threads(), MAX_THREADS)


def _run(parts: int, work: Callable[[int], None]) -> None:
    """Call ``work(part)`` for all parts concurrently, the first one in this thread."""
    others = [_pool(os.getpid()).submit(work, part) for part in range(1, parts)]
    work(0)
    for other in others:
        other.result()


def _ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """Split ``count`` Gaussians into ranges of equal size."""
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def _camera(viewmat: Tensor, intrinsic: Tensor) -> np.ndarray:
    viewmat, intrinsic = viewmat.detach().double().numpy(), intrinsic.detach().double().numpy()
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    focal_center = [intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]]
    return np.concatenate([viewmat[:3].ravel(), focal_center, -rotation.T @ translation])


class _View:
    """View of a cloud, drawn into ``color`` (H, W, 3) and ``alpha`` (H, W); it keeps the state of the backward pass."""

    def __init__(self, cloud: list[np.ndarray], camera: np.ndarray, near: float, blur: float, color: np.ndarray,
                 alpha: np.ndarray) -> None:
        (height, width), count, parts = alpha.shape, len(cloud[0]), _num_parts()
        self.cloud, self.camera, self.color, self.alpha = cloud, camera, color, alpha
        self.fields, self.rows = np.empty((count, NUM_FIELDS)), np.empty((count, 2), np.int32)
        self.depths = np.empty(count, np.float32)
        ranges = _ranges(count, parts)
        _run(parts, lambda part: project(*ranges[part], *cloud, camera, width, height, near, blur, self.fields,
                                         self.rows, self.depths))
        order, scratch = np.empty(count, np.int32), np.empty(count, np.int32)
        self.order = scratch[:sort_by_depth(self.depths, order, scratch)]
        _run(parts, lambda part: composite(part, parts, self.order, self.fields, self.rows, color, alpha))

    def backward(self, grad_color: np.ndarray, grad_alpha: np.ndarray, grad_cloud: list[np.ndarray]) -> None:
        """Add the gradients of the cloud's parameters to ``grad_cloud``."""
        (height, width), count, parts = self.alpha.shape, len(self.depths), _num_parts()
        gradients = np.empty((parts, count, NUM_GRADIENTS), np.float32)
        _run(parts, lambda part: composite_backward(part, parts, self.order, self.fields, self.rows, self.color,
                                                    self.alpha, grad_color, grad_alpha, gradients[part]))
        ranges = _ranges(count, parts)
        _run(parts, lambda part: project_backward(*ranges[part], *self.cloud, self.camera, width, height, self.fields,
                                                  self.depths, gradients, *grad_cloud))


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, log_scales, opacity_logits, sh, cameras, width, height, near, blur):
        tensors = means, quats, log_scales, opacity_logits, sh
        ctx.views = []
        cloud = [x.detach().contiguous().numpy() for x in tensors]
        colors, alphas = torch.empty(len(cameras), height, width, 3), torch.empty(len(cameras), height, width)
        for camera, color, alpha in zip(cameras, colors.numpy(), alphas.numpy()):
            view = _View(cloud, camera, near, blur, color, alpha)
            if any(ctx.needs_input_grad):
                ctx.views.append(view)
        ctx.save_for_backward(*tensors, colors, alphas)  # autograd then detects in-place changes
        return colors, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_colors, grad_alphas):
        grads = [torch.zeros(x.shape) for x in ctx.saved_tensors[:-2]]
        arrays = [grad.numpy() for grad in grads]
        grad_colors, grad_alphas = grad_colors.contiguous().numpy(), grad_alphas.contiguous().numpy()
        for view, grad_color, grad_alpha in zip(ctx.views, grad_colors, grad_alphas):
            view.backward(grad_color, grad_alpha, arrays)
        return *grads, None, None, None, None, None


def rasterise(
    means: Tensor, quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, sh: Tensor, viewmats: Tensor,
    intrinsics: Tensor, width: int, height: int, near: float, blur: float,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.raster_reference.rasterise` in float32, without camera gradients."""
    if viewmats.requires_grad or intrinsics.requires_grad:
        raise ValueError("backend='cpu' has no gradients of cameras; detach them, or use backend='reference'")
    dtype = means.dtype
    cloud = [x.float() for x in (means, quats, log_scales, opacity_logits, sh)]
    cameras = [_camera(viewmat, intrinsic) for viewmat, intrinsic in zip(viewmats, intrinsics)]
    colors, alphas = _Rasterise.apply(*cloud, cameras, width, height, near, blur)
    return colors.to(dtype), alphas.to(dtype)
