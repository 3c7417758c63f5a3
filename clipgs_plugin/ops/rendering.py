"""Differentiable rendering of Gaussians.

Rasterisation follows INRIA's 3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023)
and gsplat, with the constants of gsplat 1.5 where the two differ:

- EWA projection, linearised at the mean. The 2D covariance grows by 0.3 square pixels, and opacity is not compensated
  for it (``rasterize_mode='classic'``). Pixel centres are at 0.5. Gaussians in front of the near plane are dropped.
- Sorted by depth, blended front to back. Alpha is clipped to 0.999 (INRIA: 0.99) and skipped below 1/255, which bounds
  the footprint exactly (INRIA: three standard deviations, whole tiles). A pixel skips every Gaussian that would reduce
  its transmittance below 1e-4.
- The colour of a Gaussian is max(0, 0.5 + SH(direction from the camera)). Images are not clipped at 1.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgs_plugin.ops.backends import load_backend

if TYPE_CHECKING:
    from clipgs_plugin.structures import GaussianCloud


def render(
    cloud: GaussianCloud,
    viewmats: Tensor,    # (V, 4, 4) world to camera, OpenCV axes
    intrinsics: Tensor,  # (V, 3, 3) pixels
    width: int,
    height: int,
    background: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    sh_degree: int | None = None,
    backend: str = 'auto',
    near: float = 0.01,
    blur: float = 0.3,
) -> tuple[Tensor, Tensor]:
    """Render an object from several cameras.

    Args:
        cloud: N Gaussians; all five raw parameters receive gradients.
        viewmats: World to camera in OpenCV axes (x right, y down, z forward), (V, 4, 4).
        intrinsics: Intrinsics of pinhole cameras in pixels, (V, 3, 3).
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        background: Background colour, (3,).
        sh_degree: Highest SH band to use; None uses all bands.
        backend: ``'cpu'`` (numba, float32), ``'gsplat'`` (CUDA, float32), ``'reference'`` (plain torch, float64, any
            device, slow, cameras differentiable too), or ``'auto'``: ``'cpu'`` or ``'gsplat'`` by device.
        near: Distance of the near plane, world units.
        blur: Variance added to the diagonal of 2D covariances, square pixels.

    Returns:
        Images (V, H, W, 3), sRGB, and alpha (V, H, W), in the dtype of the cloud.

    Raises:
        ValueError: A shape, the degree or the backend is wrong.
        ModuleNotFoundError: The backend's package is not installed.
    """
    _check_cameras(viewmats, intrinsics, (), width, height, near)
    degree = cloud.sh_degree if sh_degree is None else sh_degree
    if not 0 <= degree <= cloud.sh_degree:
        raise ValueError(f'sh_degree={sh_degree}: expected 0 to {cloud.sh_degree}, the degree of the cloud')
    colors, alphas = load_backend('render', backend, cloud.device).rasterise(
        cloud.means, cloud.quats, cloud.log_scales, cloud.opacity_logits, cloud.sh[:, :(degree + 1) ** 2],
        viewmats.to(cloud.device), intrinsics.to(cloud.device), width, height, near, blur)
    return _compose(background, colors, alphas)


def render_batch(
    clouds: Sequence[GaussianCloud],
    viewmats: Tensor,    # (B, V, 4, 4) world to camera, OpenCV axes
    intrinsics: Tensor,  # (B, V, 3, 3) pixels
    width: int,
    height: int,
    background: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    backend: str = 'auto',
    near: float = 0.01,
    blur: float = 0.3,
) -> tuple[Tensor, Tensor]:
    """Render several objects, each from its own cameras.

    The images equal those of :func:`render`. On CUDA one call of the rasteriser renders all objects, which fills a GPU
    if objects and images are small. Elsewhere objects are rendered one by one.

    Args:
        clouds: B objects on one device, of any number of Gaussians. Lower SH degrees are padded with zero bands.
        viewmats: World to camera in OpenCV axes, (B, V, 4, 4).
        intrinsics: Intrinsics of pinhole cameras in pixels, (B, V, 3, 3).
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        background: Background colour, (3,).
        backend: Backend of :func:`render`.
        near: Distance of the near plane, world units.
        blur: Variance added to the diagonal of 2D covariances, square pixels.

    Returns:
        Images (B, V, H, W, 3), sRGB, and alpha (B, V, H, W), in the dtype of the clouds.

    Raises:
        ValueError: A shape, a device or the backend is wrong.
        ModuleNotFoundError: The backend's package is not installed.
    """
    devices = {cloud.device for cloud in clouds}
    if len(devices) != 1:
        raise ValueError(f'{len(clouds)} clouds on {sorted(map(str, devices))}: expected at least one, all on one '
                         'device')
    _check_cameras(viewmats, intrinsics, (len(clouds),), width, height, near)
    device, degree = devices.pop(), max(cloud.sh_degree for cloud in clouds)
    fields = [[x for _, x in (c if c.sh_degree == degree else c.with_sh_degree(degree)).fields()] for c in clouds]
    module = load_backend('render', backend, device)
    rasterise_batch = getattr(module, 'rasterise_batch', partial(_one_by_one, module.rasterise))
    colors, alphas = rasterise_batch(fields, viewmats.to(device), intrinsics.to(device), width, height, near, blur)
    return _compose(background, colors, alphas)


def _one_by_one(rasterise: Callable, clouds: list[list[Tensor]], viewmats: Tensor, intrinsics: Tensor,
                *settings) -> tuple[Tensor, Tensor]:
    drawn = [rasterise(*cloud, *cameras, *settings) for *cameras, cloud in zip(viewmats, intrinsics, clouds)]
    return torch.stack([colors for colors, _ in drawn]), torch.stack([alphas for _, alphas in drawn])


def _check_cameras(viewmats: Tensor, intrinsics: Tensor, batch: tuple[int, ...], width: int, height: int,
                   near: float) -> None:
    """Check that cameras have shapes (*batch, V, 4, 4) and (*batch, V, 3, 3), and images a size."""
    found = tuple(viewmats.shape)
    leading = ''.join(f'{size}, ' for size in batch) + 'V'
    if len(found) != len(batch) + 3 or found[:-3] != batch or found[-2:] != (4, 4):
        raise ValueError(f'viewmats has shape {found}, expected ({leading}, 4, 4)')
    if tuple(intrinsics.shape) != (*found[:-2], 3, 3):
        raise ValueError(f'intrinsics has shape {tuple(intrinsics.shape)}, expected {(*found[:-2], 3, 3)}, one per '
                         f'view; repeat a shared one with intrinsics.expand({leading}, 3, 3)')
    if width < 1 or height < 1 or not near > 0:
        raise ValueError(f'width={width}, height={height}, near={near}: expected positive numbers')


def _compose(background: Tensor | tuple[float, float, float], colors: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Return images on a background, and their alpha."""
    background = torch.as_tensor(background, dtype=colors.dtype, device=colors.device)
    if background.shape != (3,):
        raise ValueError(f'background has shape {tuple(background.shape)}, expected (3,)')
    return colors + (1 - alphas)[..., None] * background, alphas
