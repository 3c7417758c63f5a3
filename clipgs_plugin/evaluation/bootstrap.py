"""Bootstrap interval of the difference of two experiments over seeds and test objects."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import norm, t
from torch import Tensor

CHUNK = 2 ** 22  # counts of objects held at once


@dataclass(frozen=True)
class Difference:
    """Estimate of a difference, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """True if the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Tensor,           # (S,) or (S, N)
    second: Tensor,          # of the same shape
    level: float = 0.95,
    resamples: int = 10000,
    seed: int = 0,
) -> Difference:
    r"""Estimate the mean of ``second - first`` with a percentile bootstrap interval.

    Seeds are resampled, and with (S, N) the objects too. All seeds are tested on the same objects, so a resample draws
    objects once and not once a seed. The bootstrap of a few seeds is too narrow: the spread of S means is that of
    :math:`(S - 1) / S` of the variance, and its quantiles are those of a normal distribution. Deviations of seeds from
    their mean are therefore scaled by :math:`\sqrt{S / (S - 1)}\, t_{S-1} / z`, which gives Student's interval if only
    the seeds vary. One seed has no spread: the interval is then that of the objects alone.

    Args:
        first: Results of the first experiment: a figure a seed, (S,), or an answer a seed and object, (S, N).
        second: Results of the second experiment, with the same seeds and objects.
        level: Coverage of the interval.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Raises:
        ValueError: Shapes differ, or there are no results.
    """
    if first.shape != second.shape or first.ndim not in (1, 2) or not first.numel():
        raise ValueError(f'results of shape {tuple(first.shape)} and {tuple(second.shape)}: expected two of (seeds,) '
                         'or (seeds, objects), with at least one of each')
    found = second.double() - first.double()
    found = found[:, None] if found.ndim == 1 else found
    mean = found.mean()
    num_seeds, num_objects = found.shape
    if num_seeds > 1:
        widening = math.sqrt(num_seeds / (num_seeds - 1)) * t.ppf((1 + level) / 2, num_seeds - 1) / norm.ppf(
            (1 + level) / 2)
        found = found + (widening - 1) * (found.mean(1, keepdim=True) - mean)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, CHUNK // num_objects)
    means = torch.cat([_resampled_means(found, min(chunk, resamples - start), generator)
                       for start in range(0, resamples, chunk)])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)
    low, high = torch.quantile(means, tails).tolist()
    return Difference(mean.item(), low, high)


def _resampled_means(found: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the means of resamples of the rows and of the columns of (S, N), (count,)."""
    rows, columns = (_weights(size, count, generator) for size in found.shape)
    return ((rows @ found) * columns).sum(1)


def _weights(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return how often resamples draw each of some items, as shares, (count, size) float64."""
    drawn = torch.randint(size, (count, size), generator=generator)
    ones = torch.ones(1, dtype=torch.float64).expand(count, size)
    return torch.zeros(count, size, dtype=torch.float64).scatter_add_(1, drawn, ones) / size
