"""3D Gaussian rasterisation on CUDA, by gsplat."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipgs_plugin.ops.kernels.raster_reference import view_colors

# Padding of shorter clouds: Gaussians too small and too transparent to be drawn.
_PADDING = dict(means=0.0, quats=1.0, log_scales=-10.0, opacity_logits=-30.0, sh=0.0)


def rasterise(
    means: Tensor, quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, sh: Tensor, viewmats: Tensor,
    intrinsics: Tensor, width: int, height: int, near: float, blur: float,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.raster_reference.rasterise` in float32; intrinsics get no gradients."""
    return _call(means, quats, log_scales, opacity_logits, sh.float(), round(sh.shape[1] ** 0.5) - 1, viewmats,
                 intrinsics, width, height, near, blur)


def rasterise_batch(
    clouds: Sequence[Sequence[Tensor]],  # B times means, quats, log_scales, opacity_logits, sh
    viewmats: Tensor,                    # (B, V, 4, 4)
    intrinsics: Tensor,                  # (B, V, 3, 3)
    width: int,
    height: int,
    near: float,
    blur: float,
) -> tuple[Tensor, Tensor]:
    """Rasterise all clouds in one call; gsplat supports batches since 1.5.3.

    Colours are evaluated here, for each camera, because gsplat 1.6 takes only one set of SH coefficients per batch.

    Returns:
        Colours on black, (B, V, H, W, 3), and alpha, (B, V, H, W).
    """
    count = max(len(cloud[0]) for cloud in clouds)
    means, quats, log_scales, opacity_logits, sh = (
        torch.stack([_pad(x.float(), count, fill) for x in values])
        for values, fill in zip(zip(*clouds), _PADDING.values()))
    rotations, translations = viewmats[..., :3, :3].float(), viewmats[..., :3, 3:].float()
    cameras = -(rotations.mT @ translations).mT                        # (B, V, 1, 3)
    colors = view_colors(means[:, None], sh[:, None], cameras)         # (B, V, N, 3)
    dtype = clouds[0][0].dtype
    colors, alphas = _call(means, quats, log_scales, opacity_logits, colors, None, viewmats, intrinsics, width, height,
                           near, blur)
    return colors.to(dtype), alphas.to(dtype)


def _pad(values: Tensor, count: int, fill: float) -> Tensor:
    """Pad a field (n, ...) to (count, ...)."""
    missing = count - len(values)
    return torch.cat([values, values.new_full((missing, *values.shape[1:]), fill)]) if missing else values


def _call(means: Tensor, quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, colors: Tensor,
          sh_degree: int | None, viewmats: Tensor, intrinsics: Tensor, width: int, height: int, near: float,
          blur: float) -> tuple[Tensor, Tensor]:
    from gsplat import rasterization

    drawn, alphas, _ = rasterization(
        means=means.float(), quats=quats.float(), scales=log_scales.float().exp(),
        opacities=opacity_logits.float().sigmoid(), colors=colors, viewmats=viewmats.float(), Ks=intrinsics.float(),
        width=width, height=height, near_plane=near, eps2d=blur, sh_degree=sh_degree, packed=False, render_mode='RGB',
        rasterize_mode='classic')
    return drawn.to(means.dtype), alphas.squeeze(-1).to(means.dtype)
