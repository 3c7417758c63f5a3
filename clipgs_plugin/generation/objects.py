"""Data passed between the steps of generation: listed objects, contents of their files, and triplets."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.structures import GaussianCloud, surface_discs


@dataclass(frozen=True)
class Listed:
    """Object that a source has found but not read yet; small, since it crosses process boundaries.

    Attributes:
        uid: Identifier, unique in the source, of letters, digits, ``_`` and ``-``.
        path: File or folder of the object.
        category: Class name, if the source knows it.
        captions: Captions from the source, each ``dict(text=..., source=...)``.
        split: Split of the dataset.
        attributes: Other metadata from the source.
    """

    uid: str
    path: Path
    category: str | None = None
    captions: tuple[dict, ...] = ()
    split: str = 'train'
    attributes: dict = field(default_factory=dict)


class MeshPart(NamedTuple):
    """Triangles with one material.

    The colour of a surface point is the product of texture, interpolated corner colour and base colour.
    """

    triangles: ndarray                       # (F, 3, 3) float32, corners in the frame of the file
    normals: ndarray                         # (F, 3, 3) float32, unit, at the corners
    base_color: ndarray                      # (4,) float32, sRGB and alpha in [0, 1]
    colors: ndarray | None = None            # (F, 3, 4) float32, sRGB and alpha at the corners
    uv: ndarray | None = None                # (F, 3, 2) float32, v up; repeats outside [0, 1]
    texture: ndarray | None = None           # (h, w, 4) uint8, sRGB and alpha, first row at v = 1


class Mesh(NamedTuple):
    """Mesh of one or several parts."""

    parts: tuple[MeshPart, ...]


class Points(NamedTuple):
    """Point cloud."""

    positions: ndarray                       # (N, 3) float32
    colors: ndarray | None = None            # (N, 3) float32, sRGB in [0, 1]
    normals: ndarray | None = None           # (N, 3) float32, unit


class PosedImages(NamedTuple):
    """Photographs or renders with their cameras."""

    images: ndarray                          # (V, H, W, 4) float32, sRGB in [0, 1], not premultiplied, and alpha
    viewmats: ndarray                        # (V, 4, 4) float32, world to camera, OpenCV axes
    intrinsics: ndarray                      # (V, 3, 3) float32, pixels, first pixel's centre at (0.5, 0.5)
    points: Points | None = None             # of a reconstruction, by COLMAP for example


Content = Mesh | Points | PosedImages | GaussianCloud


@dataclass(frozen=True)
class Surface:
    """Points on the surface of an object, which initialise the Gaussians."""

    positions: ndarray                       # (N, 3) float32
    normals: ndarray                         # (N, 3) float32, unit
    colors: ndarray                          # (N, 3) float32, sRGB in [0, 1]

    def discs(self) -> GaussianCloud:
        """Cover the surface with Gaussians, see :func:`~clipgs_plugin.structures.surface_discs`."""
        return surface_discs(self.positions, self.normals, self.colors)


@dataclass(frozen=True)
class Views:
    """Images of an object with their cameras."""

    images: ndarray                          # (V, H, W, 4) float32, sRGB in [0, 1], not premultiplied, and alpha
    viewmats: ndarray                        # (V, 4, 4) float32, world to camera, OpenCV axes
    intrinsics: ndarray                      # (V, 3, 3) float32, pixels


@dataclass(frozen=True)
class Triplet:
    """Finished object: Gaussians in the frame of the dataset (y up, in the unit sphere), views and metadata."""

    listed: Listed
    gaussians: GaussianCloud
    views: ndarray                           # (V, H, W, 3) uint8, sRGB on the chosen background
    captions: tuple[dict, ...]
    quality: dict                            # psnr, psnr_foreground, ssim on held-out views; empty if not measured
    source: dict                             # file, kind, frame and processing
    viewmats: ndarray | None = None          # (V, 4, 4) if the object has its own cameras instead of the dataset's
    intrinsics: ndarray | None = None        # (V, 3, 3)
    seconds: dict = field(default_factory=dict)  # by step; not stored in shards


def composite(images: ndarray, background: tuple[float, float, float]) -> ndarray:
    """Composite images (..., 4) onto a background, to (..., 3) float32."""
    alpha = images[..., 3:]
    return (images[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)).astype(np.float32)
