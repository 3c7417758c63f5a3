"""A thread takes items in advance, a bounded number, and ends with its consumer."""
import threading

import pytest

from clipgs_plugin.parallel import Stopped, ahead


def counting(taken, closed):
    try:
        for i in range(1000):
            taken.append(i)
            yield i
    finally:
        closed.append(threading.current_thread() is not threading.main_thread())


def test_order_errors_and_bound():
    taken, closed = [], []
    items = ahead(counting(taken, closed), 5, lambda: None)
    assert [next(items) for _ in range(100)] == list(range(100)) and len(taken) <= 100 + 5 + 2
    assert list(items) == list(range(100, 1000)) and closed == [True]

    def broken():
        yield 1
        raise RuntimeError('broken')
    items = ahead(broken(), 5, lambda: None)
    assert next(items) == 1
    with pytest.raises(RuntimeError, match='broken'):
        next(items)


def test_the_end_of_the_consumer_ends_the_thread():
    taken, closed, threads = [], [], threading.active_count()
    items = ahead(counting(taken, closed), 5, lambda: None)
    next(items)
    items.close()
    assert closed == [True] and threading.active_count() == threads


def test_a_thread_that_waits_is_stopped():
    stopped = threading.Event()

    def waiting():
        yield 1
        stopped.wait(60)
        raise Stopped
    items = ahead(waiting(), 5, stopped.set)
    next(items)
    items.close()
    assert stopped.is_set()
