"""Iteration in a thread, so that the work of both sides overlaps."""
from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TypeVar

from clipgs_plugin.parallel.order import Stopped

T = TypeVar('T')
_END = object()


def ahead(items: Generator[T, None, None], size: int, stop: Callable[[], None]) -> Iterator[T]:
    """Yield items that a thread takes in advance; its errors are raised here.

    Args:
        items: Generator, which the thread closes.
        size: Number of items that may wait.
        stop: Function that ends a wait of the thread, by :class:`Stopped` or by the end of the items; it is called if
            the consumer ends first.
    """
    waiting: queue.Queue = queue.Queue(size)
    ended = threading.Event()

    def put(found: tuple) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                return waiting.put(found, timeout=0.1)
        raise Stopped

    def take() -> None:
        try:
            for item in items:
                put((item, None))
            last = (_END, None)
        except BaseException as error:  # raised again by the consumer
            last = (_END, error)
        finally:
            items.close()
        with suppress(Stopped):
            put(last)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        if thread.is_alive():
            ended.set()
            stop()
            thread.join()
