"""A Ray cluster gives the outcomes of processes, and says what it lacks."""
import logging
import sys

import pytest
from conftest import random_cloud
from test_run import HERE, SMALL, Deadly, SplatSource, contents, failures

from clipgs_plugin import write_gaussians
from clipgs_plugin.generation import Execution, Listed, generate


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
