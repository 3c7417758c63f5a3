"""Executors return the outcomes of objects in order, wherever they are made."""
import logging
import os
import struct
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import random_cloud
from test_run import HERE, SMALL, Deadly, SplatSource, contents, failures

from clipgs_plugin import write_gaussians
from clipgs_plugin.generation import Execution, Listed, executors, generate
from clipgs_plugin.generation.executors import (
    LOOKAHEAD,
    ProcessDied,
    TimedOut,
    _in_order,
    _ProcessExecutor,
    _RayExecutor,
)
from clipgs_plugin.generation.worker import Outcome


class FakeExecutor:
    """Executor that ends chunks in another order than they began, and whose workers die on some objects."""

    def __init__(self, slots, deaths, death=None):
        self.slots, self.deaths, self.made, self.most, self.closed = slots, Counter(deaths), [], 0, False
        self.chunks, self.death = {}, death or ProcessDied()

    def submit(self, chunk, alone):
        self.made.append([listed.uid for listed in chunk])
        assert alone == any(self.made[-1][0] in uids for uids in self.made[:-1])
        self.chunks[len(self.made)] = chunk
        return len(self.made)

    def next(self, in_progress):
        self.most = max(self.most, len(in_progress))
        last = max(in_progress)
        for listed in self.chunks[last]:
            if sum(listed.uid in uids for uids in self.made) > 1:  # retried
                assert len(in_progress) == 1
            if self.deaths[listed.uid]:
                self.deaths[listed.uid] -= 1
                return last, self.death
        return last, [Outcome(timing=dict(uid=listed.uid)) for listed in self.chunks[last]]

    def close(self):
        self.closed = True


