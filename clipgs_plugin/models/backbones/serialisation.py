"""Rows of a batch along space-filling curves: sequences, windows and pooling by cells, without weights.

Rows are the Gaussians of all objects, later the occupied cells of all objects, without padding.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clipgs_plugin import ops

# Curves by the names that PTv3 has for them; '-trans' exchanges x and y.
ORDERS = ('z', 'z-trans', 'hilbert', 'hilbert-trans')
BITS = 10  # of a Gaussian's cell along each axis


class Cells(NamedTuple):
    """Rows of all objects with their codes, which are paths in an octree over the bounding cube of the object."""

    positions: Tensor           # (P, 3) in [0, 1], the unit is the edge of the cube
    codes: dict[str, Tensor]    # (P,) int64 each, by order
    bits: int                   # number of cells along an edge as a power of two
    objects: Tensor             # (P,) object of each row, ascending
    lengths: Tensor             # (B,) number of rows of each object

    def starts(self) -> Tensor:
        """Return the first row of each object, (B,)."""
        return self.lengths.cumsum(0) - self.lengths


class Groups(NamedTuple):
    """Rows grouped by cell."""

    rows: Tensor                # (P,) rows, cell after cell
    counts: Tensor              # (C,) number of rows of each cell

    def reduce(self, x: Tensor, reduction: str) -> Tensor:
        """Return the maximum (``'max'``) or the mean (``'mean'``) of the rows of each cell, (P, D) to (C, D)."""
        return torch.segment_reduce(x[self.rows], reduction, lengths=self.counts)


class Windows(NamedTuple):
    """Places of the rows in windows."""

    slots: Tensor               # (P,) window * size + place in the window
    num: int                    # W, number of windows
    size: int                   # T, number of places of a window
    mask: Tensor | None         # (W, T) bool, True for rows; None without padding

    def split(self, x: Tensor) -> Tensor:
        """Put the rows (P, D) into windows (W, T, D), zero at padding."""
        flat = x.new_zeros(self.num * self.size, x.shape[1])
        return flat.index_copy(0, self.slots, x).unflatten(0, (self.num, self.size))

    def merge(self, x: Tensor) -> Tensor:
        """Take the rows (P, D) out of windows (W, T, D)."""
        return x.flatten(0, 1)[self.slots]


class Layout(NamedTuple):
    """Places of the rows for one block."""

    pooled: Groups | None       # rows of the block before, grouped into the P rows of this one; None without pooling
    positions: Tensor           # (P, 3) in the unit of the bounding cube's edge
    wide: Tensor                # rows along the curve, each end repeated, see :func:`extend_ends`
    slots: Tensor               # (P,) place of the first neighbour of each row in ``wide``
    windows: Windows
    lengths: Tensor             # (B,) number of rows of each object


def serialise(positions: Tensor, lengths: Tensor, orders: Sequence[str] = ORDERS, bits: int = BITS) -> Cells:
    """Compute the codes of points, as in PTv3 with a grid of ``2**bits`` cells along the longest side of the object.

    Args:
        positions: Positions of the points of all objects, object after object, (P, 3).
        lengths: Number of points of each object, (B,), each at least 1; they sum to P.
        orders: Some of :data:`ORDERS`.
        bits: Number of cells as a power of two.
    """
    objects = torch.arange(len(lengths), device=positions.device).repeat_interleave(lengths)
    low = torch.segment_reduce(positions, 'min', lengths=lengths)
    edge = (torch.segment_reduce(positions, 'max', lengths=lengths) - low).amax(1, keepdim=True)
    edge = torch.where(edge > 0, edge, 1)
    positions = (positions - low[objects]) / edge[objects]
    cells = (positions.detach() * 2 ** bits).int().clamp_(max=2 ** bits - 1)
    codes = {order: ops.cell_keys(cells[:, [1, 0, 2]] if order.endswith('-trans') else cells,
                                  order.removesuffix('-trans'), bits) for order in orders}
    return Cells(positions, codes, bits, objects, lengths)


def merge_cells(cells: Cells, bits: int) -> tuple[Cells, Groups]:
    """Merge the rows of each cell of a coarser grid.

    Args:
        cells: P rows.
        bits: Number of cells of the coarser grid as a power of two; the position of a cell is the mean of its rows.

    Returns:
        The occupied cells, in the first order of ``cells.codes``, and the rows of each.
    """
    shift = 3 * (cells.bits - bits)
    codes = {order: code >> shift for order, code in cells.codes.items()}
    keys = cells.objects << 3 * bits | next(iter(codes.values()))
    inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)[1:]
    groups = Groups(inverse.argsort(stable=True), counts)
    first = groups.rows[counts.cumsum(0) - counts]
    objects = cells.objects[first]
    merged = Cells(groups.reduce(cells.positions, 'mean'), {order: code[first] for order, code in codes.items()}, bits,
                   objects, objects.bincount(minlength=len(cells.lengths)))
    return merged, groups


def sequence(cells: Cells, order: str) -> tuple[Tensor, Tensor]:
    """Visit the rows along a curve, object after object; rows of one cell keep their order.

    Returns:
        The rows in the order of the curve, (P,), and the place of each row in the sequence of its object, (P,).
    """
    rows = (cells.objects << 3 * cells.bits | cells.codes[order]).argsort(stable=True)
    places = torch.empty_like(rows)
    places[rows] = torch.arange(len(rows), device=rows.device)
    return rows, places - cells.starts()[cells.objects]


def windows(cells: Cells, places: Tensor, size: int) -> Windows:
    """Divide the sequence of each object into windows of at most ``size`` rows, as few and as equal as possible.

    Args:
        cells: P rows.
        places: Place of each row in the sequence of its object, (P,).
        size: Largest number of rows of a window.
    """
    lengths = cells.lengths
    counts = (lengths + size - 1) // size
    longest = int(((lengths + counts - 1) // counts).max())
    num = int(counts.sum())
    n, count = lengths[cells.objects], counts[cells.objects]
    window = places * count // n
    first = (window * n + count - 1) // count  # the first place whose window this is
    slots = ((counts.cumsum(0) - counts)[cells.objects] + window) * longest + places - first
    mask = None
    if num * longest > len(places):
        mask = torch.zeros(num * longest, dtype=torch.bool, device=places.device).index_fill(0, slots, True)
        mask = mask.unflatten(0, (num, longest))
    return Windows(slots, num, longest, mask)


def extend_ends(cells: Cells, rows: Tensor, places: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Repeat the first and the last row of each sequence ``radius`` times, so that every row has neighbours.

    Args:
        cells: P rows.
        rows: The rows in the order of the curve, (P,).
        places: Place of each row in the sequence of its object, (P,).
        radius: Number of repeats at each end.

    Returns:
        The rows of the longer sequences, (P + 2 radius B,), and the place of each row there less ``radius``, (P,).
        Entry ``place + k`` is then the neighbour ``k - radius`` steps ahead.
    """
    lengths, starts = cells.lengths, cells.starts()
    objects = torch.arange(len(lengths), device=rows.device).repeat_interleave(lengths + 2 * radius)
    before = starts + 2 * radius * torch.arange(len(lengths), device=rows.device)
    place = torch.arange(len(objects), device=rows.device) - before[objects] - radius
    place = torch.minimum(place.clamp(min=0), lengths[objects] - 1)
    return rows[starts[objects] + place], before[cells.objects] + places


def lay_out(cells: Cells, order: str, window: int, radius: int, pooled: Groups | None = None) -> Layout:
    """Lay out rows for a block that visits them along a curve.

    Args:
        cells: P rows.
        order: One of the orders of ``cells.codes``.
        window: Largest number of rows of a window.
        radius: Number of neighbours of a row on each side.
        pooled: Rows of the block before, grouped into these rows.
    """
    rows, places = sequence(cells, order)
    wide, slots = extend_ends(cells, rows, places, radius)
    return Layout(pooled, cells.positions, wide, slots, windows(cells, places, window), cells.lengths)
