"""3D Gaussian rasterisation in plain torch, the reference of all backends.

Everything is computed in float64, so that footprints, depth order and the 1/255 threshold do not depend on rounding.
Images have the dtype of the cloud.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clipgs_plugin.ops.kernels.raster_constants import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, VIEW_MARGIN
from clipgs_plugin.ops.rotations import quaternion_to_matrix
from clipgs_plugin.ops.spherical_harmonics import eval_sh

TILE = 16  # pixels; limits the Gaussians considered per pixel, and does not change the image


class Splats(NamedTuple):
    """Visible Gaussians of one view, nearest first."""

    centers: Tensor    # (M, 2) pixels
    conics: Tensor     # (M, 3) xx, xy, yy of the inverse 2D covariance
    opacities: Tensor  # (M,)
    colors: Tensor     # (M, 3)
    reach: Tensor      # (M, 2) half width and height of the box beyond which alpha < 1/255, pixels


def view_colors(means: Tensor, sh: Tensor, camera: Tensor) -> Tensor:
    """Return colours seen from a point: max(0, 0.5 + SH(direction)), (N, 3)."""
    directions = torch.nn.functional.normalize(means - camera, dim=-1)
    return eval_sh(sh, directions).clamp_min(0)


def project(
    means: Tensor,           # (N, 3) world
    quats: Tensor,           # (N, 4) wxyz
    log_scales: Tensor,      # (N, 3)
    opacity_logits: Tensor,  # (N,)
    sh: Tensor,              # (N, K, 3)
    viewmat: Tensor,         # (4, 4) world to camera, OpenCV axes
    intrinsics: Tensor,      # (3, 3) pixels
    width: int,
    height: int,
    near: float,
    blur: float,
) -> Splats:
    """Project Gaussians to one view and sort them by depth.

    Source: Zwicker et al., "EWA splatting", 2002.
    """
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    depth = (means @ rotation.T + translation)[:, 2].detach()
    # Keys in float32, so that Gaussians at equal depth up to rounding keep their order in the cloud.
    order = depth.float().argsort(stable=True)
    order = order[depth[order] > near]
    means, quats, log_scales, opacity_logits, sh = (
        x[order] for x in (means, quats, log_scales, opacity_logits, sh))

    x, y, z = (means @ rotation.T + translation).unbind(-1)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    # The projection is linearised at the mean, limited to a margin around the image.
    margin_x, margin_y = VIEW_MARGIN * width / fx, VIEW_MARGIN * height / fy
    slope_x = torch.clamp(x / z, -cx / fx - margin_x, (width - cx) / fx + margin_x)
    slope_y = torch.clamp(y / z, -cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([
        torch.stack([fx / z, zero, -fx * slope_x / z], -1),
        torch.stack([zero, fy / z, -fy * slope_y / z], -1),
    ], -2)
    axes = jacobian @ rotation @ quaternion_to_matrix(quats) * log_scales.exp()[:, None, :]
    covariance = axes @ axes.transpose(-1, -2)
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    # A sum of squares: in xx yy - xy^2, the width of a long needle would be lost in rounding.
    minors = torch.linalg.cross(axes[:, 0], axes[:, 1])
    determinant = minors.square().sum(-1) + blur * (xx + yy) + blur * blur
    xx, yy = xx + blur, yy + blur

    opacities = opacity_logits.sigmoid()
    cutoff = 2 * (opacities.detach() / MIN_ALPHA).log()  # squared Mahalanobis distance at which alpha is 1/255
    variances = torch.stack([xx, yy], -1).detach()
    splats = Splats(
        centers=torch.stack([fx * x / z + cx, fy * y / z + cy], -1),
        conics=torch.stack([yy, -xy, xx], -1) / determinant[:, None],
        opacities=opacities,
        colors=view_colors(means, sh, -rotation.T @ translation),
        reach=(cutoff.clamp_min(0)[:, None] * variances).sqrt(),
    )
    drawn = (cutoff >= 0) & (determinant > 0) & (determinant < float('inf'))
    return Splats(*(field[drawn] for field in splats))


def composite(splats: Splats, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Blend splats front to back.

    Args:
        splats: M splats, nearest first.
        pixels: Pixel centres, (P, 2).

    Returns:
        Colours on black, (P, 3), and alpha, (P,).
    """
    dx, dy = (pixels[:, None] - splats.centers).unbind(-1)  # (P, M)
    xx, xy, yy = splats.conics.unbind(-1)
    alpha = splats.opacities * torch.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)
    alpha = torch.where(alpha < MIN_ALPHA, 0, alpha.clamp_max(MAX_ALPHA))
    logs = torch.log1p(-alpha)
    after = logs.cumsum(1)
    transmittance = torch.exp(after - logs)
    # A pixel ends before the Gaussian that would reduce its transmittance below the limit.
    weights = torch.where(after.exp() > MIN_TRANSMITTANCE, alpha * transmittance, 0)
    return weights @ splats.colors, weights.sum(1)


def rasterise(
    means: Tensor,           # (N, 3)
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
    """Rasterise a cloud from several cameras, differentiable in every tensor, cameras included.

    Returns:
        Colours on black, (V, H, W, 3), and alpha, (V, H, W), in the dtype of ``means``.
    """
    dtype, device = means.dtype, means.device
    cloud = [x.double() for x in (means, quats, log_scales, opacity_logits, sh)]
    ys, xs = torch.meshgrid(torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5,
                            indexing='ij')
    pixels = torch.stack([xs, ys], -1).double()  # (H, W, 2)

    images = []
    for viewmat, intrinsic in zip(viewmats.double(), intrinsics.double()):
        splats = project(*cloud, viewmat, intrinsic, width, height, near, blur)
        rows = []
        for strip in pixels.split(TILE, 0):
            tiles = [_tile(splats, tile) for tile in strip.split(TILE, 1)]
            rows.append(torch.cat(tiles, 1))
        images.append(torch.cat(rows, 0))
    drawn = torch.stack(images) if images else pixels.new_empty(0, height, width, 4)
    return drawn[..., :3].to(dtype), drawn[..., 3].to(dtype)


def _tile(splats: Splats, pixels: Tensor) -> Tensor:
    """Return colour and alpha, (h, w, 4), of a tile with pixel centres (h, w, 2)."""
    low, high = pixels[0, 0], pixels[-1, -1]
    near_tile = ((splats.centers + splats.reach >= low) & (splats.centers - splats.reach <= high)).all(-1)
    chosen = Splats(*(field[near_tile] for field in splats))
    if torch.is_grad_enabled():
        # Recomputed in the backward pass: the (P, M) intermediates of all tiles would not fit in memory.
        color, alpha = checkpoint(composite, chosen, pixels.flatten(0, 1), use_reentrant=False)
    else:
        color, alpha = composite(chosen, pixels.flatten(0, 1))
    return torch.cat([color, alpha[:, None]], -1).unflatten(0, pixels.shape[:2])
