"""Search in a large index: exact, and approximate with exact comparison of the candidates."""
from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from clipgs_plugin.search import IndexCard, SearchIndex
from clipgs_plugin.search.folder import open_folder
from clipgs_plugin.search.metadata import base_schema
from clipgs_plugin.search.writer import write_parts
from clipgs_plugin.tools.benchmarks.memory import Memory
from clipgs_plugin.tools.benchmarks.near_duplicates import near_duplicates, plant
from clipgs_plugin.tools.benchmarks.search_world import World
from clipgs_plugin.tools.benchmarks.timing import Case

K, FILTER = 10, 'part=0'  # the latter holds for a tenth of the rows
LARGE = 4 << 30  # bytes of vectors of which one exact query a kind is timed, since each reads them all


def search(rows: int = 100_000, width: int = 1024, queries: int = 200, threads: int = 2, folder: str = '',
           centers: str = '', seed: int = 0, duplicates: float = 0.0, index: str = '', texts: str = '') -> list[Case]:
    """Time queries of an index of synthetic or given vectors, and measure recall@10, memory and building.

    A synthetic cluster has 100 rows on average. Its centre and its rows vary along axis i with standard deviations of
    i^-1/2 and 0.7 i^-1/2, and all rows share an offset, so that two of different clusters have a cosine of about 0.3.
    With --centers, the centres are the rows of an index, or of an .npz of embeddings. Queries are new members of the
    clusters, means of two of them, and members turned by random directions to a cosine of 0.3, about as far as texts
    lie; with a condition, recall is that of the first ones. With --index, the vectors are the rows of an index, and the
    members are rows that are left out of it. --texts is a file of further queries, a text a line, which the model of
    --index or --centers embeds. MB is the memory of the process above that before, without pages of mapped files, which
    the note has. --folder keeps the index and its codes for further runs. With --duplicates COSINE, one row of 64 is
    nearly the one before, and the search for such rows is timed as well.
    """
    world = World.around(texts, rows=rows, width=width, queries=queries, seed=seed, centers=centers, index=index)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(folder or temporary)
        context = multiprocessing.get_context('spawn')  # memory is measured in processes of their own
        found = []
        steps = [partial(write, planted=duplicates > 0), build, ask]
        if duplicates:
            steps.append(partial(near_duplicates, cosine=duplicates))
        for i, step in enumerate(steps, 1):
            with ProcessPoolExecutor(1, mp_context=context) as process:
                cases, seconds, peak = process.submit(measured, step, root, world, threads).result()
            print(f'step {i} of {len(steps)}: {seconds:.0f} s, at most {peak:.0f} MB of private memory in all',
                  file=sys.stderr)
            found += cases
    return found


def measured(step: Callable[..., list[Case]], *arguments) -> tuple[list[Case], float, float]:
    """Return what a step returns, its seconds, and the peak of the memory of this process in MB, without files."""
    start = time.perf_counter()
    with Memory() as memory:
        memory.before = 0.0
        found = step(*arguments)
    return found, time.perf_counter() - start, memory.anonymous


def write(root: Path, world: World, threads: int, planted: bool = False) -> list[Case]:
    """Write the index, unless the folder has it."""
    if (root / 'index' / 'index.json').is_file():
        return []
    rng = np.random.default_rng(world.seed + 1)
    start, cpu = time.perf_counter(), time.process_time()

    def parts() -> Iterator[tuple[np.ndarray, pa.Table]]:
        first = 0
        for vectors in world.parts(rng):
            numbers = np.arange(first, first := first + len(vectors))
            zeros = pa.array(np.zeros_like(numbers))
            values = dict(path=pa.array([f'/objects/{i:09d}.ply' for i in numbers]), size=zeros, mtime_ns=zeros,
                          gaussians=pa.array(numbers))
            columns = {field.name: values.get(field.name, pa.nulls(len(numbers), field.type))
                       for field in base_schema()}
            columns['part'] = pa.array(numbers % 10)
            yield (plant(vectors, rng) if planted else vectors).numpy(), pa.table(columns)

    with Memory() as memory:
        write_parts(root / 'index', IndexCard('synthetic', world.width), parts())
    return [Case(f'{world}: writing', '', threads, 1e3 * (time.perf_counter() - start),
                 1e3 * (time.process_time() - cpu), 'index', memory_mb=memory.anonymous)]


