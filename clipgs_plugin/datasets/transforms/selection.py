"""Transforms that select Gaussians of an object."""
from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.datasets.transforms.base import BaseTransform
from clipgs_plugin.ops.ordering import canonical_order
from clipgs_plugin.ops.sampling import farthest_point_sample
from clipgs_plugin.registry import TRANSFORMS
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.structures.attributes import pack


class SelectGaussians(BaseTransform):
    """Base class of transforms that keep some of the Gaussians as they are.

    Filters, whose choice is not random, work without a generator in the results.
    """

    def transform(self, results: dict) -> dict:
        index = self.select(results['gaussians'], results.get('rng'))
        if index is not None:
            results['gaussians'] = results['gaussians'][index]
        return results

    @abstractmethod
    def select(self, cloud: GaussianCloud, rng: np.random.Generator | None) -> Tensor | None:
        """Return the indices or the mask of the Gaussians to keep; None keeps all."""


@TRANSFORMS.register_module()
class FilterOpacity(SelectGaussians):
    """Removal of nearly transparent Gaussians, which are invisible but attract farthest point sampling.

    Args:
        threshold: Minimum opacity to keep, in [0, 1].
        minimum: Minimum number of Gaussians to keep, the most opaque ones, so that a faint object is not lost.
    """

    def __init__(self, threshold: float = 0.05, minimum: int = 1) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f'threshold={threshold}: expected an opacity in [0, 1]')
        if minimum < 1:
            raise ValueError(f'minimum={minimum}: expected at least 1, because an object needs a Gaussian')
        self.threshold = threshold
        self.minimum = minimum

    def select(self, cloud: GaussianCloud, rng: np.random.Generator) -> Tensor:
        keep = cloud.opacities >= self.threshold
        if int(keep.sum()) < min(self.minimum, len(cloud)):
            most_opaque = cloud.opacity_logits.argsort(descending=True, stable=True)[:self.minimum]
            keep = torch.zeros_like(keep).index_fill(0, most_opaque, True)
        return keep


@TRANSFORMS.register_module()
class SampleGaussians(SelectGaussians):
    """Sampling of ``num`` Gaussians without replacement, in the order of the object; smaller objects are unchanged.

    Args:
        num: Number of Gaussians to sample.
        method: ``'random'`` samples uniformly. ``'importance'`` samples in proportion to opacity times the area of the
            largest cross-section. ``'fps'`` is farthest point sampling, which starts at the point farthest from the
            centroid and is deterministic; it breaks ties by content, so that the order of the file does not matter.
    """

    def __init__(self, num: int, method: str = 'random') -> None:
        if num < 1:
            raise ValueError(f'num={num}: expected at least 1 Gaussian')
        if method not in _METHODS:
            raise ValueError(f'method={method!r}: expected one of {sorted(_METHODS)}')
        self.num = num
        self.method = method

    def select(self, cloud: GaussianCloud, rng: np.random.Generator) -> Tensor | None:
        if len(cloud) <= self.num:
            return None
        return torch.as_tensor(_METHODS[self.method](cloud, self.num, rng)).sort().values


def _random(cloud: GaussianCloud, num: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(len(cloud), num, replace=False, shuffle=False)


def _importance(cloud: GaussianCloud, num: int, rng: np.random.Generator) -> np.ndarray:
    """Sample by weight without replacement: take the largest sums of log weight and Gumbel noise.

    Logarithms avoid the underflow of small weights.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    largest_two = cloud.log_scales.double().topk(2, dim=-1).values.sum(-1)
    log_weights = torch.nn.functional.logsigmoid(cloud.opacity_logits.double()) + largest_two
    return np.argsort(-(log_weights.numpy() + rng.gumbel(size=len(cloud))), kind='stable')[:num]


def _fps(cloud: GaussianCloud, num: int, rng: np.random.Generator) -> torch.Tensor:
    order = canonical_order(pack(cloud)[None])[0]
    return order[farthest_point_sample(cloud.means[order][None], num, start='farthest')[0]]


_METHODS = {'random': _random, 'importance': _importance, 'fps': _fps}
