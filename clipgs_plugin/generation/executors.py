"""Who makes objects: this process, processes of this machine, or the nodes of a Ray cluster.

An engine takes chunks of listed objects and gives the outcome of each object, in their order, so that what is written
does not depend on the engine. Memory does not depend on how many objects there are: a few chunks for each process are
under way or wait for those before them.
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
from clipgs_plugin.generation.worker import Outcome, failed

Chunk = tuple[Listed, ...]
Make = Callable[[Chunk, Callable[[int], None]], list[Outcome]]  # as chunks.make_chunk, but for what is the same for all

AHEAD = 3          # chunks in memory, as a multiple of those under way; finished ones wait for earlier ones
TASKS_PER_CPU = 2  # of a cluster, so that its next task is there when one ends, and an autoscaler sees demand
TASKS_PER_GPU = 4  # whose memory they share; while one fits, others load and encode
_PARTING = 10.0    # seconds that a process has to end after its pipe has closed


class ProcessDied(RuntimeError):
    """The process that made an object died."""

    def __str__(self) -> str:
        return 'the process that made it died, twice: memory ran out, or a library crashed on the file'


class TimedOut(RuntimeError):
    """An object took longer than the limit, which is its argument, in seconds."""

    def __str__(self) -> str:
        return f'it took over {self.args[0]:g} s; give more time with time_limit, or leave the object out'


def make_here(make: Make, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """Objects made in this process by one thread; nothing stops one that hangs or crashes."""
    for chunk in chunks:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcomes = make(chunk, lambda objects: None)
        finally:
            torch.set_num_threads(threads)
        yield from outcomes


def make_on_processes(make: Make, chunks: Iterable[Chunk], workers: int, time_limit: float | None) -> Iterator[Outcome]:
    """Objects made by processes of this machine; see :func:`_in_order`."""
    return _in_order(_Processes(make, workers, time_limit), chunks)


def make_on_ray(make: Make, chunks: Iterable[Chunk], gpu: bool, time_limit: float | None) -> Iterator[Outcome]:
    """Objects made by the nodes of the cluster to which this process is :func:`connected`; see :func:`_in_order`.

    Args:
        make: Is pickled; the package must be installed on all nodes.
        chunks: Their files lie where every node has them under the same path.
        gpu: Whether objects are fitted on GPUs.
        time_limit: Seconds of a step of an object.
    """
    return _in_order(_RayTasks(make, gpu, time_limit), chunks)


class _Crew(Protocol):
    """Processes that make chunks."""

    slots: int  # how many chunks may be under way

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        """Begin a chunk, ``alone`` where nothing else is under way until it ends; returns a handle."""

    def next(self, under_way: Collection) -> tuple[Any, list[Outcome] | ProcessDied | TimedOut]:
        """Wait for one of the handles; gives it with what became of its chunk, or of its process."""

    def close(self) -> None:
        """End whatever is under way."""


@dataclass(eq=False)
class _Slot:
    """An object's place in the order."""

    listed: Listed
    outcome: Outcome | None = None
    retried: bool = False


