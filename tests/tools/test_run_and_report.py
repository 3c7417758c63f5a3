"""The whole way of every shipped config: train, test, report, embed a file with the checkpoint."""
import hashlib
import json
import math
import multiprocessing as mp
import re
from dataclasses import replace
from itertools import product

import numpy as np
import open_clip
import pytest
import torch
from conftest import random_cloud
from family_files import FILES
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from clipgs_plugin import get_config, list_models, write_gaussians
from clipgs_plugin.apis.configs import find_config
from clipgs_plugin.evaluation import EvaluationRecord
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import cache_features, embed, make_toy_world, report
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool
from clipgs_plugin.triplets import FeatureWriter, ShardReader

pytestmark = pytest.mark.filterwarnings('ignore')
CONFIGS = [name for name in list_models() if name.endswith(('_toy-world', '_triplets')) and name.startswith('clipgs_')
           and '15e' in name]
OBJAVERSE = [name for name in list_models() if name.endswith('_objaverse')]
PARTS = 'train', 'val', 'test'
NO_WORKERS = [f'{part}_dataloader.{key}' for part in PARTS for key in ('num_workers=0', 'persistent_workers=False')]
# Synthetic files of the published models that the configs start from.
PUBLISHED = {'point-bert': 'point-bert', 'point-mae': 'point-mae', 'recon': 'recon', 'recon++-b': 'recon-plus-plus-b',
             'ulip2-pointbert-10k-colored': 'ulip-2', 'openshape-pointbert-vitg14': 'openshape-4',
             'uni3d-s': 'uni3d-s', 'uni3d-b': 'uni3d-b', 'uni3d-l': 'uni3d-l'}


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


def goes_the_whole_way(config, options, world, work_dir, capfd):
    """Train an epoch, test, embed and report; return the metrics, what the report prints, and its page."""
    assert train_tool.main([str(config), '--work-dir', str(work_dir), '--cfg-options', f'data_root={world / "data"}',
                            'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', *options]) == 0
    checkpoint, dumped = work_dir / 'epoch_1.pth', next(work_dir.glob('*.py'))
    validated = EvaluationRecord.load(work_dir / 'metrics.json')
    assert (validated.part, validated.num_objects, validated.dataset['split'], validated.checkpoint) == (
        'val', 4, 'val', None)
    capfd.readouterr()
    forget_runs()
    assert test_tool.main([str(dumped), str(checkpoint), '--work-dir', str(work_dir / 'test'), '--json']) == 0
    metrics = json.loads(capfd.readouterr().out)
    assert metrics and all(map(math.isfinite, metrics.values()))
    record = EvaluationRecord.load(work_dir / 'test' / 'metrics.json')
    assert (record.metrics, record.num_objects, record.config, record.seed) == (metrics, 4, dumped.stem, 0)
    assert record.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record.dataset['root'] == str(world / 'data') and record.dataset['split'] == 'test'
    for confusion in record.classification.values():
        hits = confusion.counts.trace() / confusion.counts.sum()
        assert metrics['zero_shot/top1'] == pytest.approx(100 * float(hits))

    index = work_dir / 'embeddings.npz'
    assert embed.main([str(world / 'files'), '-o', str(index), '--model', str(dumped),
                       '--checkpoint', str(checkpoint)]) == 0
    with np.load(index, allow_pickle=False) as arrays:
        np.testing.assert_allclose(np.linalg.norm(arrays['embeddings'], axis=1), 1, rtol=1e-5)
    capfd.readouterr()
    assert report.main([str(work_dir), '-o', str(work_dir / 'report.html')]) == 0
    table = capfd.readouterr().out
    assert 'was validated on 4 objects' in (work_dir / 'report.html').read_text()
    recall = next(line for line in table.splitlines() if line.startswith('text to 3D R@1'))
    assert float(recall.split()[5]) == pytest.approx(metrics['retrieval/text_to_3d_R@1'], abs=0.1)
    return metrics, table, (work_dir / 'report.html').read_text()


@pytest.mark.parametrize('config', CONFIGS)
def test_every_toy_config_trains_tests_reports_and_embeds(config, world, tmp_path, capfd):
    _, table, page = goes_the_whole_way(config, ['num_gaussians=256'], world, tmp_path, capfd)
    assert page.count('base64,') > 4 and 'zero-shot top-1' in table and 'Confusion matrix' in page


@pytest.fixture(scope='module')
def large_teachers(world):
    """Random features under the names and in the widths of the teachers of the Objaverse configs."""
    draw = np.random.default_rng(0).standard_normal
    unit = lambda *shape: (rows := draw(shape)) / np.linalg.norm(rows, axis=-1, keepdims=True)  # noqa: E731
    for name in {get_config(config).teacher.model for config in OBJAVERSE}:
        width = load_catalogue('teachers')[name]['width']
        writer = FeatureWriter(ShardReader(world / 'data'), name, width, 'random')
        for shard, rows in writer.pending():
            writer.write(shard, unit(len(rows), writer.reader.num_views, width),
                         [unit(len(writer.captions(row)), width) for row in rows])


def write_published(name, path):
    """Write a synthetic file of a published model with its first block alone, and return its path."""
    file = FILES[PUBLISHED[name]]
    used = {key: shape for key, shape in file.used.items() if not re.search(r'(blocks|layers)\.[1-9]\d*\.', key)}
    torch.save(file.wrap(replace(file, used=used).state()), path)
    return str(path)


@pytest.mark.parametrize('config', OBJAVERSE)
def test_every_objaverse_config_goes_the_way_without_its_teacher(config, world, large_teachers, tmp_path, monkeypatch,
                                                                 capfd):
    """One block and few patches, from a file of the published model; the weights of the teacher are out of reach."""
    def unreachable(*args, **kwargs):
        raise OSError('no network')
    monkeypatch.setattr(open_clip, 'download_pretrained', unreachable)
    encoder = get_config(config).model.encoder
    by_name = isinstance(encoder.backbone, str)
    name = encoder.backbone if by_name else encoder.get('init_cfg', {}).get('checkpoint')
    backbone = dict(type=name, depth=1, _delete_=True) if by_name else dict(depth=1)
    small = dict(tokenizer=dict(num_groups=8, group_size=8), backbone=backbone)
    if name is not None:
        small['init_cfg'] = dict(type='clipgs_plugin.PointCloudPretrained',
                                 checkpoint=write_published(name, tmp_path / 'published.pth'))
    (tmp_path / 'small.py').write_text(f'_base_ = {str(find_config(config))!r}\nmodel = dict(encoder={small!r})')
    _, table, page = goes_the_whole_way(tmp_path / 'small.py', ['num_gaussians=64', *NO_WORKERS], world,
                                        tmp_path / 'run', capfd)
    assert 'no confusion matrix' in table and 'could not download the weights' in table and 'zero-shot top' not in table
    assert 'no confusion matrix' in page and 'Confusion matrix' not in page and page.count('base64,') > 4


def test_a_config_of_labelled_splats_trains_tests_reports_and_embeds(tmp_path, capfd):
    for split, name, i in product(PARTS, ('apple', 'chair'), range(3)):
        folder = tmp_path / 'data' / split / name
        folder.mkdir(parents=True, exist_ok=True)
        write_gaussians(random_cloud(60, seed=i), folder / f'{i}.ply')
    config, work_dir = 'clipgs_pointbert-nano_15e_splats', tmp_path / 'run'
    assert train_tool.main([config, '--work-dir', str(work_dir), '--cfg-options', f'data_root={tmp_path / "data"}',
                            'num_gaussians=64', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4',
                            *NO_WORKERS]) == 0
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
