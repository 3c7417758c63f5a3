"""Execution of a run: chunks of objects in this process, in worker processes of this machine, or on a Ray cluster.

The outcomes come in the order of the objects, so the stored dataset does not depend on the executor.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.settings import Execution
from clipgs_plugin.generation.worker import Outcome, failed_outcome
from clipgs_plugin.parallel import in_order, in_this_process, make_executor
from clipgs_plugin.parallel.cluster import missing_on_node

Chunk = tuple[Listed, ...]
Make = Callable[[Chunk, Callable[[int], None]], list[Outcome]]  # worker.make_chunk with its other arguments bound


def execute(make: Make, chunks: Iterable[Chunk], execution: Execution, gpu: bool) -> Iterator[Outcome]:
    """Make chunks of objects and yield the outcome of each object, in order.

    Args:
        make: Function that makes a chunk; it is pickled.
        chunks: Chunks of objects.
        execution: Executor, number of workers and time limit. Executor ``'ray'`` expects that this process is
            :func:`~clipgs_plugin.parallel.cluster.connected` and that the package is installed on all nodes.
        gpu: True fits objects on GPUs.
    """
    if execution.executor == 'local' and not execution.workers:
        return in_this_process(make, chunks)
    make = partial(_on_node, make) if execution.executor == 'ray' else make
    executor = make_executor(execution.executor, make, execution.workers, execution.time_limit, gpu)
    return in_order(executor, chunks, failed_outcome)


def _on_node(make: Make, chunk: Chunk, begin_step: Callable[[int], None]) -> list[Outcome]:
    """Make a chunk on a node of a cluster, and name the files that the node does not have."""
    outcomes = make(chunk, begin_step)
    for listed, outcome in zip(chunk, outcomes):
        if outcome.failure:
            outcome.failure['message'] += missing_on_node(listed.path)
    return outcomes
