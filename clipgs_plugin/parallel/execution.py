"""Choice of an executor by name."""
from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from clipgs_plugin.parallel.cluster import RayExecutor
from clipgs_plugin.parallel.order import Chunk, Executor, Make
from clipgs_plugin.parallel.processes import ProcessExecutor

EXECUTORS = 'local', 'ray'


def make_executor(name: str, make: Make, workers: int = 1, time_limit: float | None = None,
                  gpu: bool = False) -> Executor:
    """Make an executor for :func:`in_order`.

    Args:
        name: ``'local'`` for processes of this machine; ``'ray'`` for a cluster, to which this process is
            :func:`~clipgs_plugin.parallel.cluster.connected` and whose nodes have the package.
        make: Function that makes a chunk; it is pickled.
        workers: Number of local processes, with one thread each, at least 1.
        time_limit: Seconds of a step of an item; None sets no limit.
        gpu: True if the work of a node needs a GPU.
    """
    return RayExecutor(make, gpu, time_limit) if name == 'ray' else ProcessExecutor(make, workers, time_limit)


def in_this_process(make: Make, chunks: Iterable[Chunk]) -> Iterator:
    """Yield the outcome of each item, made in this process with one thread and without a time limit."""
    for chunk in chunks:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcomes = make(chunk, lambda items: None)
        finally:
            torch.set_num_threads(threads)
        yield from outcomes
