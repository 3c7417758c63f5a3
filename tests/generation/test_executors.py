"""Engines give the outcomes of objects in their order, whoever makes them."""
import logging
import sys
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import random_cloud
from test_run import SMALL, Deadly, SplatSource, contents, failures

from clipgs_plugin import write_gaussians
from clipgs_plugin.generation import Listed, executors, generate
from clipgs_plugin.generation.executors import AHEAD, ProcessDied, TimedOut, _in_order, _Processes, _RayTasks
from clipgs_plugin.generation.worker import Outcome


class Crew:
    """A crew that ends chunks in another order than they began, and whose processes die at some objects."""

    def __init__(self, slots, deaths, death=None):
        self.slots, self.deaths, self.made, self.most, self.closed = slots, Counter(deaths), [], 0, False
        self.chunks, self.death = {}, death or ProcessDied()

    def submit(self, chunk, alone):
        self.made.append([listed.uid for listed in chunk])
        assert alone == any(self.made[-1][0] in uids for uids in self.made[:-1])
        self.chunks[len(self.made)] = chunk
        return len(self.made)

    def next(self, under_way):
        self.most = max(self.most, len(under_way))
        last = max(under_way)
        for listed in self.chunks[last]:
            if sum(listed.uid in uids for uids in self.made) > 1:  # again
                assert len(under_way) == 1
            if self.deaths[listed.uid]:
                self.deaths[listed.uid] -= 1
                return last, self.death
        return last, [Outcome(timing=dict(uid=listed.uid)) for listed in self.chunks[last]]

    def close(self):
        self.closed = True


