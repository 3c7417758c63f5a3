"""3D Gaussian rasterisation on CUDA, by gsplat."""
from __future__ import annotations

from torch import Tensor


def rasterise(
    means: Tensor, quats: Tensor, log_scales: Tensor, opacity_logits: Tensor, sh: Tensor, viewmats: Tensor,
    intrinsics: Tensor, width: int, height: int, near: float, blur: float,
) -> tuple[Tensor, Tensor]:
    """As :func:`clipgs_plugin.ops.kernels.raster_reference.rasterise` in float32; intrinsics get no gradients."""
    from gsplat import rasterization

    colors, alphas, _ = rasterization(
        means=means.float(), quats=quats.float(), scales=log_scales.float().exp(),
        opacities=opacity_logits.float().sigmoid(), colors=sh.float(), viewmats=viewmats.float(), Ks=intrinsics.float(),
        width=width, height=height, near_plane=near, eps2d=blur, sh_degree=round(sh.shape[1] ** 0.5) - 1,
        packed=False, render_mode='RGB', rasterize_mode='classic')
    return colors.to(means.dtype), alphas.squeeze(-1).to(means.dtype)
