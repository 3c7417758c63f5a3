"""Chunks of items given to an executor, and their outcomes in the order of the items.

Memory does not depend on the number of items: only a few chunks for each worker are in progress or wait for earlier
ones.
"""
from __future__ import annotations

import faulthandler
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

Chunk = tuple[Any, ...]  # of items, which are pickled
# Function of a chunk that returns an outcome for each item, not None. It calls its second argument before each step,
# with the number of items in the step, which the time limit counts.
Make = Callable[[Chunk, Callable[[int], None]], list]

LOOKAHEAD = 3  # chunks in memory for each slot; finished chunks wait for earlier ones


class ProcessDied(RuntimeError):
    """Death of the process that worked on an item."""

    def __str__(self) -> str:
        return 'the process that worked on it died, twice: memory ran out, or a library crashed on the file'


class TimedOut(RuntimeError):
    """Item that took longer than the time limit, the argument in seconds."""

    def __str__(self) -> str:
        return f'it took over {self.args[0]:g} s; give more time with time_limit, or leave it out'


class Stopped(Exception):
    """Executor that another thread has stopped."""


class Executor(Protocol):
    """Workers that make chunks and may die on them."""

    slots: int  # number of chunks that may be in progress

    def submit(self, chunk: Chunk, alone: bool) -> Any:
        """Start a chunk and return its handle; ``alone`` says that nothing else is in progress until it ends."""

    def next(self, in_progress: Collection) -> tuple[Any, list | ProcessDied | TimedOut]:
        """Wait for one of the handles; return it with the outcomes of its chunk or the death of its worker."""

    def stop(self) -> None:
        """Kill everything in progress from another thread, where ``submit`` and ``next`` raise :class:`Stopped`."""

    def close(self) -> None:
        """Kill everything in progress."""


@dataclass(eq=False)
class _Slot:
    """Place of an item in the order of outcomes."""

    item: Any
    outcome: Any = None
    retried: bool = False


def in_order(executor: Executor, chunks: Iterable[Chunk], failed: Callable[[Any, Exception], Any]) -> Iterator:
    """Yield the outcome of each item, in order.

    After the death of a worker (a reader that crashed, or memory that ran out), the items of its chunk are retried
    one by one, with nothing else in progress. An item whose worker dies again has failed. An item that exceeded
    the time limit in a chunk of its own is not retried.

    Args:
        executor: Workers; they are closed at the end.
        chunks: Chunks of items.
        failed: Function that makes the outcome of an item from the death of its worker.
    """
    chunks, window = iter(chunks), deque()  # of lists of slots, one for each chunk
    in_progress: dict[Any, list[_Slot]] = {}
    retries: deque[_Slot] = deque()

    def submit(slots: list[_Slot], alone: bool = False) -> None:
        in_progress[executor.submit(tuple(slot.item for slot in slots), alone)] = slots

    with closing(executor):
        while True:
            limit = executor.slots
            while (len(in_progress) < limit and len(window) < LOOKAHEAD * limit
                   and (chunk := next(chunks, None)) is not None):
                window.append([_Slot(item) for item in chunk])
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
                slots[0].outcome = failed(slots[0].item, result)
            else:
                for slot in slots:
                    slot.retried = True
                retries.extend(slots)
            while window and all(slot.outcome is not None for slot in window[0]):
                yield from (slot.outcome for slot in window.popleft())


def with_time_limit(make: Make, chunk: Chunk, time_limit: float | None) -> list:
    """Make a chunk, and exit this process with status 1 when a step exceeds the limit."""
    if not time_limit:
        return make(chunk, lambda items: None)
    with open(os.devnull, 'w') as devnull:
        try:  # a C thread, which ends even native code that holds the interpreter lock
            return make(chunk, lambda items: faulthandler.dump_traceback_later(
                items * time_limit, exit=True, file=devnull))
        finally:
            faulthandler.cancel_dump_traceback_later()