@pytest.mark.parametrize('slots', [1, 4])
@pytest.mark.parametrize('size', [1, 3])
def test_order_is_kept_and_objects_of_a_dead_worker_are_retried_alone(tmp_path, slots, size):
    listed = [Listed(str(i), tmp_path) for i in range(30)]
    executor, taken = FakeExecutor(slots, {'4': 1, '5': 2, '22': 2}), []
    chunks = (taken.append(i) or tuple(listed[i:i + size]) for i in range(0, 30, size))
    found = []
    for outcome in _in_order(executor, chunks):
        found.append(outcome.failure['uid'] if outcome.failure else outcome.timing['uid'])
        assert len(taken) * size - len(found) <= (LOOKAHEAD * slots + 1) * size  # in progress or waiting
        if outcome.failure:
            assert outcome.failure['error'] == 'ProcessDied' and outcome.failure['uid'] in ('5', '22')
    assert found == [str(i) for i in range(30)] and executor.most == min(slots, 30 // size) and executor.closed
    assert executor.made.count(['4']) == (2 if size == 1 else 1) and ['5'] in executor.made


def test_an_object_alone_over_the_time_limit_is_not_retried(tmp_path):
    listed = [Listed(str(i), tmp_path) for i in range(3)]
    for size, made in ((1, [['0'], ['1'], ['2']]), (3, [['0', '1', '2'], ['0'], ['1'], ['2']])):
        executor = FakeExecutor(3, {'1': 9}, TimedOut(7.0))
        outcomes = list(_in_order(executor, [tuple(listed[i:i + size]) for i in range(0, 3, size)]))
        assert executor.made == made
        assert [outcome.failure and outcome.failure['error'] for outcome in outcomes] == [None, 'TimedOut', None]
        assert outcomes[1].failure['message'].startswith('it took over 7 s; give more time')


@pytest.fixture
def clock(monkeypatch):
    """Clock that a test moves."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(executors.time, 'monotonic', lambda: now.seconds)
    return now


# Processes

class FakeProcesses(_ProcessExecutor):
    """Executor whose processes are played by the test."""

    def _start(self):
        ours, self.theirs = self._context.Pipe()
        self.process = self._processes[ours] = SimpleNamespace(
            exitcode=None, join=lambda timeout=None: None, kill=lambda: None)
        return ours


@pytest.mark.parametrize('status, seconds, expected', [
    (1, 2.5, TimedOut), (1, 1.5, ProcessDied), (-11, 60, ProcessDied), (9, 60, ProcessDied)])
def test_the_exit_status_of_a_process_gives_the_cause_of_its_death(clock, tmp_path, status, seconds, expected):
    """Steps within the limit of 2 s may take longer in total before one crashes; the process may die as it sends."""
    executor = FakeProcesses(None, 1, 2.0)
    pipe = executor.submit((Listed('a', tmp_path),), False)
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


def test_a_large_chunk_does_not_block_the_start_of_other_processes(tmp_path):
    executor, chunk = FakeProcesses(None, 2, None), (Listed('a', tmp_path, attributes=dict(text='x' * 10 ** 6)),)
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


# Ray

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
    executor, error = _RayExecutor(None, False, 2.0), Died()
    for alone, seconds, expected in ((False, 60, ProcessDied), (True, 2.5, TimedOut), (True, 1.5, ProcessDied)):
        ref = executor.submit((), alone)
        clock.seconds += seconds
        assert type(executor.next([ref])[1]) is expected
    ref, error = executor.submit((), False), TaskFailed('of a class that does not travel')
    with pytest.raises(TaskFailed, match='does not travel'):
        executor.next([ref])


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """Cluster of this machine only, without files in the checkout and without network traffic."""
    ray = pytest.importorskip('ray')
    warm = tmp_path_factory.mktemp('warm')  # compile the kernels without a time limit
    write_gaussians(random_cloud(20), warm / 'chair.ply')
    generate(SplatSource(), warm, warm / 'out', SMALL, HERE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                 object_store_memory=100 * 2 ** 20)
        ray.cloudpickle.register_pickle_by_value(sys.modules['test_run'])  # which workers cannot import
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules['test_run'])
        ray.shutdown()


def test_a_cluster_gives_the_same_bytes(cluster, tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for i in range(4):
        write_gaussians(random_cloud(20 + i, seed=i), folder / f'chair_{i}.ply')
    (folder / 'chair_1_bad.ply').write_text('not a splat')
    generate(SplatSource(), folder, tmp_path / 'here', SMALL, HERE)
    progress = generate(SplatSource(), folder, tmp_path / 'there', SMALL, Execution(executor='ray', batch_size=2))
    assert (progress.made, progress.failed, cluster.is_initialized()) == (4, 1, True)
    assert contents(tmp_path / 'there') == contents(tmp_path / 'here')
    assert failures(tmp_path / 'there') == failures(tmp_path / 'here')


def test_deaths_hangs_and_files_that_a_node_lacks_are_recorded(cluster, tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for name in ('chair_0', 'chair_1_deadly', 'chair_2_endless', 'chair_3'):
        write_gaussians(random_cloud(20), folder / f'{name}.ply')

    class Lacking(Deadly):
        def list(self, root):
            return [*super().list(root), Listed('lacking', root / 'lacking.ply')]
    progress = generate(Lacking(), folder, tmp_path / 'out', SMALL, Execution(executor='ray', time_limit=5))
    assert (progress.made, progress.failed) == (2, 3)
    found = {failure['uid']: failure for failure in failures(tmp_path / 'out')}
    assert {uid: failure['error'] for uid, failure in found.items()} == dict(
        chair_1_deadly='ProcessDied', chair_2_endless='TimedOut', lacking='FileNotFoundError')
    assert 'storage that every node of the cluster sees' in found['lacking']['message']


def test_a_missing_cluster_and_missing_ray_are_named(tmp_path, monkeypatch):
    write_gaussians(random_cloud(20), tmp_path / 'chair.ply')
    ray = pytest.importorskip('ray')

    def init(address, **options):
        raise ConnectionError(f'nothing at {address}')
    monkeypatch.setattr(ray, 'is_initialized', lambda: False)
    monkeypatch.setattr(ray, 'init', init)
    monkeypatch.setenv('RAY_ADDRESS', '')
    with pytest.raises(ValueError, match=r'no Ray cluster on this machine \(nothing at auto\); start one'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL, Execution(executor='ray'))
    with pytest.raises(ValueError, match=r'no Ray cluster at 10\.0\.0\.1:6379'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL,
                 Execution(executor='ray', ray_address='10.0.0.1:6379'))
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ImportError, match='pip install ray'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL, Execution(executor='ray'))
