"""Retrieval in a full gallery: its time and its memory."""
from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from clipgs_plugin.evaluation import rank_gallery
from clipgs_plugin.tools.benchmarks.memory import Memory
from clipgs_plugin.tools.benchmarks.timing import Case


def retrieval(objects: int = 50_000, width: int = 1024, queries: int = 0, threads: int = 2) -> list[Case]:
    """Rank every object of a gallery for each query, by random embeddings, in a process of its own. MB is the peak
    growth of its memory above the two sets of embeddings. --queries takes fewer than all objects."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
        return [process.submit(_ranked, objects, width, queries or objects, threads).result()]


def _ranked(objects: int, width: int, queries: int, threads: int) -> Case:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    gallery, ids = torch.randn(objects, width, generator=generator), torch.arange(objects)
    asked = gallery[:queries] + torch.randn(queries, width, generator=generator)
    rank_gallery(asked[:1], gallery, ids[:1], ids)  # what the first call loads
    wall, cpu = time.perf_counter(), time.process_time()
    with Memory() as memory:
        found = rank_gallery(asked, gallery, ids[:queries], ids)
    ms, cpu_ms = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
    return Case(f'{queries:,} x {objects:,}', f'{width} dimensions', threads, ms / queries, cpu_ms / queries, 'query',
                memory_mb=memory.anonymous, note=f'{ms / 1e3:.1f} s, median rank {found.ranks.median().item()}')
