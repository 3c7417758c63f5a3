"""Datasets of torch-geometric over splat files and triplet sets, in memory and on disk."""
import numpy as np
import pytest
import torch
from conftest import random_cloud

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

pytest.importorskip('torch_geometric')
from torch_geometric.loader import DataLoader

from clipgs_plugin.geometric import GaussianDataset, GaussianOnDiskDataset, NormalizeGaussians

KINDS = [GaussianDataset, GaussianOnDiskDataset]
WIDTH, VIEWS, COUNT = 4, 2, 5
SPLITS = ['train', 'train', 'test', 'val', 'train']


def assert_equal(data, cloud):
    for name, value in cloud.fields():
        assert torch.equal(getattr(data.to_cloud(), name), value), name


@pytest.fixture(scope='module')
def triplets(tmp_path_factory):
    root = tmp_path_factory.mktemp('source') / 'triplets'
    views = np.zeros((VIEWS, 4, 4, 3), np.uint8)
    with ShardWriter(root) as writer:
        for i, split in enumerate(SPLITS):
            writer.write(f'o{i}', random_cloud(10 + i, seed=i), views, captions=[f'number {i}'],
                         category=['car', 'apple'][i % 2], split=split)
    reader = ShardReader(root)
    image = np.arange(COUNT * VIEWS * WIDTH).reshape(COUNT, VIEWS, WIDTH) + 1.0
    text = [np.full((1, WIDTH), i + 1.0) for i in range(COUNT)]
    FeatureWriter(reader, 'toy', WIDTH, 'abc').write(0, image, text)
    return root


@pytest.mark.parametrize('kind', KINDS)
def test_a_triplet_set_keeps_everything(tmp_path, triplets, kind):
    dataset = kind(tmp_path, triplets, features='toy')
    assert len(dataset) == COUNT and repr(dataset) == f"{kind.__name__}('{triplets}', 5 objects)"
    reader = ShardReader(triplets)
    for i, data in enumerate(dataset):
        assert_equal(data, reader.read_gaussians(i))
        assert (data.uid, data.category, data.caption, data.part) == (
            f'o{i}', ['car', 'apple'][i % 2], f'number {i}', SPLITS[i])
        assert data.y.tolist() == [1 - i % 2] and torch.equal(data.text, torch.full((1, WIDTH), i + 1.0))
        assert data.views.shape == (1, VIEWS, WIDTH) and data.views[0, 0, 0] == i * VIEWS * WIDTH + 1
    batch = next(iter(DataLoader(dataset, batch_size=COUNT)))
    assert batch.text.shape == (COUNT, WIDTH) and batch.caption[4] == 'number 4'


def test_splits_are_indices(tmp_path, triplets):
    split = GaussianDataset(tmp_path, triplets).get_idx_split()
    assert {name: index.tolist() for name, index in split.items()} == {'train': [0, 1, 4], 'val': [3], 'test': [2]}


@pytest.mark.parametrize('kind', KINDS)
def test_class_folders_and_loose_files(tmp_path, splats, kind):
    for name, seed in (('chair/b', 1), ('chair/a', 0), ('mug/c', 2)):
        (tmp_path / 'classes' / name).parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(random_cloud(9, seed=seed), tmp_path / 'classes' / f'{name}.ply')
    dataset = kind(tmp_path / 'root', tmp_path / 'classes')
    assert [(data.uid, data.category, int(data.y)) for data in dataset] == [
        ('chair/a.ply', 'chair', 0), ('chair/b.ply', 'chair', 0), ('mug/c.ply', 'mug', 1)]
    loose = tmp_path / 'loose'
    loose.mkdir()
    (loose / 'camera.ply').symlink_to(splats / 'camera.ply')
    assert_equal(kind(tmp_path / 'root', loose)[0], read_gaussians(splats / 'camera.ply'))


@pytest.mark.filterwarnings('error')
def test_processing_happens_once_and_without_pickles(tmp_path, triplets, monkeypatch):
    first = GaussianDataset(tmp_path, triplets, pre_transform=NormalizeGaussians(),
                            pre_filter=lambda data: data.num_nodes > 10)
    assert len(first) == 4
    assert_equal(first[0], ShardReader(triplets).read_gaussians(1).normalise())
    monkeypatch.setattr('clipgs_plugin.geometric.datasets.read_objects', None)
    again = GaussianDataset(tmp_path, triplets, pre_transform=NormalizeGaussians(), pre_filter=first.pre_filter)
    assert torch.equal(again[3].pos, first[3].pos)


def test_an_interrupted_database_starts_again(tmp_path, triplets, monkeypatch):
    def interrupted(*args):
        yield from list(original(*args))[:2]
        raise KeyboardInterrupt

    import clipgs_plugin.geometric.datasets as module
    original = module.read_objects
    with monkeypatch.context() as patch:
        patch.setattr(module, 'read_objects', interrupted)
        with pytest.raises(KeyboardInterrupt):
            GaussianOnDiskDataset(tmp_path, triplets)
    assert len(GaussianOnDiskDataset(tmp_path, triplets)) == COUNT
    monkeypatch.setattr(GaussianOnDiskDataset, 'process', None)  # complete, so not called
    assert len(GaussianOnDiskDataset(tmp_path, triplets)) == COUNT


@pytest.mark.parametrize(('kind', 'message'), list(zip(KINDS, ['have SH degrees', 'if only sh differs'])))
def test_mixed_sh_degrees_need_a_choice(tmp_path, kind, message):
    source = tmp_path / 'source'
    source.mkdir()
    for degree in (0, 2):
        write_gaussians(random_cloud(5, sh_degree=degree), source / f'{degree}.ply')
    with pytest.raises(ValueError, match=message):
        kind(tmp_path / 'root', source)
    dataset = kind(tmp_path / 'root', source, sh_degree=2)
    assert [data.sh.shape for data in dataset] == [(5, 9, 3)] * 2


def test_wrong_sources_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent is not a folder'):
        GaussianDataset(tmp_path / 'root', tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no splat file'):
        GaussianDataset(tmp_path / 'root', tmp_path / 'empty')
    with pytest.raises(ValueError, match=r"features='toy'.*is not a triplet set"):
        GaussianDataset(tmp_path / 'root', tmp_path / 'empty', features='toy')
