"""Executors: run chunks of objects in this process, in worker processes of this machine, or on a Ray cluster.

An executor returns the outcomes in the order of the objects, so the stored dataset does not depend on it. Memory does
not depend on the number of objects: only a few chunks for each worker are in progress or wait for earlier ones.
"""
from __future__ import annotations

import faulthandler
import logging
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.settings import Execution
from clipgs_plugin.generation.worker import Outcome, failed_outcome

Chunk = tuple[Listed, ...]
Make = Callable[[Chunk, Callable[[int], None]], list[Outcome]]  # worker.make_chunk with its other arguments bound

LOOKAHEAD = 3       # chunks in memory for each slot; finished chunks wait for earlier ones
TASKS_PER_CPU = 2   # of a cluster: a CPU never waits for its next task, and an autoscaler sees demand
TASKS_PER_GPU = 4   # share its memory; while one fits, others load and encode
_EXIT_SECONDS = 10  # that a process may take to end after its pipe has closed


class ProcessDied(RuntimeError):
    """Death of the process that made an object."""

    def __str__(self) -> str:
        return 'the process that made it died, twice: memory ran out, or a library crashed on the file'


class TimedOut(RuntimeError):
    """Object that took longer than the time limit, the argument in seconds."""

    def __str__(self) -> str:
        return f'it took over {self.args[0]:g} s; give more time with time_limit, or leave the object out'


def execute(make: Make, chunks: Iterable[Chunk], execution: Execution, gpu: bool) -> Iterator[Outcome]:
    """Make chunks of objects and yield the outcome of each object, in order.

    Args:
        make: Function that makes a chunk; it is pickled.
        chunks: Chunks of objects.
        execution: Executor, number of workers and time limit. Executor ``'ray'`` expects that this process is
            :func:`connected` and that the package is installed on all nodes.
        gpu: Whether objects are fitted on GPUs.
    """
    if execution.executor == 'ray':
        return _in_order(_RayExecutor(make, gpu, execution.time_limit), chunks)
    if execution.workers:
        return _in_order(_ProcessExecutor(make, execution.workers, execution.time_limit), chunks)
    return _in_this_process(make, chunks)


