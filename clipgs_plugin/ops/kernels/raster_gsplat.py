"""3D Gaussian rasterisation on CUDA, by gsplat."""
from __future__ import annotations

from torch import Tensor


def rasterise(
    means: Tensor,           # (N, 3) float32, CUDA
    quats: Tensor,           # (N, 4) wxyz
    log_scales: Tensor,      # (N, 3)
    opacity_logits: Tensor,  # (N,)
    sh: Tensor,              # (N, K, 3)
    viewmats: Tensor,        # (V, 4, 4)
    intrinsics: Tensor,      # (V, 3, 3)
    width: int,
    height: int,
    near: float,
    blur: float,
) -> tuple[Tensor, Tensor]:
    """Colours on black (V, H, W, 3) and alpha (V, H, W); differentiable in every tensor but the intrinsics."""
    from gsplat import rasterization

    colors, alphas, _ = rasterization(
        means=means.float(), quats=quats.float(), scales=log_scales.float().exp(),
        opacities=opacity_logits.float().sigmoid(), colors=sh.float(), viewmats=viewmats.float(), Ks=intrinsics.float(),
        width=width, height=height, near_plane=near, eps2d=blur, sh_degree=round(sh.shape[1] ** 0.5) - 1,
        packed=False, render_mode='RGB', rasterize_mode='classic')
    return colors.to(means.dtype), alphas.squeeze(-1).to(means.dtype)
