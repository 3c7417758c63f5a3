"""Colours that tell the objects of a scene apart."""
from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.structures.gaussian_cloud import SH_C0

_LUMINANCE = (0.2126, 0.7152, 0.0722)
_REST = 0.35    # brightness of what is no object
_STEPS = 9      # of the candidates along each channel
_CHROMA = 0.1   # least chroma in OKLab; the rest of a scene is grey
_LIGHT = (0.45, 0.9)
# Linear sRGB to cone responses, and their cube roots to OKLab (Björn Ottosson, 2020).
_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])
_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]])


def distinct_colors(count: int) -> Tensor:
    """Return sRGB colours of which the first few differ most to the eye, (count, 3).

    Each is the candidate farthest from those before in OKLab; beyond the 465 candidates, they repeat.
    """
    palette = _palette()
    return torch.from_numpy(palette[np.arange(count) % len(palette)])


@lru_cache(maxsize=1)
def _palette() -> ndarray:
    """Return colourful sRGB colours, (P, 3) float32, in the order of farthest points that starts with a red."""
    axis = np.linspace(0, 1, _STEPS)
    rgb = np.stack(np.meshgrid(axis, axis, axis, indexing='ij'), -1).reshape(-1, 3)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _CONES.T) @ _LAB.T
    usable = (np.hypot(lab[:, 1], lab[:, 2]) >= _CHROMA) & (lab[:, 0] >= _LIGHT[0]) & (lab[:, 0] <= _LIGHT[1])
    rgb, lab = rgb[usable], lab[usable]
    order = [int(np.argmin(((rgb - [0.9, 0.15, 0.15]) ** 2).sum(1)))]
    nearest = ((lab - lab[order[0]]) ** 2).sum(1)
    while len(order) < len(rgb):
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((lab - lab[order[-1]]) ** 2).sum(1))
    return rgb[order].astype(np.float32)


def colored(cloud: GaussianCloud, objects: SceneObjects, tint: float = 0.7) -> GaussianCloud:
    """Give each object a colour of its own, and make the rest grey and darker, of SH degree 0.

    Args:
        cloud: Scene.
        objects: Its objects.
        tint: Share of the object's colour; the rest is the brightness of the Gaussian, which shows its shape.
    """
    brightness = (cloud.rgb @ cloud.rgb.new_tensor(_LUMINANCE))[:, None]
    palette = objects.spread(distinct_colors(len(objects)), fill=math.nan)
    rgb = torch.where(palette.isnan(), _REST * brightness, tint * palette + (1 - tint) * brightness)
    return cloud.replace(sh=((rgb - 0.5) / SH_C0)[:, None])
