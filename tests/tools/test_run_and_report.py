"""The whole way of every shipped toy config: train, test, report, embed a file with the checkpoint."""
import hashlib
import json
import math
import multiprocessing as mp
from itertools import product

import numpy as np
import pytest
from conftest import random_cloud
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from clipgs_plugin import list_models, write_gaussians
from clipgs_plugin.evaluation import EvaluationRecord
from clipgs_plugin.tools import cache_features, embed, make_toy_world, report
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool

pytestmark = pytest.mark.filterwarnings('ignore')
CONFIGS = [name for name in list_models() if name.endswith(('_toy-world', '_triplets')) and name.startswith('clipgs_')
           and '15e' in name]
PARTS = 'train', 'val', 'test'


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Eight training objects, and four each for validation and test."""
    root = tmp_path_factory.mktemp('world')
    assert make_toy_world.main([str(root / 'data'), '--num-train', '8', '--num-val', '4', '--num-test', '4',
                                '--num-views', '5', '--size', '32', '--num-gaussians', '300', '--workers', '1',
                                '--export', str(root / 'files'), '--num-export', '1']) == 0
    assert cache_features.main([str(root / 'data'), '--teacher', 'toy-clip']) == 0
    return root


def forget_runs():
    """Forget loggers and hubs, which mmengine names by the second: runs of one second would share them."""
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def runs_apart():
    """Undo what a Runner changes in its process."""
    forget_runs()
    method, scopes = mp.get_start_method(allow_none=True), dict(DefaultScope._instance_dict)
    yield
    mp.set_start_method(method, force=True)
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.mark.parametrize('config', CONFIGS)
def test_every_toy_config_trains_tests_reports_and_embeds(config, world, tmp_path, capfd):
    settings = ['--cfg-options', f'data_root={world / "data"}', 'num_gaussians=256']
    assert train_tool.main([config, '--work-dir', str(tmp_path), *settings, 'train_cfg.max_epochs=1',
                            'train_dataloader.batch_size=4']) == 0
    checkpoint, dumped = tmp_path / 'epoch_1.pth', tmp_path / f'{config}.py'
    capfd.readouterr()
    forget_runs()
    assert test_tool.main([str(dumped), str(checkpoint), '--work-dir', str(tmp_path / 'test'), '--json']) == 0
    metrics = json.loads(capfd.readouterr().out)
    assert metrics and all(map(math.isfinite, metrics.values()))
    record = EvaluationRecord.load(tmp_path / 'test' / 'metrics.json')
    assert (record.metrics, record.num_objects, record.config, record.seed) == (metrics, 4, config, 0)
    assert record.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record.dataset['root'] == str(world / 'data') and record.dataset['split'] == 'test'
    for confusion in record.classification.values():
        hits = confusion.counts.trace() / confusion.counts.sum()
        assert metrics['zero_shot/top1'] == pytest.approx(100 * float(hits))

    index = tmp_path / 'embeddings.npz'
    assert embed.main([str(world / 'files'), '-o', str(index), '--model', str(dumped),
                       '--checkpoint', str(checkpoint)]) == 0
    with np.load(index, allow_pickle=False) as arrays:
        np.testing.assert_allclose(np.linalg.norm(arrays['embeddings'], axis=1), 1, rtol=1e-5)
    capfd.readouterr()
    assert report.main([str(tmp_path), '-o', str(tmp_path / 'report.html')]) == 0
    table = capfd.readouterr().out
    recall = next(line for line in table.splitlines() if line.startswith('text to 3D R@1'))
    assert float(recall.split()[5]) == pytest.approx(metrics['retrieval/text_to_3d_R@1'], abs=0.1)
    assert (tmp_path / 'report.html').read_text().count('base64,') > 4


def test_a_config_of_labelled_splats_trains_tests_reports_and_embeds(tmp_path, capfd):
    for split, name, i in product(PARTS, ('apple', 'chair'), range(3)):
        folder = tmp_path / 'data' / split / name
        folder.mkdir(parents=True, exist_ok=True)
        write_gaussians(random_cloud(60, seed=i), folder / f'{i}.ply')
    config, work_dir = 'clipgs_pointbert-nano_15e_splats', tmp_path / 'run'
    assert train_tool.main([config, '--work-dir', str(work_dir), '--cfg-options', f'data_root={tmp_path / "data"}',
                            'num_gaussians=64', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4']) == 0
    checkpoint, dumped = work_dir / 'epoch_1.pth', work_dir / f'{config}.py'
    capfd.readouterr()
    forget_runs()
    assert test_tool.main([str(dumped), str(checkpoint), '--work-dir', str(tmp_path / 'test'), '--json']) == 0
    metrics = json.loads(capfd.readouterr().out)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'metrics.json').write_text('{"mine": 1}')
    with pytest.raises(SystemExit) as exit_:
        test_tool.main([str(dumped), str(checkpoint), '--work-dir', str(tmp_path / 'mine')])
    assert exit_.value.code == 2 and (tmp_path / 'mine' / 'metrics.json').read_text() == '{"mine": 1}'
    assert embed.main([str(tmp_path / 'data' / 'test'), '-o', str(work_dir / 'embeddings.npz'), '--model', str(dumped),
                       '--checkpoint', str(checkpoint)]) == 0
    capfd.readouterr()
    assert report.main([str(work_dir)]) == 0
    row = next(line for line in capfd.readouterr().out.splitlines() if line.startswith('zero-shot top-1'))
    assert row.split()[3:] == [f'{metrics["zero_shot/top1"]:.1f}', '-', '50.0']
    with pytest.raises(ValueError, match=r'no cached features and views.*leave out --gallery'):
        report.main([str(work_dir), '--gallery', str(tmp_path / 'gallery.png')])
