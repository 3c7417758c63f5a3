"""Spherical harmonics between the display-referred colour spaces sRGB and linear BT.709."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.spherical_harmonics import map_colors

SRGB, LINEAR = 'srgb_rec709_display', 'lin_rec709_display'


def srgb_curve(linear: Tensor) -> Tensor:
    """Return the sRGB values of linear ones (IEC 61966-2-1); values above 1 continue the curve."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def linear_curve(srgb: Tensor) -> Tensor:
    """Invert :func:`srgb_curve`."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def from_linear(sh: Tensor) -> Tensor:
    """Return harmonics whose colours are the sRGB values of linear colours, (N, K, 3).

    The curve is exact for a colour without dependence on the view, and fitted by least squares over directions
    otherwise, since the curve of a polynomial is none.
    """
    return map_colors(sh, srgb_curve)


def to_linear(sh: Tensor) -> Tensor:
    """Invert :func:`from_linear`, up to the fits."""
    return map_colors(sh, linear_curve)
