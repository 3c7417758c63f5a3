"""Tasks on a Ray cluster, which a stand-in plays; tests/generation/test_executors.py starts one."""
import sys
from types import SimpleNamespace

import pytest

from clipgs_plugin.parallel import ProcessDied, TimedOut, cluster
from clipgs_plugin.parallel.cluster import RayExecutor


@pytest.fixture
def clock(monkeypatch):
    """Clock that a test moves."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(cluster.time, 'monotonic', lambda: now.seconds)
    return now


def test_on_a_cluster_the_time_limit_counts_only_for_objects_that_do_not_wait_for_a_cpu(clock, monkeypatch):
    class Died(Exception):
        """Death of the task or of the node."""

    class TaskFailed(Exception):
        cause = None

    def get(ref):
        raise error
    errors = SimpleNamespace(RayTaskError=TaskFailed, **dict.fromkeys(
        ('WorkerCrashedError', 'OutOfMemoryError', 'NodeDiedError', 'ObjectLostError'), Died))
    monkeypatch.setitem(sys.modules, 'ray', SimpleNamespace(
        put=lambda x: x, get=get, wait=lambda refs, num_returns: (refs, []), exceptions=errors,
        remote=lambda **options: lambda task: SimpleNamespace(remote=lambda *args: object())))
    executor, error = RayExecutor(None, False, 2.0), Died()
    for alone, seconds, expected in ((False, 60, ProcessDied), (True, 2.5, TimedOut), (True, 1.5, ProcessDied)):
        ref = executor.submit((), alone)
        clock.seconds += seconds
        assert type(executor.next([ref])[1]) is expected
    ref, error = executor.submit((), False), TaskFailed('of a class that does not travel')
    with pytest.raises(TaskFailed, match='does not travel'):
        executor.next([ref])
