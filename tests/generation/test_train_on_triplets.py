"""One config trains on triplets from any source: real splats, and points without colour or images."""
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from clipgs_plugin.models import OpenCLIPTeacher
from clipgs_plugin.tools import cache_features, make_triplets
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool
from clipgs_plugin.triplets import ShardFeatures, ShardReader

CONFIG = 'clipgs_pointbert-nano_15e_triplets'
EPOCHS = 30
SMALLER = ['model.encoder.tokenizer.num_groups=16', 'model.encoder.backbone.depth=1', f'train_cfg.max_epochs={EPOCHS}',
           f'train_cfg.val_interval={EPOCHS}', f'default_hooks.checkpoint.interval={EPOCHS}', 'param_scheduler.0.end=2',
           'default_hooks.logger.interval=1', 'log_processor.window_size=1']
SPLATS = ('camera.sog', 'fruit_drops_sh3.ply', 'monkey.sog', 'potted_plant.splat', 'three_points.spz',
          'train_1000_sh3.ply')


@pytest.fixture(scope='module', autouse=True)
def one_thread_and_nothing_left_behind():
    threads, method, scopes = torch.get_num_threads(), mp.get_start_method(), dict(DefaultScope._instance_dict)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    mp.set_start_method(method, force=True)  # a Runner changes this and the scope for the whole process
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture(scope='module', autouse=True)
def teacher():
    return OpenCLIPTeacher('toy-clip')


def make_dataset(source, out, up):
    """Make triplets with small views and cached features, with the tools that a user has."""
    settings = source.parent / 'settings.py'
    settings.write_text("generation = dict(views=dict(num_views=6, size=32), fit=dict(preset='draft'))")
    assert make_triplets.main([str(source), str(out), '--config', str(settings), '--up', up, '--workers', '0']) == 0
    assert cache_features.main([str(out), '--teacher', 'toy-clip']) == 0
    return out


@pytest.fixture(scope='module')
def real_splats(tmp_path_factory, splats):
    root = tmp_path_factory.mktemp('splats')
    (root / 'files').mkdir()
    for name in SPLATS:
        shutil.copyfile(splats / name, root / 'files' / name)
    return make_dataset(root / 'files', root / 'triplets', 'y')


@pytest.fixture(scope='module')
def points(tmp_path_factory, data):
    """Four training and two test objects, each of its own category."""
    root = tmp_path_factory.mktemp('points')
    (root / 'files').mkdir()
    for split, rows in (('train', slice(0, None, 1000)), ('test', slice(0, None, 500))):
        with np.load(data / 'modelnet10' / f'{split}.npz') as archive:
            np.savez(root / 'files' / f'{split}.npz', classes=archive['classes'],
                     **{key: archive[key][rows] for key in ('points', 'labels', 'names')})
    return make_dataset(root / 'files', root / 'triplets', 'z')


@pytest.mark.parametrize('kind', ['real_splats', 'points'])
def test_features_match_the_views_and_captions(request, teacher, kind):
    reader = ShardReader(request.getfixturevalue(kind))
    features = ShardFeatures(reader, 'toy-clip')
    assert len(reader) == 6
    for i in (0, 5):
        captions = [caption['text'] for caption in reader.read_record(i)['captions']]
        np.testing.assert_allclose(features.text(i), teacher.encode_text(captions), atol=1e-3)
        alone = torch.stack([teacher.encode_image(torch.from_numpy(view.transpose(2, 0, 1).copy())[None])[0]
                             for view in reader.read_views(i)])
        np.testing.assert_allclose(features.image(i), alone, atol=1e-3)


def train(root, work_dir):
    """Train on a dataset and return the losses, the config and the path of the last checkpoint."""
    for kind in (MMLogger, MessageHub, Visualizer):  # their names have seconds: two runs in one second would share them
        kind._instance_dict.clear()
    options = ['--work-dir', str(work_dir), '--cfg-options']
    assert train_tool.main([CONFIG, *options, f'data_root={root}', *SMALLER]) == 0
    lines = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    return losses, Config.fromfile(work_dir / f'{CONFIG}.py'), work_dir / f'epoch_{EPOCHS}.pth'


def test_the_same_config_trains_on_real_splats_and_on_points(real_splats, points, tmp_path, capsys):
    configs = []
    # One of six splats is held out for val and one for test; one of the four training clouds for val.
    for root, count in ((real_splats, 1), (points, 2)):
        losses, config, checkpoint = train(root, tmp_path / root.parent.name)
        assert len(losses) == EPOCHS and np.isfinite(losses).all()
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
        capsys.readouterr()
        assert test_tool.main([config.filename, str(checkpoint), '--json']) == 0
        metrics = json.loads(capsys.readouterr().out)
        assert all(map(math.isfinite, metrics.values()))
        assert metrics['retrieval/text_to_3d_R@10'] == 100 and metrics['retrieval/3d_to_image_median_rank'] <= count
        configs.append(config.dump().replace(str(root), 'ROOT').replace(config.work_dir, 'WORK'))
    assert configs[0] == configs[1] and 'ROOT' in configs[0]