def _in_order(crew: _Crew, chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """What a crew makes of each object, in their order.

    Where a process dies (a reader that crashes, or memory that ran out), the objects of its chunk are made again one by
    one, each with nothing else under way, and the one whose process dies again has failed. One that was by itself and
    over the limit of time is not made again.
    """
    chunks, window = iter(chunks), deque()  # of lists of slots, one a chunk
    under_way: dict[Any, list[_Slot]] = {}
    again: deque[_Slot] = deque()

    def begin(slots: list[_Slot], alone: bool = False) -> None:
        under_way[crew.submit(tuple(slot.listed for slot in slots), alone)] = slots

    with closing(crew):
        while True:
            most = crew.slots
            while (len(under_way) < most and len(window) < AHEAD * most
                   and (chunk := next(chunks, None)) is not None):
                window.append([_Slot(listed) for listed in chunk])
                begin(window[-1])
            if not under_way:
                if not again:
                    return
                begin([again.popleft()], alone=True)
            handle, found = crew.next(under_way)
            slots = under_way.pop(handle)
            if isinstance(found, Exception):
                again.extend(_after_death(slots, found))
            else:
                for slot, outcome in zip(slots, found):
                    slot.outcome = outcome
            while window and all(slot.outcome for slot in window[0]):
                yield from (slot.outcome for slot in window.popleft())


def _after_death(slots: list[_Slot], death: ProcessDied | TimedOut) -> list[_Slot]:
    """Which objects of a chunk whose process has died are to be made again; the others have failed."""
    if len(slots) == 1 and (slots[0].retried or isinstance(death, TimedOut)):
        slots[0].outcome = failed(slots[0].listed, death)
        return []
    for slot in slots:
        slot.retried = True
    return slots


def _watched(make: Make, chunk: Chunk, time_limit: float | None) -> list[Outcome]:
    """What ``make`` gives, in a process that ends where a step takes too long, whatever holds it up."""
    if not time_limit:
        return make(chunk, lambda objects: None)
    with open(os.devnull, 'w') as nowhere:
        try:  # a thread in C, which needs no lock of the interpreter
            return make(chunk, lambda objects: faulthandler.dump_traceback_later(
                objects * time_limit, exit=True, file=nowhere))
        finally:
            faulthandler.cancel_dump_traceback_later()


# Processes of this machine

class _Processes:
    """Spawned processes of one thread each, started when they are needed."""

    def __init__(self, make: Make, workers: int, time_limit: float | None) -> None:
        self.slots = workers
        self._make, self._time_limit = make, time_limit
        # Spawned, since a fork copies the locks of torch's threads without the threads.
        self._context = multiprocessing.get_context('spawn')
        self._processes: dict[Connection, multiprocessing.Process] = {}
        self._idle: list[Connection] = []
        self._starting: dict[Connection, Chunk] = {}  # and what each is to make
        self._began: dict[Connection, float] = {}

    def submit(self, chunk: Chunk, alone: bool) -> Connection:
        while self._idle:
            pipe = self._idle.pop()
            try:
                self._send(pipe, chunk)
            except OSError:  # it has died while it was idle
                self._end(pipe)
            else:
                return pipe
        pipe = self._start()
        self._starting[pipe] = chunk  # sent when it reads, since a pipe holds little, and the next can start meanwhile
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

    def next(self, under_way: Collection[Connection]) -> tuple[Connection, list[Outcome] | ProcessDied | TimedOut]:
        while True:
            pipe = wait(list(under_way))[0]
            try:
                answer = pipe.recv()
                if answer is None:  # it says that it has begun
                    self._send(pipe, self._starting.pop(pipe))
                    continue
            except (EOFError, OSError):
                if pipe in self._starting:
                    raise self._no_start() from None
                return pipe, self._death(pipe)
            if isinstance(answer, Exception):
                raise answer
            self._idle.append(pipe)
            return pipe, answer

    def _death(self, pipe: Connection) -> ProcessDied | TimedOut:
        """Of what a process has died: one that is out of time ends with status 1, signals give negative ones."""
        seconds, process = time.monotonic() - self._began[pipe], self._processes[pipe]
        process.join(_PARTING)
        out_of_time = process.exitcode == 1 and self._time_limit and seconds >= self._time_limit
        self._end(pipe)
        return TimedOut(self._time_limit) if out_of_time else ProcessDied()

    def _no_start(self) -> RuntimeError:
        return RuntimeError('a process ended before it began, for the reason above; a script that calls generate with '
                            "workers does so below `if __name__ == '__main__':`")

    def _end(self, pipe: Connection) -> None:
        self._began.pop(pipe, None)
        process = self._processes.pop(pipe)
        process.kill()
        process.join()
        pipe.close()

    def close(self) -> None:
        for pipe in list(self._processes):
            self._end(pipe)


def _serve(pipe: Connection, make: Make, time_limit: float | None) -> None:
    """The life of a process: one thread, and an end with its parent's."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    pipe.send(None)
    while True:
        chunk = pipe.recv()
        try:
            answer = _watched(make, chunk, time_limit)
        except Exception as error:  # raised by the parent
            answer = error
        pipe.send(answer)


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)


# A Ray cluster

@contextmanager
def connected(address: str | None, gpu: bool) -> Iterator[None]:
    """Connect this process to a Ray cluster, unless it is connected.

    Args:
        address: None takes that of ``RAY_ADDRESS``, or the cluster that runs on this machine.
        gpu: Whether it must have GPUs.

    Raises:
        ImportError: Ray is not installed.
        ValueError: There is no such cluster; none is started.
    """
    try:
        import ray
    except ImportError:
        raise ImportError('engine "ray" needs Ray; install it with pip install "clipgs_plugin[cluster]"') from None
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get('RAY_ADDRESS') or 'auto'
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            where = 'on this machine' if address == 'auto' else f'at {address} (does it want RAY_AUTH_MODE=token?)'
            raise ValueError(f'no Ray cluster {where} ({error}); start one with `ray start --head`, name one by its '
                             'address or RAY_ADDRESS, or use engine "local"') from error
    try:
        if gpu and not ray.cluster_resources().get('GPU'):
            raise ValueError('the Ray cluster has no GPU; add a node with one, or use device "cpu"')
        yield
    finally:
        if ours:
            ray.shutdown()


class _RayTasks:
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
        """By the cluster's size of the moment."""
        found = self._ray.cluster_resources()
        tasks = TASKS_PER_CPU * found.get('CPU', 0)
        return max(1, int(min(tasks, TASKS_PER_GPU * found.get('GPU', 0)) if self._gpu else tasks))

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        ref = self._task.remote(self._make, chunk, self._time_limit)
        self._began[ref] = time.monotonic() if alone else math.inf  # others wait for a CPU, nobody knows how long
        return ref

    def next(self, under_way: Collection) -> tuple[Any, list[Outcome] | ProcessDied | TimedOut]:
        (ref,), _ = self._ray.wait(list(under_way), num_returns=1)
        seconds = time.monotonic() - self._began.pop(ref)
        try:
            return ref, self._ray.get(ref)
        except self._deaths:
            out_of_time = self._time_limit and seconds >= self._time_limit
            return ref, TimedOut(self._time_limit) if out_of_time else ProcessDied()
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None

    def close(self) -> None:
        for ref in self._began:
            self._ray.cancel(ref, force=True)


def _make_on_node(make: Make, chunk: Chunk, time_limit: float | None) -> list[Outcome]:
    torch.set_num_threads(1)
    outcomes = _watched(make, chunk, time_limit)
    for listed, outcome in zip(chunk, outcomes):
        if outcome.failure and not listed.path.exists():
            outcome.failure['message'] += (f' (node {socket.gethostname()} has no {listed.path}: files must lie on '
                                           'storage that every node of the cluster sees)')
    return outcomes
