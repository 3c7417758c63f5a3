"""Vectors of an index in blocks: memory-mapped shards in float16, or one tensor."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.io.arrays import npy_header
from clipgs_plugin.search.layout import REMEDY

STEP = 8192    # rows that are computed with at a time
_UNIT = 1e-2   # largest deviation of the length of a stored vector from 1


class Vectors:
    """Rows in blocks, less the removed ones.

    A *position* counts all rows of the blocks, a *row* those that are kept.

    Args:
        blocks: Tensors (n, E), float32 unit vectors or stored float16 ones.
        width: E.
        removed: Positions that are not rows, ascending int64.
        name: Name in errors.
    """

    def __init__(self, blocks: Sequence[Tensor], width: int, removed: np.ndarray | None = None,
                 name: str = 'the index') -> None:
        self.blocks, self.width, self.name = list(blocks), width, name
        self._arrays = [block.numpy() for block in self.blocks]  # a torch index wakes threads for each block
        self.starts = np.cumsum([0, *map(len, blocks)])
        self.total = int(self.starts[-1])
        self.kept = None if removed is None or not len(removed) else np.setdiff1d(
            np.arange(self.total), removed, assume_unique=True)

    def __len__(self) -> int:
        return self.total if self.kept is None else len(self.kept)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of rows."""
        return rows if self.kept is None else self.kept[rows]

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at positions that are kept."""
        return positions if self.kept is None else np.searchsorted(self.kept, positions)

    def take(self, rows: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return rows as float32 unit vectors, (m, E).

        Raises:
            IndexError: A row does not exist.
            ValueError: A stored vector is not a unit vector.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f'rows {rows.min()} to {rows.max()}, {self.name} has {len(self)}')
        positions = self.positions(rows)
        order = np.argsort(positions, kind='stable')
        ascending = positions[order]
        cuts = np.searchsorted(ascending, self.starts).tolist()
        stored = np.empty((len(rows), self.width), self._arrays[0].dtype if self._arrays else np.float32)
        for start, array, first, last in zip(self.starts.tolist(), self._arrays, cuts, cuts[1:]):
            if first < last:
                stored[order[first:last]] = array[ascending[first:last] - start]
        found = torch.from_numpy(stored)
        return found if found.dtype == torch.float32 else self._unit(found.float())

    def steps(self, chosen: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield rows and their vectors (m, E), float32 and as stored, in order and a step at a time.

        Args:
            chosen: Ascending rows to yield; all by default.
        """
        wanted = self.kept if chosen is None else self.positions(chosen)
        for start, block in zip(self.starts.tolist(), self.blocks):
            for begin in range(0, len(block), STEP):
                end = min(begin + STEP, len(block))
                if wanted is None:
                    yield np.arange(start + begin, start + end), block[begin:end].float()
                    continue
                first, last = np.searchsorted(wanted, (start + begin, start + end))
                if first < last:
                    places = torch.from_numpy(wanted[first:last] - start)
                    full = last - first == end - begin
                    yield self.rows(wanted[first:last]), (block[begin:end] if full else block[places]).float()

    def _unit(self, found: Tensor) -> Tensor:
        norms = found.norm(dim=1, keepdim=True)
        if not ((norms - 1).abs() < _UNIT).all():
            raise ValueError(f'{self.name}: a stored vector is not a unit vector; {REMEDY}')
        return found.div_(norms)


def map_vectors(path: Path, rows: int, width: int) -> Tensor:
    """Map a file of float16 vectors (rows, E) into memory without holding it open.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is damaged or has another shape.
    """
    shape, dtype, offset = npy_header(path)
    if shape != (rows, width) or dtype != np.float16 or offset % 2:
        raise ValueError(f'{path} holds {shape} of {dtype}, expected {(rows, width)} of float16; {REMEDY}')
    flat = torch.from_file(str(path), shared=False, size=offset // 2 + rows * width, dtype=torch.float16)
    return flat[offset // 2:].view(rows, width)
