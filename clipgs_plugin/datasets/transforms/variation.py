"""Transform that changes attributes as fitters differ."""
from __future__ import annotations

import math

import numpy as np
import torch

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import GaussianCloud


@TRANSFORMS.register_module()
class VaryFitter(BaseTransform):
    """Random changes in which fitters differ: size, thickness, shape, opacity and number of the Gaussians.

    Each change is drawn independently, once an object, so one object is seen as several fitters would leave it.

    Args:
        probability: Probability of each change per object, in [0, 1].
        size: Maximum factor of all sizes, and its inverse the minimum, at least 1; its logarithm is uniform.
        thickness: Minimum factor of the shortest axis, in (0, 1]; its logarithm is uniform up to 0. As often, the
            shortest axis grows to the size of the others, which makes balls of discs.
        opacity: Minimum and maximum of the mean opacity, in (0, 1), between which the mean logit is uniform.
        share: Minimum share of the Gaussians that are kept, in (0, 1].
    """

    def __init__(self, probability: float = 0.5, size: float = 2.0, thickness: float = 0.01,
                 opacity: tuple[float, float] = (0.2, 0.999), share: float = 0.25) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        if size < 1:
            raise ValueError(f'size={size}: expected a factor of at least 1')
        if not (0 < thickness <= 1 and 0 < share <= 1):
            raise ValueError(f'thickness={thickness}, share={share}: expected numbers in (0, 1]')
        if not 0 < opacity[0] <= opacity[1] < 1:
            raise ValueError(f'opacity={opacity}: expected 0 < minimum <= maximum < 1')
        self.probability, self.size, self.thickness, self.share = probability, size, thickness, share
        self.opacity = tuple(opacity)

    def transform(self, results: dict) -> dict:
        rng, cloud = results['rng'], results['gaussians']
        for change in (self._pick, self._resize, self._flatten, self._fade):
            if rng.random() < self.probability:
                cloud = change(cloud, rng)
        results['gaussians'] = cloud
        return results

    def _pick(self, cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
        count = max(1, round(rng.uniform(self.share, 1) * len(cloud)))
        return cloud[torch.from_numpy(np.sort(rng.permutation(len(cloud))[:count]))]

    def _resize(self, cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
        return cloud.replace(log_scales=cloud.log_scales + math.log(self.size) * rng.uniform(-1, 1))

    def _flatten(self, cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
        """Make the shortest axis shorter, or as long as the mean of the others."""
        order = cloud.log_scales.argsort(1)
        shortest = torch.nn.functional.one_hot(order[:, 0], 3).bool()
        if rng.random() < 0.5:
            changed = cloud.log_scales + math.log(self.thickness) * rng.random()
        else:
            changed = cloud.log_scales.gather(1, order[:, 1:]).mean(1, keepdim=True)
        return cloud.replace(log_scales=torch.where(shortest, changed, cloud.log_scales))

    def _fade(self, cloud: GaussianCloud, rng: np.random.Generator) -> GaussianCloud:
        low, high = (math.log(x / (1 - x)) for x in self.opacity)
        logits = cloud.opacity_logits
        return cloud.replace(opacity_logits=logits - logits.mean() + rng.uniform(low, high))
