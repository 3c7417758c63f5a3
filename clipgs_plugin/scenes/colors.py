"""Colours that tell the objects of a scene apart."""
from __future__ import annotations

import colorsys
import math

import torch
from torch import Tensor

from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.structures.gaussian_cloud import SH_C0

_GOLDEN = (math.sqrt(5) - 1) / 2
_LEVELS = ((0.75, 0.95), (0.95, 0.65), (0.45, 1.00), (0.60, 0.80))  # saturation and value, in turn
_LUMINANCE = (0.2126, 0.7152, 0.0722)
_REST = 0.35  # brightness of what is no object


def distinct_colors(count: int) -> Tensor:
    """Return sRGB colours of which the first few differ most, (count, 3).

    Hues follow the golden ratio, whose steps fill the circle evenly, and saturation and value alternate.
    """
    colors = [colorsys.hsv_to_rgb((0.02 + i * _GOLDEN) % 1, *_LEVELS[i % len(_LEVELS)]) for i in range(count)]
    return torch.tensor(colors, dtype=torch.float32).reshape(count, 3)


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
