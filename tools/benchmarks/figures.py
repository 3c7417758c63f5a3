"""Rows of benchmarks that measure quality in place of time."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass
class Figure:
    """A row of a table: the mean of a quantity over objects, with the standard error of that mean."""

    what: str
    way: str
    mean: float
    error: float
    objects: int
    note: str = ''


def figure(what: str, way: str, values: Sequence[float], note: str = '') -> Figure:
    """Summarise one value an object."""
    values = np.asarray(values, np.float64)
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return Figure(what, way, float(values.mean()) if len(values) else float('nan'), error, len(values), note)


def table_of_figures(figures: list[Figure]):
    """Lay out figures as a table of rich."""
    from rich.table import Table

    table = Table('what', 'way')
    for name in ('mean', 'standard error', 'objects'):
        table.add_column(name, justify='right')
    table.add_column('note')
    for i, row in enumerate(figures):
        if i and row.what != figures[i - 1].what:
            table.add_section()
        table.add_row(row.what, row.way, f'{row.mean:.3f}', f'{row.error:.3f}', str(row.objects), row.note)
    return table
