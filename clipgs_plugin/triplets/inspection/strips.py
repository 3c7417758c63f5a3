"""Strips: stored views of an object beside renders of its stored Gaussians from the same cameras."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from clipgs_plugin.ops import psnr, render
from clipgs_plugin.structures import GaussianCloud

AMPLIFIED = 4  # factor of the shown differences


@dataclass(frozen=True)
class Strip:
    """Stored views of an object beside renders of its Gaussians."""

    uid: str
    record: dict
    numbers: tuple[int, ...]        # (K,) numbers of the views
    views: ndarray                  # (K, H, W, 3) uint8
    splats: ndarray | None = None   # (K, H, W, 3) uint8, None if the dataset does not store its cameras

    def psnr(self) -> list[float]:
        """Compute the PSNR of each render against the stored view, in dB, at most 100."""
        return psnr(*(torch.from_numpy(images).double() / 255 for images in (self.splats, self.views))).tolist()

    def difference(self) -> ndarray:
        """Return ``AMPLIFIED`` times the absolute difference, clipped at white, (K, H, W, 3) uint8."""
        difference = np.abs(self.views.astype(np.int64) - self.splats)
        return (AMPLIFIED * difference).clip(0, 255).astype(np.uint8)


def draw_strip(record: dict, cloud: GaussianCloud, numbers: Sequence[int], views: ndarray, settings: dict) -> Strip:
    """Render an object from the cameras of some of its views.

    Args:
        record: Record of the object.
        cloud: Gaussians of the object.
        numbers: Numbers of K of its views.
        views: The K stored views, (K, H, W, 3) uint8.
        settings: Entry ``render`` of ``dataset.json``.

    Raises:
        ValueError: The stored cameras do not match the views.
    """
    cameras = stored_cameras(record, settings, record['num_views'])
    if cameras is None:
        return Strip(record['uid'], record, tuple(numbers), views)
    viewmats, intrinsics = (torch.from_numpy(matrices[list(numbers)]) for matrices in cameras)
    with torch.no_grad():
        images, _ = render(cloud, viewmats, intrinsics, views.shape[2], views.shape[1],
                           tuple(settings.get('background', (1.0, 1.0, 1.0))))
    splats = np.rint(images.clamp(0, 1).numpy() * 255).astype(np.uint8)
    return Strip(record['uid'], record, tuple(numbers), views, splats)


def stored_cameras(record: dict, settings: dict, count: int) -> tuple[ndarray, ndarray] | None:
    """Read the camera poses and intrinsics of all views of an object.

    Args:
        record: Record of the object.
        settings: Entry ``render`` of ``dataset.json``.
        count: Number of views of the object, V.

    Returns:
        World-to-camera matrices (V, 4, 4) and intrinsics (V, 3, 3), float32; None if the dataset stores no matrices.

    Raises:
        ValueError: The matrices are not cameras of V views.
    """
    cameras = settings if record['cameras'] == 'dataset' else record['source'].get('cameras', {})
    try:
        if 'viewmats' not in cameras or 'intrinsics' not in cameras:
            return None
        viewmats, intrinsics = (np.array(cameras[name], np.float32) for name in ('viewmats', 'intrinsics'))
    except TypeError as error:
        raise ValueError(f'{cameras!r:.80} are not matrices ({error})') from error
    if intrinsics.shape == (3, 3):
        intrinsics = np.repeat(intrinsics[None], count, axis=0)
    if viewmats.shape != (count, 4, 4) or intrinsics.shape != (count, 3, 3):
        raise ValueError(f'viewmats have shape {viewmats.shape} and intrinsics {intrinsics.shape}, expected '
                         f'{(count, 4, 4)} and {(count, 3, 3)}')
    if not (np.isfinite(viewmats).all() and np.isfinite(intrinsics).all()):
        raise ValueError('viewmats or intrinsics are NaN or infinite')
    return viewmats, intrinsics
