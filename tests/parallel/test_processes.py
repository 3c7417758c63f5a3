"""Worker processes of this machine: the causes of their deaths, large chunks, and a stop from another thread."""
import os
import struct
import threading
import time
from types import SimpleNamespace

import pytest

from clipgs_plugin.parallel import ProcessDied, Stopped, TimedOut, in_order, processes
from clipgs_plugin.parallel.processes import ProcessExecutor


@pytest.fixture
def clock(monkeypatch):
    """Clock that a test moves."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(processes.time, 'monotonic', lambda: now.seconds)
    return now


class FakeProcesses(ProcessExecutor):
    """Executor whose processes are played by the test."""

    def _start(self):
        ours, self.theirs = self._context.Pipe()
        self.process = self._processes[ours] = SimpleNamespace(
            exitcode=None, join=lambda timeout=None: None, kill=lambda: None)
        return ours


@pytest.mark.parametrize('status, seconds, expected', [
    (1, 2.5, TimedOut), (1, 1.5, ProcessDied), (-11, 60, ProcessDied), (9, 60, ProcessDied)])
def test_the_exit_status_of_a_process_gives_the_cause_of_its_death(clock, status, seconds, expected):
    """Steps within the limit of 2 s may take longer in total before one crashes; the process may die as it sends."""
    executor = FakeProcesses(None, 1, 2.0)
    pipe = executor.submit(('a',), False)
    clock.seconds += 50  # to start
    executor.theirs.send(None)

    def die():
        executor.theirs.recv()
        clock.seconds += seconds
        executor.process.exitcode = status
        os.write(executor.theirs.fileno(), struct.pack('!i', 1000) + b'half a message')
        executor.theirs.close()
    death = threading.Thread(target=die)
    death.start()
    found = executor.next([pipe])
    death.join()
    assert found[0] is pipe and type(found[1]) is expected


def test_a_large_chunk_does_not_block_the_start_of_other_processes():
    executor, chunk = FakeProcesses(None, 2, None), ('x' * 10 ** 6,)
    submitting = threading.Thread(target=executor.submit, args=(chunk, False), daemon=True)
    submitting.start()
    submitting.join(5)
    assert not submitting.is_alive()
    found = []
    waiting = threading.Thread(target=lambda: found.append(executor.next(list(executor._processes))), daemon=True)
    waiting.start()
    executor.theirs.send(None)
    assert executor.theirs.recv() == chunk
    executor.theirs.send(['an outcome'])
    waiting.join(5)
    assert found[0][1] == ['an outcome']


def sleep_or_double(chunk, begin_step):
    if 'sleep' in chunk:
        time.sleep(600)
    return [item * 2 for item in chunk]


def test_a_stop_from_another_thread_ends_the_wait_for_a_worker():
    executor = ProcessExecutor(sleep_or_double, 2, None)
    outcomes = in_order(executor, [('a', 'b'), ('sleep',), ('c',)], failed=None)
    assert [next(outcomes), next(outcomes)] == ['aa', 'bb']
    stopper = threading.Timer(0.1, executor.stop)
    stopper.start()
    with pytest.raises(Stopped):
        next(outcomes)
    stopper.join()
    assert not executor._processes
    with pytest.raises(Stopped):
        executor.submit(('d',), False)
    executor.close()
