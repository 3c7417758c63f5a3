"""Transform that hides attributes which depend on the fitter."""
from __future__ import annotations

from collections.abc import Callable

import torch

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import GaussianCloud


def _mean_scale(cloud: GaussianCloud) -> GaussianCloud:
    return cloud.replace(log_scales=cloud.log_scales.mean(0, keepdim=True).expand_as(cloud.log_scales).contiguous())


def _no_rotation(cloud: GaussianCloud) -> GaussianCloud:
    quats = torch.zeros_like(cloud.quats)
    quats[:, 0] = 1
    return cloud.replace(quats=quats)


def _mean_opacity(cloud: GaussianCloud) -> GaussianCloud:
    return cloud.replace(opacity_logits=cloud.opacity_logits.mean().expand_as(cloud.opacity_logits).contiguous())


NEUTRAL: dict[str, Callable[[GaussianCloud], GaussianCloud]] = {
    'scale': _mean_scale, 'rotation': _no_rotation, 'opacity': _mean_opacity}


@TRANSFORMS.register_module()
class DropAttributes(BaseTransform):
    """Attribute dropout: hides scales, rotations or opacities of an object, so that models do not rely on them.

    Fitters differ in these attributes more than objects do. A hidden log scale or opacity logit is the mean of the
    object (for scales by axis), a hidden rotation is the identity.

    Args:
        probability: Probability per object and attribute, in [0, 1].
        attributes: Attributes to hide, of ``'scale'``, ``'rotation'`` and ``'opacity'``; each is drawn independently.
    """

    def __init__(self, probability: float = 0.5,
                 attributes: tuple[str, ...] = ('scale', 'rotation', 'opacity')) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f'probability={probability}: expected a number in [0, 1]')
        if not attributes or set(attributes) - set(NEUTRAL):
            raise ValueError(f'attributes={attributes}: expected some of {tuple(NEUTRAL)}')
        self.probability = probability
        self.attributes = tuple(attributes)

    def transform(self, results: dict) -> dict:
        hidden = results['rng'].random(len(self.attributes)) < self.probability
        for name, hide in zip(self.attributes, hidden):
            if hide:
                results['gaussians'] = NEUTRAL[name](results['gaussians'])
        return results
