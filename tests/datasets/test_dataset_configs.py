"""Base configs of the datasets, and the loaders that mmengine's Runner builds from them."""
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from clipgs_plugin.datasets.transforms import build_pipeline
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

NAMES = ('toy_world', 'objaverse_triplets', 'triplets', 'gaussian_folder', 'public_set')
POINTS = ('modelnet10', 'modelnet40')  # as discs, without floaters


@pytest.mark.parametrize('name', NAMES)
def test_pipelines_of_a_base_config_run(root, random_cloud, name):
    config = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        pipeline = build_pipeline(loader.dataset.pipeline)
        cloud = random_cloud(config.num_gaussians + 500, sh_degree=1)
        item = pipeline(dict(gaussians=cloud, rng=np.random.default_rng(0), uid='a'))
        assert 0 < len(item['inputs']) <= config.num_gaussians and item['inputs'].sh_degree == 0
        assert item['inputs'].means.norm(dim=-1).max() <= 1.25 + 1e-5


@pytest.mark.parametrize('name', NAMES)
def test_every_pipeline_drops_floaters_before_it_samples_and_normalises(root, name):
    config = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        types = [step.type.removeprefix('clipgs_plugin.') for step in loader.dataset.pipeline]
        assert types.index('FilterOpacity') < types.index('DropFloaters') < types.index('SampleGaussians')
        assert types.index('DropFloaters') < types.index('NormaliseGaussians')


def test_catalogue_names_configs_that_exist(root):
    catalogue = yaml.safe_load((root / 'registry' / 'catalogue' / 'datasets.yml').read_text(encoding='utf-8'))
    assert {entry['config'] for entry in catalogue.values()} == {
        f'_base_/datasets/{name}.py' for name in (*NAMES, *POINTS)}
    for name, entry in catalogue.items():
        config = Config.fromfile(root / 'configs' / entry['config'])
        if entry['config'] != '_base_/datasets/public_set.py':  # whose class is a setting
            assert config.train_dataloader.dataset.type == f"clipgs_plugin.{entry['dataset']}", name


@pytest.mark.parametrize('name', ['toy_world', 'triplets', 'objaverse_triplets'])
def test_triplets_without_splits_train_and_evaluate(root, tmp_path, random_cloud, name):
    """A share of the objects replaces the missing splits, for any teacher."""
    with ShardWriter(tmp_path) as writer:
        for i in range(20):
            writer.write(f'o{i}', random_cloud(40, seed=i), np.zeros((6, 4, 4, 3), np.uint8), captions=['a'])
    FeatureWriter(ShardReader(tmp_path), 'mine', 8, 'abc').write(0, np.ones((20, 6, 8)), [np.ones((1, 8))] * 20)
    config = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    parts = []
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        dataset = DATASETS.build({**loader.dataset, 'root': str(tmp_path), 'features': 'mine'})
        parts.append({dataset[i]['data_samples']['uid'] for i in range(len(dataset))})
    assert all(parts) and len(set.union(*parts)) == sum(map(len, parts)) == 20 and len(parts[0]) >= 16


@pytest.fixture
def toy_config(root, tmp_path, random_cloud):
    """Config of the toy world on a few random objects."""
    with ShardWriter(tmp_path) as writer:
        for i in range(20):
            writer.write(f'o{i}', random_cloud(40, seed=i), np.zeros((6, 4, 4, 3), np.uint8), captions=['a', 'b'],
                         category=f'c{i % 3}', split='train' if i < 15 else 'test')
    writer = FeatureWriter(ShardReader(tmp_path), 'toy-clip', 8, 'abc')
    writer.write(0, np.ones((20, 6, 8)), [np.ones((2, 8))] * 20)
    config = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / 'toy_world.py')
    config.merge_from_dict({'train_dataloader.batch_size': 6, 'train_dataloader.dataset.root': str(tmp_path),
                            'test_dataloader.dataset.root': str(tmp_path)})
    return config


def test_the_runner_builds_loaders_with_reproducible_epochs(toy_config):
    def epoch(loader, number):
        loader.sampler.set_epoch(number)
        return list(loader)

    with DefaultScope.overwrite_default_scope('clipgs_plugin'):
        train, again = (Runner.build_dataloader(toy_config.train_dataloader, seed=5) for _ in range(2))
        test = Runner.build_dataloader(toy_config.test_dataloader, seed=5)
    first, second = epoch(train, 0), epoch(train, 1)
    assert len(first) == 15 // 6 and first[0]['inputs'].means.shape == (6, 40, 3)
    assert first[0]['data_samples']['views'].shape == (6, 5, 8) and first[0]['data_samples']['text'].shape == (6, 8)
    assert first[0]['data_samples']['uid'] != second[0]['data_samples']['uid']
    for a, b in zip(second, epoch(again, 1)):  # a resumed run: epoch 1 without epoch 0
        assert torch.equal(a['inputs'].means, b['inputs'].means)
        assert a['data_samples']['caption'] == b['data_samples']['caption']
    (batch,) = list(test)
    assert batch['data_samples']['uid'] == [f'o{i}' for i in range(15, 20)]
    assert batch['data_samples']['views'].shape == (5, 6, 8) and batch['data_samples']['caption'] == ['a'] * 5
    assert test.dataset.metainfo['classes'] == ['c0', 'c1', 'c2']
