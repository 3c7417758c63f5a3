"""Similarity of images: PSNR and SSIM."""
from __future__ import annotations

import torch
from torch import Tensor

WINDOW, WINDOW_SIGMA = 11, 1.5              # of SSIM, pixels
LUMINANCE, CONTRAST = 0.01 ** 2, 0.03 ** 2  # constants of SSIM for values in [0, 1]
MIN_MSE = 1e-10                             # caps PSNR at 100 dB


def psnr(images: Tensor, targets: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Compute the peak signal-to-noise ratio of images with values in [0, 1].

    Args:
        images: Images, (V, H, W, 3).
        targets: Images to compare with, (V, H, W, 3).
        pixels: Mask of the pixels to compare, (V, H, W) bool, at least one per image; None compares all.

    Returns:
        PSNR of each image in dB, at most 100, (V,) float64.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(images, targets)
    errors = (images.double() - targets.double()).square().mean(3).flatten(1)
    if pixels is None:
        mse = errors.mean(1)
    else:
        weights = pixels.flatten(1).double()
        mse = (errors * weights).sum(1) / weights.sum(1)
    return -10 * mse.clamp_min(MIN_MSE).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Compute the structural similarity of images with values in [0, 1], differentiable.

    The window is a Gaussian of 11 x 11 pixels with sigma 1.5. It covers every position inside the image. R, G and B are
    compared separately.

    Args:
        images: Images of at least 11 x 11 pixels, (V, H, W, 3).
        targets: Images to compare with, (V, H, W, 3).

    Returns:
        SSIM of each image, (V,).

    Raises:
        ValueError: The shapes differ, or the images are smaller than the window.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
    """
    _check_shapes(images, targets)
    height, width = targets.shape[1:3]
    if min(height, width) < WINDOW:
        raise ValueError(f'SSIM needs images of at least {WINDOW} x {WINDOW} pixels, got {height} x {width}')
    down, across = _window_means(height, images), _window_means(width, images)
    a, b = images.movedim(3, 1), targets.movedim(3, 1)
    a, b, aa, bb, ab = down @ torch.stack([a, b, a * a, b * b, a * b]) @ across.T
    similar = (2 * a * b + LUMINANCE) * (2 * (ab - a * b) + CONTRAST)
    largest = (a * a + b * b + LUMINANCE) * (aa - a * a + bb - b * b + CONTRAST)
    return (similar / largest).mean((1, 2, 3))


def _check_shapes(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.ndim != 4:
        raise ValueError(f'images of shape {tuple(images.shape)} and targets of shape {tuple(targets.shape)}: expected '
                         'one shape (V, H, W, 3)')


def _window_means(size: int, like: Tensor) -> Tensor:
    """Return the matrix (size - 10, size) that maps a row of pixels to its weighted means in SSIM's window."""
    offset = torch.arange(size)[None] - torch.arange(size - WINDOW + 1)[:, None] - WINDOW // 2
    weights = torch.exp(-offset.double() ** 2 / (2 * WINDOW_SIGMA ** 2)) * (offset.abs() <= WINDOW // 2)
    return (weights / weights.sum(1, keepdim=True)).to(like)
