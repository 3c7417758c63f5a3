"""How objects are shared out: in this process, or over processes of this machine."""
from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from clipgs_plugin.triplets.making import make_triplet
from clipgs_plugin.triplets.objects import Listed
from clipgs_plugin.triplets.settings import GenerationSettings
from clipgs_plugin.triplets.sources.base import Source


@dataclass(frozen=True)
class Outcome:
    """What became of an object."""

    listed: Listed
    triplet: bytes | None = None   # a pickled Triplet: tensors that crossed by themselves would cost file descriptors
    failure: dict | None = None
    notes: tuple[str, ...] = ()    # warnings


def failure_of(listed: Listed, error: Exception) -> dict:
    return dict(uid=listed.uid, path=str(listed.path), error=type(error).__name__, message=str(error))


def make_outcome(listed: Listed, source: Source, settings: GenerationSettings) -> Outcome:
    """The triplet of an object, or why there is none."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always', UserWarning)
        try:
            triplet = make_triplet(listed, source, settings)
        except ImportError:
            raise  # every other object would fail alike
        except Exception as error:  # readers of files of any origin raise anything, and one must not stop a run
            return Outcome(listed, failure=failure_of(listed, error))
    return Outcome(listed, pickle.dumps(triplet), notes=tuple(str(note.message) for note in notes))


def outcomes(make: Callable[[Listed], Outcome], listed: Iterable[Listed], workers: int) -> Iterator[Outcome]:
    """What ``make`` gives for each object, in their order; a few objects for each process are under way at a time.

    Where a process dies (a reader that crashes, or memory that ran out), every object that was under way is made again
    by itself, and the one whose process dies again has failed.
    """
    if workers == 0:
        yield from map(partial(_one_thread, make), listed)
        return
    listed, window, pool = iter(listed), deque(), None
    try:
        while True:
            pool = pool or _pool(make, workers)
            for item in islice(listed, 3 * workers - len(window)):
                window.append((item, _submit(pool, item)))
            if not window:
                return
            outcome = _result(window[0][1])
            if outcome is not None:
                window.popleft()
                yield outcome
                continue
            pool.shutdown()
            pool = None
            yield from _one_by_one(make, window)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _one_thread(make: Callable[[Listed], Outcome], item: Listed) -> Outcome:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make(item)
    finally:
        torch.set_num_threads(threads)


def _pool(make: Callable[[Listed], Outcome], workers: int) -> ProcessPoolExecutor:
    # Spawned, since a fork copies the locks of torch's threads without the threads.
    return ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _start, (make,))


def _submit(pool: ProcessPoolExecutor, item: Listed) -> Future:
    try:
        return pool.submit(_call, item)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
        return future


def _result(future: Future) -> Outcome | None:
    """What a process made, None where it died."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _one_by_one(make: Callable[[Listed], Outcome], window: deque[tuple[Listed, Future]]) -> Iterator[Outcome]:
    """The outcomes of a window that a death has stopped, with one object under way at a time."""
    pool = None
    try:
        while window:
            item, future = window.popleft()
            outcome = _result(future)
            if outcome is None:
                pool = pool or _pool(make, 1)
                outcome = _result(_submit(pool, item))
            if outcome is None:
                pool.shutdown()
                pool = None
                outcome = Outcome(item, failure=dict(
                    uid=item.uid, path=str(item.path), error='ProcessDied',
                    message='the process that made it died, twice: memory ran out, or a library crashed on the file'))
            yield outcome
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


_job: Callable[[Listed], Outcome] | None = None  # of this process, set as it starts


def _start(make: Callable[[Listed], Outcome]) -> None:
    """Prepare a process: one thread, and no life after its parent."""
    global _job
    _job = make
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)


def _call(item: Listed) -> Outcome:
    return _job(item)
