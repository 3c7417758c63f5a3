import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import START_METHODS, random_cloud
from torch.utils.data import DataLoader

from clipgs_plugin.datasets import EpochSampler, TripletDataset, collate_gaussians
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter, caption_id

WIDTH, VIEWS, COUNT = 4, 6, 12
PIPELINE = [dict(type='SampleGaussians', num=16), dict(type='RotateGaussians'), dict(type='PackGaussians')]
SOME_PIPELINE = [dict(type='SampleGaussians', num=16, method='fps'), *PIPELINE[1:]]


def write_features(root) -> None:
    """Write features that encode object and view, or object and caption."""
    reader = ShardReader(root)
    writer = FeatureWriter(reader, 'toy', WIDTH, 'abc')
    for shard, rows in writer.pending():
        image = np.array([[[row, view, 0, 1] for view in range(VIEWS)] for row in rows])
        text = [np.array([[row, i, 1, 0] for i in range(len(writer.captions(row)))]) for row in rows]
        writer.write(shard, image, text)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('triplets')
    with ShardWriter(root, objects_per_shard=5, webp_quality=None) as writer:
        for i in range(COUNT):
            views = np.stack([np.full((4, 4, 3), 10 * i + view, np.uint8) for view in range(VIEWS)])
            writer.write(f'o{i}', random_cloud(30, seed=i), views, captions=[f'{i} is {n}' for n in range(3)],
                         category=[None, 'car', 'apple', 'boat'][i % 4], split='train' if i < 9 else 'test',
                         quality=dict(psnr=30.0 + i) if i else None)
    write_features(root)
    return root


