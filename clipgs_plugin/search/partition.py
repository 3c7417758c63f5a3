"""Rows of an index by the nearest of many centres, which tells what may lie near to what."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.search.approximate import Tables
from clipgs_plugin.search.vectors import STEP, Vectors

LISTS_AT_ONCE = 128
ROUNDING = 2e-3  # of the distance of two places, which are stored in float16


class Partition:
    """Places of rows along the principal axes of the codes, the first of each part, and their nearest centres.

    A row whose nearest centre is :math:`a` and one whose nearest is :math:`b` are at least as far apart as either is
    from the plane between both centres, :math:`(d_a^2 - d_b^2) / 2|a - b|` for the latter row. So rows that lie
    farther from it than a reach are left out, and no pair within the reach is missed.

    Args:
        vectors: Rows.
        tables: Axes and centres of the codes. Rows need not have codes.
    """

    def __init__(self, vectors: Vectors, tables: Tables) -> None:
        first = slice(None, None, tables.codebooks.shape[2])  # of the axes of a part, the one that varies most
        self.centers = torch.from_numpy(np.ascontiguousarray(tables.centers[:, first]))
        self.places = torch.empty(len(vectors), self.centers.shape[1], dtype=torch.float16)
        self.lists = torch.empty(len(vectors), dtype=torch.int64)
        self.own = torch.empty(len(vectors))  # from the nearest centre, as _from_centers gives it
        for rows, _ in vectors.steps():
            places = torch.from_numpy(tables.project(vectors.take(rows).numpy())[:, first]).half()
            self.places[rows] = places
            self.own[rows], self.lists[rows] = self._from_centers(places, slice(None)).min(1)
        self.order = self.lists.argsort(stable=True)
        self.starts = torch.searchsorted(self.lists[self.order], torch.arange(len(self.centers) + 1)).tolist()

    def near(self, reach: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows (m,) of each list, and the rows (k,) of it and of later ones that may lie within reach."""
        reach += ROUNDING
        between = torch.cdist(self.centers, self.centers)
        for first in range(0, len(self.centers), LISTS_AT_ONCE):
            chosen = slice(first, min(first + LISTS_AT_ONCE, len(self.centers)))
            found = [self._candidates(rows, chosen, 2 * reach * between[:, chosen])
                     for rows in self.order[self.starts[first]:].split(STEP)]
            for i in range(first, chosen.stop):
                own = self.order[self.starts[i]:self.starts[i + 1]]
                if len(own):
                    yield own, torch.cat([part[i - first] for part in found])

    def within(self, own: Tensor, others: Tensor, reach: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of rows, as their first (p,) and second ones (p,), whose places are within reach."""
        for some in own.split(STEP // 8):
            a = self.places[some].float()
            for rows in others.split(STEP):
                b = self.places[rows].float()
                halves = torch.addmm(b.square().sum(1) / 2, a, b.T, alpha=-1).add_(a.square().sum(1, keepdim=True) / 2)
                i, j = (halves <= (reach + ROUNDING) ** 2 / 2 + 1e-6).nonzero(as_tuple=True)
                yield some[i], rows[j]

    def _candidates(self, rows: Tensor, chosen: slice, limits: Tensor) -> list[Tensor]:
        """Return for each of some lists the rows, of those that are given, that may be near to its rows."""
        lists = self.lists[rows]
        beyond = self._from_centers(self.places[rows], chosen) - self.own[rows, None]
        near = (beyond <= limits[lists] + 1e-6) & (lists[:, None] >= torch.arange(chosen.start, chosen.stop))
        which, found = near.T.nonzero(as_tuple=True)
        return list(rows[found].split(torch.bincount(which, minlength=chosen.stop - chosen.start).tolist()))

    def _from_centers(self, places: Tensor, chosen: slice) -> Tensor:
        """Return the squared distances of places (m, d) from centres, (m, c), less the squared norms of the places."""
        centers = self.centers[chosen]
        return torch.addmm(centers.square().sum(1), places.float(), centers.T, alpha=-2)
