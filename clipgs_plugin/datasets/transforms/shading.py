"""Transform that lights an object as scenes do."""
from __future__ import annotations

import numpy as np
import torch

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import SH_C0


@TRANSFORMS.register_module()
class ShadeGaussians(BaseTransform):
    """Random light: colours get the brightness that a lamp and light from everywhere give to their surface.

    Colours of captures contain the light of their scene; those of meshes and toys do not. A Gaussian gets the
    brightness ``gain * (ambient + (1 - ambient) * max(0, normal . lamp))``. Its normal is its shortest axis, away from
    the mean position. The lamp is above (y up), in a random direction.

    Args:
        probability: Probability per object, in [0, 1].
        ambient: Least and greatest share of the light from everywhere, in [0, 1]; uniform between them.
        gain: Least and greatest brightness of a surface that faces the lamp, above 0; uniform between them.
        tint: Largest change of the red share of the light, and of the blue one in the other direction, in [0, 1).
    """

    def __init__(self, probability: float = 0.5, ambient: tuple[float, float] = (0.3, 1.0),
                 gain: tuple[float, float] = (0.5, 1.1), tint: float = 0.08) -> None:
        if not (0 <= probability <= 1 and 0 <= tint < 1):
            raise ValueError(f'probability={probability}, tint={tint}: expected numbers in [0, 1], the tint below 1')
        if not (0 <= ambient[0] <= ambient[1] <= 1 and 0 < gain[0] <= gain[1]):
            raise ValueError(f'ambient={ambient}, gain={gain}: expected minimum <= maximum, shares in [0, 1] and gains '
                             'above 0')
        self.probability, self.ambient, self.gain, self.tint = probability, tuple(ambient), tuple(gain), tint

    def transform(self, results: dict) -> dict:
        rng, cloud = results['rng'], results['gaussians']
        if rng.random() >= self.probability:
            return results
        ambient, gain, warmth = rng.uniform(*self.ambient), rng.uniform(*self.gain), rng.uniform(-self.tint, self.tint)
        lamp = rng.normal(size=3)
        lamp[1] = abs(lamp[1])
        facing = (cloud.normals @ torch.from_numpy(lamp / np.linalg.norm(lamp)).to(cloud.means)).clamp_min(0)
        color = torch.tensor([1 + warmth, 1, 1 - warmth]).to(cloud.sh)
        light = gain * (ambient + (1 - ambient) * facing)[:, None] * color
        sh = cloud.sh * light[:, None]
        sh[:, 0] += (light - 1) * 0.5 / SH_C0  # a colour is 0.5 above its harmonics
        results['gaussians'] = cloud.replace(sh=sh)
        return results
