"""More Gaussians where a fit lacks them: the densification of 3DGS, to a count that is known beforehand.

3DGS (Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023) splits the Gaussians whose
positions the views pull at most: one that is drawn to and fro covers more than it can show. It takes all above a
threshold; here the highest are taken until there are as many as the schedule says (as Mallick et al., "Taming 3DGS",
2024, do), so that time and size are known. A Gaussian is split along its longest axis, with nothing drawn at random.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor

from clipgs_plugin.structures import GaussianCloud

SHRINK = 1.6  # of the axis that is split, as in 3DGS
SHIFT = math.sqrt(1 - SHRINK ** -2)  # of each half along it, in its standard deviations; the two together have its own


def growth_schedule(count: int, most: int, every: int, last: int) -> dict[int, int]:
    """How many Gaussians there shall be after which iteration: twice as many each time, until there are the most.

    More events of a smaller factor split the same places again and again; they showed up to 0.4 dB less at the same
    count.

    Args:
        count: At the beginning.
        most: At the end.
        every: Iterations between two events.
        last: Iteration of the last event at the latest.

    Returns:
        Iteration to count, ascending; empty where nothing is to grow.
    """
    schedule = {}
    for step in range(every, last + 1, every):
        if count < most:
            count = schedule[step] = min(2 * count, most)
    return schedule


def grow(cloud: GaussianCloud, score: Tensor, count: int, min_opacity: float) -> tuple[GaussianCloud, Tensor]:
    """Split the Gaussians of the highest score until there are ``count``; those that have faded make room.

    Args:
        cloud: N Gaussians.
        score: How much each should be split, (N,); of equal ones the first goes first.
        count: N to 2 N.
        min_opacity: Gaussians of less are left out, the faintest first, as many as splits can replace.

    Returns:
        ``count`` Gaussians, first those that stay as they were, in their order; and which those were, (K,).
    """
    opacities = cloud.opacities
    rank = opacities.argsort(stable=True)
    room = len(cloud) - (count + 1) // 2  # splits double at most what is left
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
    """Each Gaussian as two along its longest axis, whose mean and variance are the mean and variance of the two."""
    rows = torch.arange(len(cloud), device=cloud.device)
    longest = cloud.log_scales.argmax(1)
    shift = SHIFT * cloud.scales[rows, longest, None] * cloud.rotations[rows, :, longest]
    log_scales = cloud.log_scales.clone()
    log_scales[rows, longest] -= math.log(SHRINK)
    return tuple(cloud.replace(means=cloud.means + sign * shift, log_scales=log_scales) for sign in (1, -1))
