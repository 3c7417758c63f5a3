"""Executor of tasks on a Ray cluster."""
from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from clipgs_plugin.parallel.order import Chunk, Make, ProcessDied, Stopped, TimedOut, with_time_limit

TASKS_PER_CPU = 2   # of a cluster: a CPU never waits for its next task, and an autoscaler sees demand
TASKS_PER_GPU = 4   # share its memory; while one computes, others load and encode


@contextmanager
def connected(address: str | None, gpu: bool) -> Iterator[None]:
    """Connect this process to a running Ray cluster, unless it is connected already.

    Args:
        address: Address of the cluster; None takes ``RAY_ADDRESS``, or the cluster that runs on this machine.
        gpu: True requires GPUs of the cluster.

    Raises:
        ImportError: Ray is not installed.
        ValueError: The cluster does not run or has no GPU.
    """
    try:
        import ray
    except ImportError:
        raise ImportError('work on a Ray cluster needs Ray, of the extra cluster; pip install ray') from None
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get('RAY_ADDRESS') or 'auto'
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            where = 'on this machine' if address == 'auto' else f'at {address} (does it need RAY_AUTH_MODE=token?)'
            raise ValueError(f'no Ray cluster {where} ({error}); start one with `ray start --head`, name one by its '
                             'address or RAY_ADDRESS, or work in processes of this machine') from error
    try:
        if gpu and not ray.cluster_resources().get('GPU'):
            raise ValueError('the Ray cluster has no GPU; add a node with one, or use device "cpu"')
        yield
    finally:
        if ours:
            ray.shutdown()


class RayExecutor:
    """Tasks of one CPU and one thread each.

    Args:
        make: Function that makes a chunk; it is pickled.
        gpu: True gives a task a share of a GPU.
        time_limit: Seconds of a step of an item; None sets no limit.
    """

    def __init__(self, make: Make, gpu: bool, time_limit: float | None) -> None:
        import ray
        self._ray, self._gpu, self._time_limit = ray, gpu, time_limit
        self._make = ray.put(make)
        self._task = ray.remote(num_cpus=1, num_gpus=1 / TASKS_PER_GPU if gpu else 0, max_retries=0)(_make_on_node)
        self._deaths = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
                        ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
        self._began: dict[Any, float] = {}
        self._stopped = False

    @property
    def slots(self) -> int:
        """Number of tasks for the present size of the cluster."""
        resources = self._ray.cluster_resources()
        tasks = TASKS_PER_CPU * resources.get('CPU', 0)
        return max(1, int(min(tasks, TASKS_PER_GPU * resources.get('GPU', 0)) if self._gpu else tasks))

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        ref = self._task.remote(self._make, chunk, self._time_limit)
        self._began[ref] = time.monotonic() if alone else math.inf  # other tasks wait for a CPU for an unknown time
        self._check_stopped()  # stop() may have missed the task
        return ref

    def next(self, in_progress: Collection) -> tuple[Any, list | ProcessDied | TimedOut]:
        (ref,), _ = self._ray.wait(list(in_progress), num_returns=1)
        self._check_stopped()
        seconds = time.monotonic() - self._began.pop(ref)
        try:
            return ref, self._ray.get(ref)
        except self._deaths:
            timed_out = self._time_limit and seconds >= self._time_limit
            return ref, TimedOut(self._time_limit) if timed_out else ProcessDied()
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None

    def _check_stopped(self) -> None:
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        self._stopped = True
        self.close()

    def close(self) -> None:
        for ref in list(self._began):
            self._ray.cancel(ref, force=True)


def _make_on_node(make: Make, chunk: Chunk, time_limit: float | None) -> list:
    torch.set_num_threads(1)
    return with_time_limit(make, chunk, time_limit)


def missing_on_node(path: str | os.PathLike) -> str:
    """Return what to add to the failure of a file that this node does not have; nothing if it has it."""
    return '' if os.path.exists(path) else (
        f' (node {socket.gethostname()} has no {path}: files must lie on storage that every node of the cluster sees)')
