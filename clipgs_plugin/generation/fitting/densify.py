"""Densification of 3DGS to a predefined number of Gaussians.

3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023) splits the Gaussians whose
means have the largest gradients: a Gaussian that views pull to and fro covers more than it can represent. 3DGS splits
all above a threshold. Here the Gaussians with the largest gradients are split until the scheduled count is reached (as
in Mallick et al., "Taming 3DGS", 2024), so time and size are known in advance. A Gaussian is split along its longest
axis, without randomness.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clipgs_plugin.structures import GaussianCloud

SHRINK = 1.6  # divisor of the longest axis of a split Gaussian, as in 3DGS
SHIFT = math.sqrt(1 - SHRINK ** -2)  # of each half, in standard deviations; keeps the variance of the two together


def growth_schedule(count: int, max_count: int, every: int, last: int) -> dict[int, int]:
    """Map each densification step to its target count, doubling up to ``max_count``.

    More steps of a smaller factor split the same places again and again; they lost up to 0.4 dB at the same count.

    Args:
        count: Initial number of Gaussians.
        max_count: Final number of Gaussians.
        every: Iterations between two steps.
        last: Last iteration that may densify.

    Returns:
        Iteration to count, ascending; empty if nothing grows.
    """
    schedule = {}
    for step in range(every, last + 1, every):
        if count < max_count:
            count = schedule[step] = min(2 * count, max_count)
    return schedule


def grow(cloud: GaussianCloud, score: Tensor, count: int, min_opacity: float) -> tuple[GaussianCloud, Tensor]:
    """Split the Gaussians of the highest score until ``count`` are reached; faint Gaussians make room.

    Args:
        cloud: N Gaussians.
        score: Priority of each Gaussian, (N,); the first of equal ones is split first.
        count: Target number of Gaussians, N to 2 N.
        min_opacity: Opacity below which Gaussians are removed, the faintest first, if splits can replace them.

    Returns:
        ``count`` Gaussians, unchanged ones first and in their order; and the indices of the unchanged ones, (K,).
    """
    opacities = cloud.opacities
    rank = opacities.argsort(stable=True)
    room = len(cloud) - (count + 1) // 2  # splits at most double the rest
    faded = rank[:min(room, int((opacities < min_opacity).sum()))]
    score = score.clone()
    score[faded] = -math.inf
    split = score.argsort(descending=True, stable=True)[:count - len(cloud) + len(faded)]
    stays = torch.ones(len(cloud), dtype=torch.bool, device=cloud.device)
    stays[faded] = stays[split] = False
    kept = stays.nonzero().squeeze(1)
    parts = cloud[kept], *_halves(cloud[split])
    fields = zip(*([value for _, value in part.fields()] for part in parts))
    return GaussianCloud(*(torch.cat(values) for values in fields)), kept


def _halves(cloud: GaussianCloud) -> tuple[GaussianCloud, GaussianCloud]:
    """Split each Gaussian along its longest axis into two of the same joint mean and variance."""
    rows = torch.arange(len(cloud), device=cloud.device)
    longest = cloud.log_scales.argmax(1)
    shift = SHIFT * cloud.scales[rows, longest, None] * cloud.rotations[rows, :, longest]
    log_scales = cloud.log_scales.clone()
    log_scales[rows, longest] -= math.log(SHRINK)
    return tuple(cloud.replace(means=cloud.means + sign * shift, log_scales=log_scales) for sign in (1, -1))