def _in_this_process(make: Make, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    for chunk in chunks:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcomes = make(chunk, lambda objects: None)
        finally:
            torch.set_num_threads(threads)
        yield from outcomes


class _Executor(Protocol):
    """Workers that make chunks and may die on them."""

    slots: int  # number of chunks that may be in progress

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        """Start a chunk and return its handle; ``alone`` says that nothing else is in progress until it ends."""

    def next(self, in_progress: Collection) -> tuple[Any, list[Outcome] | ProcessDied | TimedOut]:
        """Wait for one of the handles; return it with the outcomes of its chunk or the death of its worker."""

    def close(self) -> None:
        """Kill everything in progress."""


@dataclass(eq=False)
class _Slot:
    """Place of an object in the order of outcomes."""

    listed: Listed
    outcome: Outcome | None = None
    retried: bool = False


def _in_order(executor: _Executor, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """Yield the outcome of each object, in order.

    After the death of a worker (a reader that crashed, or memory that ran out), the objects of its chunk are retried
    one by one, with nothing else in progress. An object whose worker dies again has failed. An object that exceeded
    the time limit in a chunk of its own is not retried.
    """
    chunks, window = iter(chunks), deque()  # of lists of slots, one for each chunk
    in_progress: dict[Any, list[_Slot]] = {}
    retries: deque[_Slot] = deque()

    def submit(slots: list[_Slot], alone: bool = False) -> None:
        in_progress[executor.submit(tuple(slot.listed for slot in slots), alone)] = slots

    with closing(executor):
        while True:
            limit = executor.slots
            while (len(in_progress) < limit and len(window) < LOOKAHEAD * limit
                   and (chunk := next(chunks, None)) is not None):
                window.append([_Slot(listed) for listed in chunk])
                submit(window[-1])
            if not in_progress:
                if not retries:
                    return
                submit([retries.popleft()], alone=True)
            handle, result = executor.next(in_progress)
            slots = in_progress.pop(handle)
            if isinstance(result, list):
                for slot, outcome in zip(slots, result):
                    slot.outcome = outcome
            elif len(slots) == 1 and (slots[0].retried or isinstance(result, TimedOut)):
                slots[0].outcome = failed_outcome(slots[0].listed, result)
            else:
                for slot in slots:
                    slot.retried = True
                retries.extend(slots)
            while window and all(slot.outcome for slot in window[0]):
                yield from (slot.outcome for slot in window.popleft())


def _with_time_limit(make: Make, chunk: Chunk, time_limit: float | None) -> list[Outcome]:
    """Make a chunk, and exit this process with status 1 when a step exceeds the limit."""
    if not time_limit:
        return make(chunk, lambda objects: None)
    with open(os.devnull, 'w') as devnull:
        try:  # a C thread, which ends even native code that holds the interpreter lock
            return make(chunk, lambda objects: faulthandler.dump_traceback_later(
                objects * time_limit, exit=True, file=devnull))
        finally:
            faulthandler.cancel_dump_traceback_later()


# Processes of this machine

class _ProcessExecutor:
    """Spawned processes with one thread each, started on demand.

    Every process has its own pipe. A process that is killed in the middle of a message closes its pipe, and cannot
    hold a lock that other processes wait for; with the shared pipes of common process pools, the run would hang.
    """

    def __init__(self, make: Make, workers: int, time_limit: float | None) -> None:
        self.slots = workers
        self._make, self._time_limit = make, time_limit
        # Spawned, since a fork copies the locks of torch's threads without the threads.
        self._context = multiprocessing.get_context('spawn')
        self._processes: dict[Connection, multiprocessing.Process] = {}
        self._idle: list[Connection] = []
        self._starting: dict[Connection, Chunk] = {}  # with their first chunks
        self._began: dict[Connection, float] = {}

    def submit(self, chunk: Chunk, alone: bool) -> Connection:
        while self._idle:
            pipe = self._idle.pop()
            try:
                self._send(pipe, chunk)
            except OSError:  # it has died while it was idle
                self._kill(pipe)
            else:
                return pipe
        pipe = self._start()
        self._starting[pipe] = chunk  # sent when the process reads: a large chunk would block the next start
        return pipe

    def _send(self, pipe: Connection, chunk: Chunk) -> None:
        self._began[pipe] = time.monotonic()
        pipe.send(chunk)

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._make, self._time_limit), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def next(self, in_progress: Collection[Connection]) -> tuple[Connection, list[Outcome] | ProcessDied | TimedOut]:
        while True:
            pipe = wait(list(in_progress))[0]
            try:
                answer = pipe.recv()
                if answer is None:  # the process is ready
                    self._send(pipe, self._starting.pop(pipe))
                    continue
            except (EOFError, OSError):
                if pipe in self._starting:
                    raise RuntimeError('a process ended before it began, for the reason above; a script that calls '
                                       "generate with workers does so below `if __name__ == '__main__':`") from None
                return pipe, self._death(pipe)
            if isinstance(answer, Exception):
                raise answer
            self._idle.append(pipe)
            return pipe, answer

    def _death(self, pipe: Connection) -> ProcessDied | TimedOut:
        """Return the cause of a death: the time limit ends a process with status 1, signals with negative ones."""
        seconds, process = time.monotonic() - self._began[pipe], self._processes[pipe]
        process.join(_EXIT_SECONDS)
        timed_out = process.exitcode == 1 and self._time_limit and seconds >= self._time_limit
        self._kill(pipe)
        return TimedOut(self._time_limit) if timed_out else ProcessDied()

    def _kill(self, pipe: Connection) -> None:
        self._began.pop(pipe, None)
        process = self._processes.pop(pipe)
        process.kill()
        process.join()
        pipe.close()

    def close(self) -> None:
        for pipe in list(self._processes):
            self._kill(pipe)


def _serve(pipe: Connection, make: Make, time_limit: float | None) -> None:
    """Make chunks from a pipe with one thread, until the parent process ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which kills this process
    threading.Thread(target=_exit_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    pipe.send(None)
    while True:
        chunk = pipe.recv()
        try:
            answer = _with_time_limit(make, chunk, time_limit)
        except Exception as error:  # raised again by the parent
            answer = error
        pipe.send(answer)


def _exit_with(parent) -> None:
    parent.join()
    os._exit(1)


# A Ray cluster

@contextmanager
def connected(address: str | None, gpu: bool) -> Iterator[None]:
    """Connect this process to a running Ray cluster, unless it is connected already.

    Args:
        address: Address of the cluster; None takes ``RAY_ADDRESS``, or the cluster that runs on this machine.
        gpu: Whether the cluster must have GPUs.

    Raises:
        ImportError: Ray is not installed.
        ValueError: The cluster does not run or has no GPU.
    """
    try:
        import ray
    except ImportError:
        raise ImportError('executor "ray" needs Ray; install it with pip install ray') from None
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get('RAY_ADDRESS') or 'auto'
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            where = 'on this machine' if address == 'auto' else f'at {address} (does it need RAY_AUTH_MODE=token?)'
            raise ValueError(f'no Ray cluster {where} ({error}); start one with `ray start --head`, name one by its '
                             'address or RAY_ADDRESS, or use executor "local"') from error
    try:
        if gpu and not ray.cluster_resources().get('GPU'):
            raise ValueError('the Ray cluster has no GPU; add a node with one, or use device "cpu"')
        yield
    finally:
        if ours:
            ray.shutdown()


class _RayExecutor:
    """Tasks of one CPU and one thread each."""

    def __init__(self, make: Make, gpu: bool, time_limit: float | None) -> None:
        import ray
        self._ray, self._gpu, self._time_limit = ray, gpu, time_limit
        self._make = ray.put(make)
        self._task = ray.remote(num_cpus=1, num_gpus=1 / TASKS_PER_GPU if gpu else 0, max_retries=0)(_make_on_node)
        self._deaths = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError,
                        ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
        self._began: dict[Any, float] = {}

    @property
    def slots(self) -> int:
        """Number of tasks for the present size of the cluster."""
        resources = self._ray.cluster_resources()
        tasks = TASKS_PER_CPU * resources.get('CPU', 0)
        return max(1, int(min(tasks, TASKS_PER_GPU * resources.get('GPU', 0)) if self._gpu else tasks))

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        ref = self._task.remote(self._make, chunk, self._time_limit)
        self._began[ref] = time.monotonic() if alone else math.inf  # other tasks wait for a CPU for an unknown time
        return ref

    def next(self, in_progress: Collection) -> tuple[Any, list[Outcome] | ProcessDied | TimedOut]:
        (ref,), _ = self._ray.wait(list(in_progress), num_returns=1)
        seconds = time.monotonic() - self._began.pop(ref)
        try:
            return ref, self._ray.get(ref)
        except self._deaths:
            timed_out = self._time_limit and seconds >= self._time_limit
            return ref, TimedOut(self._time_limit) if timed_out else ProcessDied()
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None

    def close(self) -> None:
        for ref in self._began:
            self._ray.cancel(ref, force=True)


def _make_on_node(make: Make, chunk: Chunk, time_limit: float | None) -> list[Outcome]:
    torch.set_num_threads(1)
    outcomes = _with_time_limit(make, chunk, time_limit)
    for listed, outcome in zip(chunk, outcomes):
        if outcome.failure and not listed.path.exists():
            outcome.failure['message'] += (f' (node {socket.gethostname()} has no {listed.path}: files must lie on '
                                           'storage that every node of the cluster sees)')
    return outcomes
