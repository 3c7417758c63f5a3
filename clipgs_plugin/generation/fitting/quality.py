"""Similarity of Gaussians and views of the object: PSNR of whole images and of the foreground, and SSIM."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.generation.objects import Views, composite
from clipgs_plugin.ops import psnr, render, ssim
from clipgs_plugin.ops.image_metrics import WINDOW
from clipgs_plugin.structures import GaussianCloud

FOREGROUND = 0.5  # alpha above which a pixel shows the object


class Targets(NamedTuple):
    """Views as the images that Gaussians should reproduce, on their device."""

    images: Tensor      # (V, H, W, 3) sRGB in [0, 1], on the background
    viewmats: Tensor    # (V, 4, 4)
    intrinsics: Tensor  # (V, 3, 3)
    foreground: Tensor  # (V, H, W) bool


def quality_of(cloud: GaussianCloud, views: Views, background: tuple[float, float, float]) -> dict[str, float]:
    """Measure the similarity of Gaussians and views of the object.

    Args:
        cloud: N Gaussians.
        views: V views of at least 11 x 11 pixels.
        background: Background of both, sRGB in [0, 1].

    Returns:
        Means over the views: ``psnr`` of whole images, in dB, at most 100; ``psnr_foreground`` of the pixels with alpha
        over 0.5, over the views that have any; and ``ssim``, see :func:`clipgs_plugin.ops.ssim`.

    Raises:
        ValueError: The views have a wrong shape or size, or never show the object.
    """
    return measure(cloud, make_targets(views, 'views', background, cloud.device), background)


def make_targets(views: Views, name: str, background: tuple[float, float, float], device: torch.device) -> Targets:
    """Check views and composite them on a background; errors call them ``name``.

    Raises:
        ValueError: The views have a wrong shape or size, or never show the object.
    """
    images = views.images
    if images.ndim != 4 or images.shape[3] != 4 or len(images) == 0:
        raise ValueError(f'{name}: images has shape {images.shape}, expected (V, H, W, 4) with at least one view')
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(f'{name}: images are {images.shape[2]} x {images.shape[1]} pixels, expected at least '
                         f'{WINDOW} x {WINDOW}, the window of SSIM')
    for field, shape in (('viewmats', (len(images), 4, 4)), ('intrinsics', (len(images), 3, 3))):
        found = np.shape(getattr(views, field))
        if found != shape:
            raise ValueError(f'{name}: {field} has shape {found}, expected {shape}, one for each image')
    foreground = images[..., 3] > FOREGROUND
    if not foreground.any():
        raise ValueError(f'{name}: none of {len(images)} images shows the object (alpha is at most {FOREGROUND} '
                         'everywhere); it is empty, out of sight of the cameras, or thinner than a pixel')
    floats = (composite(images, background), views.viewmats, views.intrinsics)
    return Targets(*(torch.as_tensor(np.asarray(x, np.float32)).to(device) for x in floats),
                   torch.from_numpy(foreground).to(device))


def measure(cloud: GaussianCloud, targets: Targets, background: tuple[float, float, float]) -> dict[str, float]:
    """Measure :func:`quality_of` against prepared targets."""
    images, seen = render_targets(cloud, targets, background), targets.foreground.flatten(1).any(1)
    return dict(psnr=float(psnr(images, targets.images).mean()),
                psnr_foreground=float(psnr(images, targets.images, targets.foreground)[seen].mean()),
                ssim=float(ssim(images, targets.images).mean()))


@torch.no_grad()
def render_targets(cloud: GaussianCloud, targets: Targets, background: tuple[float, float, float]) -> Tensor:
    """Render Gaussians from the cameras of targets, (V, H, W, 3) in [0, 1]."""
    height, width = targets.images.shape[1:3]
    return render(cloud, targets.viewmats, targets.intrinsics, width, height, background)[0].clamp(0, 1)
