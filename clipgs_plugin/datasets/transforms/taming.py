"""Transform that brings attributes of any fitter into one range."""
from __future__ import annotations

import math

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TameGaussians(BaseTransform):
    """Clamping of scales and opacities, and unit quaternions.

    Fitters differ more than objects do: log scales reach -30 (a disc without thickness), opacities saturate at 1, and
    quaternions have any length. None of it is visible, but an encoder reads it. The radius of an object is the largest
    distance of a Gaussian from the mean.

    Args:
        min_scale: Minimum standard deviation, in radii of the object.
        max_scale: Maximum standard deviation, in radii of the object.
        max_opacity: Maximum opacity, and 1 minus the minimum, above 0.5 and below 1.
    """

    def __init__(self, min_scale: float = 1e-4, max_scale: float = 1.0, max_opacity: float = 0.999) -> None:
        if not 0 < min_scale <= max_scale:
            raise ValueError(f'min_scale={min_scale}, max_scale={max_scale}: expected 0 < min_scale <= max_scale')
        if not 0.5 < max_opacity < 1:
            raise ValueError(f'max_opacity={max_opacity}: expected an opacity above 0.5 and below 1')
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.max_opacity = max_opacity

    def transform(self, results: dict) -> dict:
        cloud = results['gaussians']
        radius = float((cloud.means - cloud.means.double().mean(0)).norm(dim=-1).max())
        log_scales = cloud.log_scales
        if radius > 0:  # the size of a single Gaussian is its own
            log_scales = log_scales.clamp(math.log(self.min_scale * radius), math.log(self.max_scale * radius))
        logit = math.log(self.max_opacity / (1 - self.max_opacity))
        results['gaussians'] = cloud.replace(
            log_scales=log_scales, opacity_logits=cloud.opacity_logits.clamp(-logit, logit),
            quats=cloud.quats / cloud.quats.norm(dim=-1, keepdim=True))
        return results
