"""Transforms of colour."""
from __future__ import annotations

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import MISSING_COLOR, SH_C0


@TRANSFORMS.register_module()
class DropColor(BaseTransform):
    """Colour dropout: paints an object grey 0.4, the colour of objects without one, so that models do not rely on it.

    Args:
        probability: Probability per object, in [0, 1].
    """

    def __init__(self, probability: float = 0.2) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        self.probability = probability

    def transform(self, results: dict) -> dict:
        if results['rng'].random() < self.probability:
            cloud = results['gaussians']
            sh = cloud.sh.new_zeros(cloud.sh.shape)
            sh[:, 0] = (MISSING_COLOR - 0.5) / SH_C0
            results['gaussians'] = cloud.replace(sh=sh)
        return results
