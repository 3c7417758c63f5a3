"""Metrics of found objects of a scene against its true ones, over Gaussians of equal weight."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = 0
UNSURE = -1  # of the truth: counts neither for nor against anything
NONE = -1    # of the found objects: a Gaussian of no object


@dataclass(frozen=True, eq=False)
class InstanceMatch:
    """Found objects matched one to one with the true objects.

    Attributes:
        true_ids: Labels of the true objects, (T,) int64, ascending.
        found_ids: Labels of the found objects, (F,) int64, ascending.
        ious: Intersection over union of every pair, (T, F) float64.
        match: Index of the found object of each true one, (T,) int64; -1 where it has none.
        purities: Share of each found object that belongs to the true object it has most of, (F,) float64. The
            background is no object.
    """

    true_ids: Tensor
    found_ids: Tensor
    ious: Tensor
    match: Tensor
    purities: Tensor

    @property
    def matched_ious(self) -> Tensor:
        """IoU of each true object with its match, 0 without one, (T,) float64."""
        padded = torch.cat([self.ious, self.ious.new_zeros(len(self.ious), 1)], 1)  # the index -1 is the last
        return padded[torch.arange(len(self.match)), self.match]

    def is_found(self, threshold: float = 0.5) -> Tensor:
        """Mark the true objects whose match has an IoU of at least a threshold, (T,) bool."""
        return (self.match >= 0) & (self.matched_ious >= threshold)

    def recall(self, threshold: float = 0.5) -> float:
        """Compute the share of the true objects that are found; NaN without true objects."""
        return float(self.is_found(threshold).double().mean())

    def precision(self, threshold: float = 0.5) -> float:
        """Compute the share of the found objects that are the match of a true one; NaN without found objects."""
        return float(self.is_found(threshold).sum()) / len(self.found_ids) if len(self.found_ids) else float('nan')


def match_instances(
    found: Tensor,  # (N,) int64
    truth: Tensor,  # (N,) int64
) -> InstanceMatch:
    """Match found objects with true ones so that the sum of their IoUs is the greatest.

    A found object is matched once: two objects found as one count as at most one, and of a true object in two pieces
    one piece counts. Pairs without a common Gaussian are no match.

    Args:
        found: Object of each Gaussian as found, -1 for none, any other numbers for objects.
        truth: True object of each Gaussian, 0 for the background, -1 where it is unsure. Unsure Gaussians are left
            out, and so are found objects of unsure Gaussians only.

    Raises:
        ValueError: The shapes differ, or a label is below -1.
    """
    if found.shape != truth.shape or found.ndim != 1:
        raise ValueError(f'found {tuple(found.shape)} and truth {tuple(truth.shape)}: expected one label a Gaussian in '
                         'both, (N,)')
    least = min(int(x.min()) for x in (found, truth)) if len(found) else 0
    if least < min(NONE, UNSURE):
        raise ValueError(f'a label is {least}, expected -1 for none or unsure, or the number of an object')
    from scipy.optimize import linear_sum_assignment
    sure = truth != UNSURE
    found, truth = found[sure], truth[sure]
    true_ids, found_ids = truth[truth != BACKGROUND].unique(), found[found != NONE].unique()
    is_true, is_found = truth[:, None] == true_ids, found[:, None] == found_ids  # (N, T), (N, F)
    common = is_true.double().T @ is_found.double()
    sizes = is_found.double().sum(0)
    ious = common / (is_true.double().sum(0)[:, None] + sizes - common)
    match = torch.full((len(true_ids),), -1)
    rows, columns = (torch.from_numpy(x) for x in linear_sum_assignment(ious.numpy(), maximize=True))
    kept = ious[rows, columns] > 0
    match[rows[kept]] = columns[kept]
    most = common.amax(0) if len(true_ids) else torch.zeros_like(sizes)
    return InstanceMatch(true_ids, found_ids, ious, match, most / sizes)