def build(root: Path, world: World, threads: int) -> list[Case]:
    """Build the codes, unless the folder has them."""
    import faiss

    from clipgs_plugin.search.building import build_approximate
    if (root / 'index' / 'approximate.json').is_file():
        return []
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    start, cpu = time.perf_counter(), time.process_time()
    with Memory() as memory:
        record = build_approximate(root / 'index', world.seed)
    size = sum(path.stat().st_size for path in (root / 'index').glob('approximate.*')) / 2 ** 20
    return [Case(f'{world}: building', '', threads, 1e3 * (time.perf_counter() - start),
                 1e3 * (time.process_time() - cpu), 'index', memory_mb=memory.anonymous,
                 note=f'{record.probes} lists and {record.candidates} candidates a query, recall@{K} '
                      f'{record.recall.objects:.3f} of its rows, {record.recall.means:.3f} of means of two, '
                      f'{record.recall.far:.3f} of far queries; {size:.0f} MB of files')]


def ask(root: Path, world: World, threads: int) -> list[Case]:
    """Time queries one by one, exactly and approximately, with and without a condition."""
    import faiss
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    asked = [(name, vectors, ()) for name, vectors in world.asked().items()]
    if not world.index:
        asked.append((f'query where {FILTER}', asked[0][1], FILTER))
    cases, answers, index = [], [], SearchIndex.load(root / 'index')
    for name, queries, where in asked:
        few = queries[:max(5, len(queries) // 40) if 2 * world.rows * world.width < LARGE else 1]
        _, case = timed(index, f'{world}: {name}', 'exact', few, where, threads)
        cases.append(case)
        found, fast = timed(index, f'{world}: {name}', 'approximate', queries, where, threads)
        fast.times, fast.cpu_times = case.ms / fast.ms, case.cpu_ms / max(fast.cpu_ms, 1e-9)
        budgeted = (world.rows, world.width, threads) == (1_000_000, 1024, 2) and not where
        fast.budget_ms = 10 if budgeted else None
        cases.append(fast)
        answers.append((fast, name, found))
    expected = truth(root, asked)
    for fast, name, found in answers:
        hits = [len(set(a) & set(b)) / len(b) for a, b in zip(found, expected[name].tolist())]
        fast.note = f'recall@{K} {np.mean(hits):.3f} ± {np.std(hits) / len(hits) ** 0.5:.3f}, {fast.note}'
    return cases


def truth(root: Path, asked: list[tuple[str, Tensor, tuple | str]]) -> dict[str, Tensor]:
    """Return the exact nearest rows of queries by name, in a pass over the vectors for each condition."""
    from clipgs_plugin.search.building import nearest_of_many
    vectors, index = open_folder(root / 'index')[2], SearchIndex.load(root / 'index')
    found = {}
    for where in dict.fromkeys(where for *_, where in asked):
        names, queries = zip(*((name, each) for name, each, condition in asked if condition == where))
        rows = nearest_of_many(vectors, torch.cat(queries), K, index.rows(where) if where else None)
        found.update(zip(names, rows.split(list(map(len, queries)))))
    return found


def timed(index: SearchIndex, name: str, way: str, asked: Tensor, where, threads: int) -> tuple[list[list[int]], Case]:
    """Return the rows that queries find, and the median time of one."""
    with Memory() as memory:
        if len(asked) > 1:
            index.find(asked[0], K, where, exact=way == 'exact')  # opens what it needs
        elif where:
            index.rows(where)
        found, wall, cpu = [], [], []
        for query in asked:
            start, cpu_start = time.perf_counter(), time.process_time()
            matches = index.find(query, K, where, exact=way == 'exact')
            wall.append(1e3 * (time.perf_counter() - start))
            cpu.append(1e3 * (time.process_time() - cpu_start))
            found.append([match.row for match in matches])
    note = f'95 % within {np.percentile(wall, 95):.1f} ms, {memory.mapped:.0f} MB mapped, load {os.getloadavg()[0]:.1f}'
    return found, Case(name, way, threads, float(np.median(wall)), float(np.median(cpu)), 'query',
                       memory_mb=memory.anonymous, note=note)
