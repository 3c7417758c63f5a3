"""What generation hands from step to step: listed objects, what their files hold, and finished triplets."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.structures import GaussianCloud, surface_discs


@dataclass(frozen=True)
class Listed:
    """An object that a source has found, before anything of it was read; small, and fit to cross processes.

    Attributes:
        uid: Unique in the source: letters, digits, ``_`` and ``-``.
        path: File or folder that holds it.
        category: Class name, where the source knows it.
        captions: ``dict(text=..., source=...)`` each, where the source has any.
        split: Of the dataset.
        attributes: Anything else the source knows.
    """

    uid: str
    path: Path
    category: str | None = None
    captions: tuple[dict, ...] = ()
    split: str = 'train'
    attributes: dict = field(default_factory=dict)


class MeshPart(NamedTuple):
    """Triangles with one material.

    A colour is that of the texture at the corner's place, times the corner's own, times the base colour.
    """

    triangles: ndarray                       # (F, 3, 3) float32, corners in the frame of the mesh
    normals: ndarray                         # (F, 3, 3) float32, unit, of the corners
    base_color: ndarray                      # (4,) float32, sRGB and alpha in [0, 1]
    colors: ndarray | None = None            # (F, 3, 4) float32, sRGB and alpha of the corners
    uv: ndarray | None = None                # (F, 3, 2) float32, v up; repeats outside of [0, 1]
    texture: ndarray | None = None           # (h, w, 4) uint8, sRGB and alpha, first row at v = 1


class Mesh(NamedTuple):
    """A mesh of one or several parts."""

    parts: tuple[MeshPart, ...]


class Points(NamedTuple):
    """A point cloud."""

    positions: ndarray                       # (N, 3) float32
    colors: ndarray | None = None            # (N, 3) float32, sRGB in [0, 1]
    normals: ndarray | None = None           # (N, 3) float32, unit


class PosedImages(NamedTuple):
    """Photographs or renders with their cameras."""

    images: ndarray                          # (V, H, W, 4) float32, sRGB in [0, 1], not premultiplied, and alpha
    viewmats: ndarray                        # (V, 4, 4) float32, world to camera, OpenCV axes
    intrinsics: ndarray                      # (V, 3, 3) float32, pixels, first pixel's centre at (0.5, 0.5)
    points: Points | None = None             # where the source has them, COLMAP's for example


Content = Mesh | Points | PosedImages | GaussianCloud


@dataclass(frozen=True)
class Surface:
    """Points on the outside of an object, from which Gaussians begin."""

    positions: ndarray                       # (N, 3) float32
    normals: ndarray                         # (N, 3) float32, unit
    colors: ndarray                          # (N, 3) float32, sRGB in [0, 1]

    def discs(self) -> GaussianCloud:
        """Cover the surface with Gaussians, :func:`~clipgs_plugin.structures.surface_discs`."""
        return surface_discs(self.positions, self.normals, self.colors)


@dataclass(frozen=True)
class Views:
    """Pictures of an object with their cameras."""

    images: ndarray                          # (V, H, W, 4) float32, sRGB in [0, 1], not premultiplied, and alpha
    viewmats: ndarray                        # (V, 4, 4) float32, world to camera, OpenCV axes
    intrinsics: ndarray                      # (V, 3, 3) float32, pixels


@dataclass(frozen=True)
class Triplet:
    """A finished object: Gaussians in the frame of the dataset (y up, in the unit sphere), views, and its record."""

    listed: Listed
    gaussians: GaussianCloud
    views: ndarray                           # (V, H, W, 3) uint8, sRGB on the chosen background
    captions: tuple[dict, ...]
    quality: dict                            # psnr, psnr_foreground, ssim on held-out views, where they were measured
    source: dict                             # file, kind, frame, what was done to it
    viewmats: ndarray | None = None          # (V, 4, 4) where the cameras are the object's own, not the dataset's
    intrinsics: ndarray | None = None        # (V, 3, 3)
    seconds: dict = field(default_factory=dict)  # by step; kept out of the shards


def composite(images: ndarray, background: tuple[float, float, float]) -> ndarray:
    """Pictures (..., 4) on a background, (..., 3) float32."""
    alpha = images[..., 3:]
    return (images[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)).astype(np.float32)
