"""Statistics of the inspected objects and of failed ones."""
from __future__ import annotations

import heapq
import json
import math
from array import array
from collections import Counter
from pathlib import Path

import numpy as np
from numpy import ndarray

from clipgs_plugin.triplets.inspection.result import COLUMNS, describe
from clipgs_plugin.triplets.layout import FAILED
from clipgs_plugin.triplets.samples import MEASURES


class Statistics:
    """Per-object columns, counts by category and split, and a choice of objects to show.

    Args:
        worst: Number of objects of lowest quality to show.
        random: Number of other objects to show.
        seed: Random seed of the others.
    """

    def __init__(self, worst: int, random: int, seed: int) -> None:
        self.objects = 0
        self.categories: Counter = Counter()
        self.splits: Counter = Counter()
        self._columns = {name: array('d') for name in COLUMNS}
        self._worst, self._random, self._num_random = _Smallest(worst), _Smallest(worst + random), random
        self._rng = np.random.default_rng(seed)

    def add(self, row: dict, record: dict | None, sound: bool) -> None:
        """Count an object; only sound objects may be shown.

        Args:
            row: Row of the index.
            record: Record of the object, None if it is unusable.
            sound: True if the object has no problems.
        """
        self.objects += 1
        for counter, value in ((self.categories, row['category']), (self.splits, row['split'])):
            counter[value if isinstance(value, str | None) else repr(value)] += 1
        quality = (record or {}).get('quality', {})
        values = {name: quality.get(name) for name in MEASURES}
        values.update(bytes=row['gaussians_size'] + row['record_size'] + sum(row['view_sizes']),
                      gaussians=row['num_gaussians'], captions=row['num_captions'])
        for name, value in values.items():
            finite = isinstance(value, int | float) and math.isfinite(value)
            self._columns[name].append(value if finite else math.nan)
        key = self._rng.random()
        if not sound or not row['view_sizes']:
            return
        self._random.add(key, row)
        measured = [values[name] for name in ('psnr_foreground', 'psnr') if values[name] is not None]
        if measured:
            self._worst.add(measured[0], row)

    def columns(self) -> dict[str, ndarray]:
        """Return the values of all objects by name of the column, NaN if not measured, (n,) float64."""
        return {name: np.array(values) for name, values in self._columns.items()}

    def chosen(self) -> tuple[list[dict], list[dict]]:
        """Return the rows of the worst objects, the worst first, and of the random ones."""
        worst = self._worst.items()
        uids = {row['uid'] for row in worst}
        others = [row for row in self._random.items() if row['uid'] not in uids]
        return worst, others[:self._num_random]


class _Smallest:
    """The items with the smallest keys of a stream; of equal keys, the first."""

    def __init__(self, count: int) -> None:
        self.count, self._heap, self._seen = count, [], 0

    def add(self, key: float, item) -> None:
        self._seen += 1
        heapq.heappush(self._heap, (-key, -self._seen, item))
        if len(self._heap) > self.count:
            heapq.heappop(self._heap)

    def items(self) -> list:
        return [item for *_, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def count_failures(root: Path) -> tuple[Counter, list[str]]:
    """Count the lines of ``failed.jsonl`` by type of error and message.

    FILE replaces the object's own path, so that equal reasons count together. A last line without end is skipped: a
    kill cut it off.

    Returns:
        The counts and the problems.
    """
    path, failed, problems = root / FAILED, Counter(), []
    if not path.is_file():
        return failed, problems
    with path.open('rb') as file:
        for i, line in enumerate(file, 1):
            if not line.endswith(b'\n'):
                break
            try:
                entry = json.loads(line)
                failed[entry['error'], entry['message'].replace(entry['path'], 'FILE')] += 1
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(f'{FAILED}: line {i} cannot be read ({describe(error)})')
    return failed, problems
