"""How alike a cloud and views of the object look: PSNR of whole pictures and of the foreground, SSIM."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.generation.objects import Views, composite
from clipgs_plugin.ops import psnr, render, ssim
from clipgs_plugin.ops.image_metrics import WINDOW
from clipgs_plugin.structures import GaussianCloud

FOREGROUND = 0.5     # alpha above which a pixel shows the object


def quality_of(cloud: GaussianCloud, views: Views, background: tuple[float, float, float]) -> dict[str, float]:
    """How alike a cloud and views of the object look.

    Args:
        cloud: N Gaussians.
        views: V views, of at least 11 x 11 pixels.
        background: Behind both, sRGB in [0, 1].

    Returns:
        Means over the views of ``psnr``, of whole pictures, in dB, at most 100; ``psnr_foreground``, of the pixels
        where the view's alpha is over 0.5, of the views that have any; and ``ssim`` (Wang et al., "Image quality
        assessment: from error visibility to structural similarity", 2004): 11 x 11 Gaussian window of sigma 1.5
        pixels wherever it lies whole in the picture, each of R, G, B by itself.

    Raises:
        ValueError: Views of a wrong shape or size, or that never show the object.
    """
    return quality_against(cloud, targets_of(views, 'views', background, cloud.device), background)


class Targets(NamedTuple):
    """Views as the pictures that a cloud should give, on its device."""

    pictures: Tensor    # (V, H, W, 3) sRGB in [0, 1], on the background
    viewmats: Tensor    # (V, 4, 4)
    intrinsics: Tensor  # (V, 3, 3)
    shown: Tensor       # (V, H, W) bool, where the object is


def targets_of(views: Views, name: str, background: tuple[float, float, float], device: torch.device) -> Targets:
    """Views on a background, checked; ``name`` is what errors call them.

    Raises:
        ValueError: Views of a wrong shape or size, or that never show the object.
    """
    images = views.images
    if images.ndim != 4 or images.shape[3] != 4 or len(images) == 0:
        raise ValueError(f'{name}: images has shape {images.shape}, expected (V, H, W, 4), at least one view')
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(f'{name}: pictures are {images.shape[2]} x {images.shape[1]} pixels, expected at least '
                         f'{WINDOW} x {WINDOW}, the window of SSIM')
    for field, shape in (('viewmats', (len(images), 4, 4)), ('intrinsics', (len(images), 3, 3))):
        found = np.shape(getattr(views, field))
        if found != shape:
            raise ValueError(f'{name}: {field} has shape {found}, expected {shape}, one for each picture')
    shown = images[..., 3] > FOREGROUND
    if not shown.any():
        raise ValueError(f'{name}: none of {len(images)} pictures shows the object (alpha is nowhere over '
                         f'{FOREGROUND}); it is empty, out of the cameras\' sight, or too thin for its pixels')
    floats = (composite(images, background), views.viewmats, views.intrinsics)
    return Targets(*(torch.as_tensor(np.asarray(x, np.float32)).to(device) for x in floats),
                   torch.from_numpy(shown).to(device))


def quality_against(cloud: GaussianCloud, targets: Targets, background: tuple[float, float, float]) -> dict[str, float]:
    """:func:`quality_of`, against views made ready before."""
    drawn, seen = draw(cloud, targets, background), targets.shown.flatten(1).any(1)
    return dict(psnr=float(psnr(drawn, targets.pictures).mean()),
                psnr_foreground=float(psnr(drawn, targets.pictures, targets.shown)[seen].mean()),
                ssim=float(ssim(drawn, targets.pictures).mean()))


@torch.no_grad()
def draw(cloud: GaussianCloud, targets: Targets, background: tuple[float, float, float]) -> Tensor:
    """Pictures of the cloud from the cameras of the targets, in [0, 1]."""
    height, width = targets.pictures.shape[1:3]
    return render(cloud, targets.viewmats, targets.intrinsics, width, height, background)[0].clamp(0, 1)