def same(a, b) -> bool:
    """Return True if nested items, tensors included, are equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if hasattr(a, 'fields'):
        return all(torch.equal(value, getattr(b, name)) for name, value in a.fields())
    return a == b


def test_caption_views_and_features_of_a_training_item_match(root):
    dataset = TripletDataset(root, features='toy', load_views=True, num_views=4, pipeline=PIPELINE)
    assert len(dataset) == 9
    seen = set()
    for epoch in range(30):
        for index in (0, 7):
            item = dataset[epoch, index]
            sample = item['data_samples']
            caption = int(sample['caption'].split()[-1])
            assert sample['uid'] == f'o{index}' and sample['caption'] == f'{index} is {caption}'
            assert sample['caption_id'] == caption_id(sample['caption'])
            assert sample['text'].tolist() == [index, caption, 1, 0]
            views = sample['views'][:, 1].int().tolist()
            assert sample['views'][:, 0].tolist() == [index] * 4 and len(set(views)) == 4
            assert sample['view_pixels'].shape == (4, 3, 4, 4)
            assert sample['view_pixels'][:, 0, 0, 0].tolist() == [10 * index + view for view in views]
            assert len(item['inputs']) == 16
            seen.add((caption, tuple(views)))
    assert {caption for caption, _ in seen} == {0, 1, 2}
    assert {view for _, views in seen for view in views} == set(range(VIEWS)) and len(seen) > 50


def test_test_mode_has_all_views_and_the_first_caption_in_every_epoch(root):
    dataset = TripletDataset(root, split='test', features='toy', test_mode=True, pipeline=PIPELINE)
    sample = dataset[0]['data_samples']
    assert sample['caption'] == '9 is 0' and sample['views'][:, 1].tolist() == list(range(VIEWS))
    assert same(dataset[5, 0], dataset[0])
    held_out = TripletDataset(root, split='test', features='toy', test_mode=True, views=[5, 2], pipeline=PIPELINE)
    assert held_out[0]['data_samples']['views'][:, 1].tolist() == [5, 2]


def test_views_repeat_only_if_an_object_has_too_few(root):
    dataset = TripletDataset(root, features='toy', num_views=5, views=[1, 3], pipeline=PIPELINE)
    views = dataset[0]['data_samples']['views'][:, 1]
    assert len(views) == 5 and set(views.tolist()) <= {1, 3}


def test_an_item_is_a_function_of_seed_epoch_and_index(root):
    make = lambda seed: TripletDataset(root, features='toy', pipeline=PIPELINE, seed=seed)  # noqa: E731
    a, b = make(3), make(3)
    b[0, 1], b[4, 2]  # earlier items have no effect
    assert same(a[2, 1], b[2, 1]) and same(a[0, 1], a[1])
    assert not same(a[2, 1], a[3, 1]) and not same(a[2, 1], make(4)[2, 1])


def test_the_number_of_views_does_not_change_the_pipeline(root):
    few, many = (TripletDataset(root, features='toy', num_views=k, pipeline=PIPELINE)[1, 2] for k in (1, 6))
    assert same(few['inputs'], many['inputs']) and few['data_samples']['caption'] == many['data_samples']['caption']


@pytest.mark.parametrize('context', START_METHODS)
def test_loader_workers_change_nothing(root, context):
    dataset = TripletDataset(root, features='toy', load_views=True, pipeline=SOME_PIPELINE)
    dataset[0]  # open files and compiled kernels in the parent

    def batches(**options):
        sampler = EpochSampler(dataset, seed=1)
        sampler.set_epoch(2)
        return list(DataLoader(dataset, 4, sampler=sampler, collate_fn=collate_gaussians, **options))
    alone, others = batches(), batches(num_workers=2, multiprocessing_context=context)
    assert len(alone) == len(others) == 3
    for a, b in zip(alone, others):
        assert same(a['data_samples'], b['data_samples']) and same(a['inputs'], b['inputs'])


def test_classes_are_equal_in_every_split_and_can_be_selected(root):
    train, test = (TripletDataset(root, split=split) for split in ('train', 'test'))
    assert train.metainfo['classes'] == test.metainfo['classes'] == ['apple', 'boat', 'car']
    assert [train[i]['label'] for i in range(4)] == [-1, 2, 0, 1]
    assert [train[i]['category'] for i in range(4)] == ['', 'car', 'apple', 'boat']
    chosen = TripletDataset(root, classes=['car', 'apple'])
    assert [(chosen[i]['uid'], chosen[i]['label']) for i in range(len(chosen))] == [
        ('o1', 0), ('o2', 1), ('o5', 0), ('o6', 1)]
    with pytest.raises(ValueError, match=r"\['tree'\] are unknown; .* has 3 classes: 'apple', 'boat', 'car'"):
        TripletDataset(root, classes=['car', 'tree'])
    with pytest.raises(ValueError, match='no duplicates'):
        TripletDataset(root, classes=['car', 'car'])


def test_an_index_without_splits_is_training_data(tmp_path, random_cloud):
    with ShardWriter(tmp_path) as writer:
        for i in range(5):
            writer.write(f'o{i}', random_cloud(3), captions=['x'])
    path = tmp_path / 'index.parquet'
    pq.write_table(pq.read_table(path).drop_columns(['split']), path)
    assert [len(TripletDataset(tmp_path, split, hold_out=0.2)) for split in ('train', 'val', 'test')] == [3, 1, 1]


def test_missing_splits_are_held_out_of_train(root, tmp_path, random_cloud):
    uids = lambda split, folder=root, **options: [  # noqa: E731
        item['uid'] for item in TripletDataset(folder, split=split, **options)]
    # The dataset has nine training and three test objects: a fifth of nine is two for val, and test stays.
    order = sorted(uids('train'), key=caption_id)
    assert sorted(uids('val', hold_out=0.2)) == sorted(order[:2])
    assert sorted(uids('train', hold_out=0.2)) == sorted(order[2:]) and uids('train') == uids('train', hold_out=0)
    assert uids('test', hold_out=0.2) == uids('test') == ['o9', 'o10', 'o11']
    with ShardWriter(tmp_path) as writer:
        for i in range(4):
            writer.write(f'o{i}', random_cloud(3), captions=['x'])
    parts = [uids(split, tmp_path, hold_out=0.01) for split in ('train', 'val', 'test')]
    assert list(map(len, parts)) == [2, 1, 1]
    assert sorted(uid for part in parts for uid in part) == ['o0', 'o1', 'o2', 'o3']
    assert len(uids(None, tmp_path, hold_out=0.01)) == 4
    with pytest.raises(ValueError, match=r"split='dev': .*\['test', 'train', 'val'\]$"):
        uids('dev', tmp_path, hold_out=0.1)
    with pytest.raises(ValueError, match=r'4 training objects are too few for the missing splits val and test'):
        uids('train', tmp_path, hold_out=0.49)
    for share in (-0.1, 0.5):
        with pytest.raises(ValueError, match=f'hold_out={share}: expected a share'):
            TripletDataset(root, hold_out=share)


def test_quality_selects_measured_objects(root):
    assert [item['uid'] for item in TripletDataset(root, split=None, min_quality=39)] == ['o9', 'o10', 'o11']
    assert len(TripletDataset(root, split=None, min_quality=0)) == COUNT - 1
    with pytest.raises(ValueError, match='min_quality=99 dB'):
        TripletDataset(root, min_quality=99)


def test_errors_name_a_remedy(root):
    with pytest.raises(FileNotFoundError, match=r'tools/cache_features.py .* --teacher big'):
        TripletDataset(root, features='big')
    with pytest.raises(ValueError, match=r"split='val'.*\['test', 'train'\]; hold_out=0.1 uses a tenth"):
        TripletDataset(root, split='val')
    with pytest.raises(ValueError, match='index below 6'):
        TripletDataset(root, features='toy', views=[6])
    with pytest.raises(IndexError, match=r'index 9: expected 0 to 8'):
        TripletDataset(root)[9]


def test_features_of_changed_captions_are_refused(root, tmp_path, random_cloud):
    with ShardWriter(tmp_path) as writer:
        writer.write('o0', random_cloud(3), np.zeros((1, 4, 4, 3), np.uint8), captions=['before'])
    features = FeatureWriter(ShardReader(tmp_path), 'toy', WIDTH, 'abc')
    features.write(0, np.ones((1, 1, WIDTH)), [np.ones((1, WIDTH))])
    for part in ('shards', 'index.parquet', 'dataset.json'):
        path = tmp_path / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with ShardWriter(tmp_path) as writer:
        writer.write('o0', random_cloud(3), np.zeros((1, 4, 4, 3), np.uint8), captions=['after'])
    dataset = TripletDataset(tmp_path, features='toy')
    with pytest.raises(ValueError, match=r'other captions .* run tools/cache_features.py again'):
        dataset[0]


def test_a_dataset_without_categories_has_no_labels(tmp_path, random_cloud):
    with ShardWriter(tmp_path) as writer:
        writer.write('o0', random_cloud(3), captions=['x'])
    dataset = TripletDataset(tmp_path, pipeline=[dict(type='PackGaussians')])
    assert set(dataset[0]['data_samples']) == {'uid', 'split', 'caption', 'caption_id'}
    assert dataset.metainfo['classes'] == []


def test_built_by_name_inside_another_scope(root):
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmengine'):
        dataset = DATASETS.build(dict(type='clipgs_plugin.TripletDataset', root=str(root), pipeline=PIPELINE))
    assert len(dataset[0]['inputs']) == 16


def test_objects_are_loaded_on_one_thread_and_the_thread_count_is_restored(root, set_threads):
    seen = []

    def look(results):
        seen.append(torch.get_num_threads())
        raise RuntimeError
    set_threads(2)
    with pytest.raises(RuntimeError):
        TripletDataset(root, pipeline=[look])[0]
    assert seen == [1] and torch.get_num_threads() == 2
