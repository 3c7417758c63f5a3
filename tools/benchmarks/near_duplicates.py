"""Near-duplicates of a large index: row by row, all pairs, and by lists of rows that are near to each other."""
from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.search import SearchIndex
from clipgs_plugin.tools.benchmarks.memory import Memory
from clipgs_plugin.tools.benchmarks.search_world import World
from clipgs_plugin.tools.benchmarks.timing import Case

EVERY = 64              # rows, of which the last is nearly the one before; it divides the rows of a shard
LEAST = 0.95            # cosine of such a pair
ALL_PAIRS = 100_000     # rows of which all pairs are compared
SAMPLE, NEIGHBORS = 200, 50  # of the search row by row
T = TypeVar('T')


def plant(vectors: Tensor, rng: np.random.Generator) -> Tensor:
    """Make the last of every 64 unit vectors (n, E) nearly that before it, with cosines from 0.95 to 1."""
    last = torch.arange(EVERY - 1, len(vectors), EVERY)
    own = vectors[last - 1]
    other = normalize(vectors[last] - (vectors[last] * own).sum(1, keepdim=True) * own, dim=1)
    cosines = torch.from_numpy(rng.uniform(LEAST, 1, (len(last), 1)).astype(np.float32))
    vectors[last] = cosines * own + (1 - cosines.square()).sqrt() * other
    return vectors


def near_duplicates(root: Path, world: World, threads: int, cosine: float) -> list[Case]:
    """Time the search for near-duplicates, and measure the recall of the planted ones."""
    import faiss
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    index = SearchIndex.load(root / 'index')
    name = f'{world}: near-duplicates of {cosine:g}'
    chosen = np.random.default_rng(world.seed).choice(world.rows, min(SAMPLE, world.rows), replace=False)
    _, each = timed(name, 'faiss, row by row', threads,
                    lambda: [index.approximate.nearest(vector, NEIGHBORS) for vector in index.vectors(chosen)])
    each.ms, each.cpu_ms, each.note = (each.ms * world.rows / len(chosen), each.cpu_ms * world.rows / len(chosen),
                                       f'{len(chosen)} rows, scaled')
    found, lists = timed(name, 'by lists', threads, lambda: index.duplicates(cosine))
    lists.times, lists.cpu_times = each.ms / lists.ms, each.cpu_ms / lists.cpu_ms
    lists.note = f'{len(found):,} groups, {recall(index, found, cosine)}'
    if world.rows > ALL_PAIRS:
        return [each, lists]
    expected, pairs = timed(name, 'all pairs', threads, lambda: index.duplicates(cosine, exact=True))
    pairs.times, pairs.cpu_times = each.ms / pairs.ms, each.cpu_ms / pairs.cpu_ms
    lists.note += ', the groups of all pairs' if found == expected else ', NOT the groups of all pairs'
    return [each, pairs, lists]


def timed(name: str, way: str, threads: int, function: Callable[[], T]) -> tuple[T, Case]:
    """Return what a function returns, and the time and memory that it takes."""
    with Memory() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        found = function()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return found, Case(name, way, threads, 1e3 * wall, 1e3 * cpu, 'index', memory_mb=memory.anonymous)


def recall(index: SearchIndex, groups: list[list[int]], cosine: float) -> str:
    """Describe how many of the planted pairs of at least a cosine are in one group."""
    group = {row: i for i, rows in enumerate(groups) for row in rows}
    last = np.arange(EVERY - 1, len(index), EVERY)
    scores = torch.cat([(index.vectors(part) * index.vectors(part - 1)).sum(1)
                        for part in np.array_split(last, len(last) // 4096 + 1)])
    planted = last[(scores >= cosine).numpy()]
    hits = sum(row in group and group[row] == group.get(row - 1) for row in planted.tolist())
    return f'{hits:,} of {len(planted):,} planted pairs'
