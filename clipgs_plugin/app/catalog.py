"""Content of an index for a page: columns to filter by, rows that meet conditions, rows nearest to a query."""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from clipgs_plugin.app.objects import IndexedObjects
from clipgs_plugin.search import SearchIndex

MOST_VALUES = 400            # distinct texts of a column to choose from
_HIDDEN = ('path', 'image_path', 'mtime_ns')  # of no use as filters or facts
_FIRST = ('category', 'caption')
_LAST = ('gaussians', 'size', 'sh_degree', 'up', 'up_confidence')
_BLOCK = 65_536              # rows whose vectors are in memory at once


class Catalog:
    """Rows of an index and their metadata.

    Args:
        index: Index, whose metadata are read into memory.
        objects: Its objects; None for those of its files as they are.
    """

    def __init__(self, index: SearchIndex, objects: IndexedObjects | None = None) -> None:
        self.index, self.table, self.objects = index, index.table, objects or IndexedObjects(index)
        self._rows = {path: row for row, path in enumerate(self.objects.paths)}

    def __len__(self) -> int:
        return len(self.objects)

    def columns(self) -> list[dict]:
        """Describe the columns to filter by: texts of few values with their counts, and ranges of numbers."""
        found = []
        for name in self.shown():
            column = self.table[name]
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                counts = pc.value_counts(column.drop_null()).to_pylist()
                if 1 < len(counts) <= MOST_VALUES:
                    counts.sort(key=lambda each: (-each['counts'], each['values']))
                    found.append(dict(name=name, kind='text',
                                      values=[[each['values'], each['counts']] for each in counts]))
            elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                ends = pc.min_max(column).as_py()
                if ends['min'] is not None and ends['min'] < ends['max'] and math.isfinite(ends['max'] - ends['min']):
                    found.append(dict(name=name, kind='number', low=ends['min'], high=ends['max']))
        return found

    def shown(self) -> list[str]:
        """Return the names of the columns that tell something of an object; those of the user before the rest."""
        names = [name for name in self.table.column_names if name not in _HIDDEN]
        return sorted(names, key=lambda name: (name not in _FIRST, name in _LAST))

    def details(self, rows: Sequence[int]) -> list[dict]:
        """Return name and metadata of objects.

        Raises:
            ValueError: The index does not have a row.
        """
        self.check(rows)
        taken = self.table.select(self.shown()).take(pa.array(rows, pa.int64())).to_pylist()
        return [dict(row=row, name=self.objects.name(row),
                     facts={key: _finite(value) for key, value in facts.items() if value not in (None, '')})
                for row, facts in zip(rows, taken)]

    def records(self, rows: Sequence[int]) -> list[dict]:
        """Return path and metadata of objects for a list."""
        self.check(rows)
        return [dict(path=self.objects.paths[each['row']], **each['facts']) for each in self.details(rows)]

    def check(self, rows: Iterable[int]) -> None:
        """Refuse rows that the index does not have.

        Raises:
            ValueError: There is one.
        """
        wrong = next((row for row in rows if not 0 <= row < len(self)), None)
        if wrong is not None:
            raise ValueError(f'row {wrong}: the index has rows 0 to {len(self) - 1}')

    def rows_of(self, paths: Iterable[str]) -> list[int]:
        """Return the rows of paths that the index has, ascending."""
        return sorted(self._rows[path] for path in paths if path in self._rows)

    def rows(self, where: Sequence[str] = (), among: Sequence[int] | None = None) -> np.ndarray:
        """Return the rows that meet all conditions, ascending.

        Args:
            where: Conditions of :func:`~clipgs_plugin.search.parse_filter`.
            among: Rows to choose from; None for all.
        """
        found = self.index.rows(where) if where else np.arange(len(self))
        return found if among is None else np.intersect1d(found, np.asarray(among, np.int64))

    def ranked(self, query: Tensor, rows: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows nearest to a unit vector (E,) with their cosines, best first and ties by row.

        All rows of an index with codes are searched by these, which may miss some of the nearest.

        Raises:
            ValueError: The query has another width than the index.
        """
        if query.shape != (self.index.card.width,):
            raise ValueError(f'the query has {query.numel()} numbers, the index {self.index.card.width}; was it made '
                             f'with another model than {self.index.model}?')
        if len(rows) == len(self) and self.index.approximate is not None:
            matches = self.index.find(query, limit)
            return np.array([each.row for each in matches]), np.array([each.score for each in matches])
        best_rows, best = np.empty(0, np.int64), torch.empty(0)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start:start + _BLOCK]
            scores = torch.cat([best, self.index.vectors(block) @ query.float().cpu()])
            order = scores.argsort(descending=True, stable=True)[:limit]
            best_rows, best = np.concatenate([best_rows, block])[order.numpy()], scores[order]
        return best_rows, best.numpy()


def _finite(value):
    """Turn numbers that JSON does not have into text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