@pytest.mark.parametrize('slots', [1, 4])
@pytest.mark.parametrize('size', [1, 3])
def test_order_is_kept_and_what_died_is_made_again_alone(tmp_path, slots, size):
    listed = [Listed(str(i), tmp_path) for i in range(30)]
    crew, taken = Crew(slots, {'4': 1, '5': 2, '22': 2}), []
    chunks = (taken.append(i) or tuple(listed[i:i + size]) for i in range(0, 30, size))
    found = []
    for outcome in _in_order(crew, chunks):
        found.append(outcome.failure['uid'] if outcome.failure else outcome.timing['uid'])
        assert len(taken) * size - len(found) <= (AHEAD * slots + 1) * size  # begun and not given yet
        if outcome.failure:
            assert outcome.failure['error'] == 'ProcessDied' and outcome.failure['uid'] in ('5', '22')
    assert found == [str(i) for i in range(30)] and crew.most == min(slots, 30 // size) and crew.closed
    assert crew.made.count(['4']) == (2 if size == 1 else 1) and ['5'] in crew.made


def test_one_by_itself_that_is_out_of_time_is_not_made_again(tmp_path):
    listed = [Listed(str(i), tmp_path) for i in range(3)]
    for size, made in ((1, [['0'], ['1'], ['2']]), (3, [['0', '1', '2'], ['0'], ['1'], ['2']])):
        crew = Crew(3, {'1': 9}, TimedOut(7.0))
        outcomes = list(_in_order(crew, [tuple(listed[i:i + size]) for i in range(0, 3, size)]))
        assert crew.made == made
        assert [outcome.failure and outcome.failure['error'] for outcome in outcomes] == [None, 'TimedOut', None]
        assert outcomes[1].failure['message'].startswith('it took over 7 s; give more time')


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes when a test says so."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(executors.time, 'monotonic', lambda: now.seconds)
    return now


# Processes

class Unread(_Processes):
    """Processes that have been started and do nothing, which a test ends as it likes."""

    def _start(self):
        ours, self.theirs = self._context.Pipe()
        self.process = self._processes[ours] = SimpleNamespace(
            exitcode=None, join=lambda timeout=None: None, kill=lambda: None)
        return ours


@pytest.mark.parametrize('status, seconds, expected', [
    (1, 2.5, TimedOut), (1, 1.5, ProcessDied), (-11, 60, ProcessDied), (9, 60, ProcessDied)])
def test_the_status_of_a_process_tells_how_it_died(clock, tmp_path, status, seconds, expected):
    """Steps that keep the limit of 2 s may take longer together, before one crashes."""
    crew = Unread(None, 1, 2.0)
    pipe = crew.submit((Listed('a', tmp_path),), False)
    clock.seconds += 50  # as it starts
    crew.theirs.send(None)

    def die():
        crew.theirs.recv()
        clock.seconds += seconds
        crew.process.exitcode = status
        crew.theirs.close()
    death = threading.Thread(target=die)
    death.start()
    found = crew.next([pipe])
    death.join()
    assert found[0] is pipe and type(found[1]) is expected


def test_a_large_chunk_waits_for_its_process_and_not_the_others_for_it(tmp_path):
    crew, chunk = Unread(None, 2, None), (Listed('a', tmp_path, attributes=dict(text='x' * 10 ** 6)),)
    submitting = threading.Thread(target=crew.submit, args=(chunk, False), daemon=True)
    submitting.start()
    submitting.join(5)
    assert not submitting.is_alive()
    found = []
    waiting = threading.Thread(target=lambda: found.append(crew.next(list(crew._processes))), daemon=True)
    waiting.start()
    crew.theirs.send(None)
    assert crew.theirs.recv() == chunk
    crew.theirs.send(['an outcome'])
    waiting.join(5)
    assert found[0][1] == ['an outcome']


# Ray

def test_on_a_cluster_time_counts_for_what_waits_for_nothing(clock, monkeypatch):
    class Died(Exception):
        """Of the task, and of the node."""

    class TaskFailed(Exception):
        cause = None

    def get(ref):
        raise error
    errors = SimpleNamespace(RayTaskError=TaskFailed, **dict.fromkeys(
        ('WorkerCrashedError', 'OutOfMemoryError', 'NodeDiedError', 'ObjectLostError'), Died))
    monkeypatch.setitem(sys.modules, 'ray', SimpleNamespace(
        put=lambda x: x, get=get, wait=lambda refs, num_returns: (refs, []), exceptions=errors,
        remote=lambda **options: lambda task: SimpleNamespace(remote=lambda *args: object())))
    crew, error = _RayTasks(None, False, 2.0), Died()
    for alone, seconds, expected in ((False, 60, ProcessDied), (True, 2.5, TimedOut), (True, 1.5, ProcessDied)):
        ref = crew.submit((), alone)
        clock.seconds += seconds
        assert type(crew.next([ref])[1]) is expected
    ref, error = crew.submit((), False), TaskFailed('of a class that does not travel')
    with pytest.raises(TaskFailed, match='does not travel'):
        crew.next([ref])


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A cluster of this machine alone, with nothing in the checkout and no traffic."""
    ray = pytest.importorskip('ray')
    warm = tmp_path_factory.mktemp('warm')  # kernels are compiled before time is limited
    write_gaussians(random_cloud(20), warm / 'chair.ply')
    generate(SplatSource(), warm, warm / 'out', SMALL, workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                 object_store_memory=100 * 2 ** 20)
        ray.cloudpickle.register_pickle_by_value(sys.modules['test_generation'])  # which workers could not import
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules['test_generation'])
        ray.shutdown()


def test_a_cluster_gives_the_same_bytes(cluster, tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for i in range(4):
        write_gaussians(random_cloud(20 + i, seed=i), folder / f'chair_{i}.ply')
    (folder / 'chair_1_bad.ply').write_text('not a splat')
    generate(SplatSource(), folder, tmp_path / 'here', SMALL, workers=0)
    progress = generate(SplatSource(), folder, tmp_path / 'there', SMALL, engine='ray', batch_size=2)
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
    progress = generate(Lacking(), folder, tmp_path / 'out', SMALL, engine='ray', time_limit=2)
    assert (progress.made, progress.failed) == (2, 3)
    found = {failure['uid']: failure for failure in failures(tmp_path / 'out')}
    assert {uid: failure['error'] for uid, failure in found.items()} == dict(
        chair_1_deadly='ProcessDied', chair_2_endless='TimedOut', lacking='FileNotFoundError')
    assert 'storage that every node of the cluster sees' in found['lacking']['message']


def test_no_cluster_and_no_ray_are_said(tmp_path, monkeypatch):
    write_gaussians(random_cloud(20), tmp_path / 'chair.ply')
    ray = pytest.importorskip('ray')

    def init(address, **options):
        raise ConnectionError(f'nothing at {address}')
    monkeypatch.setattr(ray, 'is_initialized', lambda: False)
    monkeypatch.setattr(ray, 'init', init)
    monkeypatch.setenv('RAY_ADDRESS', '')
    with pytest.raises(ValueError, match=r'no Ray cluster on this machine \(nothing at auto\); start one'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL, engine='ray')
    with pytest.raises(ValueError, match=r'no Ray cluster at 10\.0\.0\.1:6379'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL, engine='ray', ray_address='10.0.0.1:6379')
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(ImportError, match=r'clipgs_plugin\[cluster\]'):
        generate(SplatSource(), tmp_path, tmp_path / 'out', SMALL, engine='ray')
