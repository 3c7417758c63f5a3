"""Folds of a cross-validation: by hand, on any machine, and in a dataset."""
import hashlib

import numpy as np
import pytest
from conftest import random_cloud

from clipgs_plugin import get_config
from clipgs_plugin.apis.configs import config_root
from clipgs_plugin.datasets import TripletDataset
from clipgs_plugin.datasets.folds import assign_folds, splits_digest, splits_of_fold
from clipgs_plugin.generation import GenerationSettings
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

UIDS = [f'{shape}/{number}' for shape in ('cup', 'shoe', 'Größe') for number in range(9)]


def place(uid: str) -> int:
    """Return the place of a uid by the published hash, half of blake2b's first 8 bytes."""
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8).digest(), 'little') // 2


def test_objects_are_dealt_in_the_order_of_their_hashes():
    dealt = dict(zip(sorted(UIDS, key=place), [0, 1, 2, 3, 4] * 6))
    assert assign_folds(UIDS, 5).tolist() == [dealt[uid] for uid in UIDS]


def test_the_order_of_the_objects_does_not_matter():
    order = np.random.default_rng(0).permutation(len(UIDS))
    assert assign_folds([UIDS[i] for i in order], 4).tolist() == assign_folds(UIDS, 4)[order].tolist()


def test_folds_are_a_partition_of_equal_sizes():
    tests = [{uid for uid, split in zip(UIDS, splits_of_fold(UIDS, (number, 5))) if split == 'test'}
             for number in range(5)]
    assert set.union(*tests) == set(UIDS) and sorted(map(len, tests)) == [5, 5, 5, 6, 6]


def test_the_digest_is_that_of_every_machine():
    found = splits_digest(UIDS, splits_of_fold(UIDS, (0, 5)))
    assert found == '7ac12343377608fb3f60cee4735774edc9c692a0680d837129c31d627ec5f64c'
    assert splits_digest(UIDS[::-1], splits_of_fold(UIDS[::-1], (0, 5))) == found
    assert splits_digest(UIDS, splits_of_fold(UIDS, (1, 5))) != found


@pytest.mark.parametrize('fold', [(5, 5), (-1, 5), (0,), (0, 28), (0, 1)])
def test_folds_that_do_not_exist_are_refused(fold):
    with pytest.raises(ValueError, match='fold'):
        splits_of_fold(UIDS, fold)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Ten objects of six views, whose features are the number of the view."""
    root = tmp_path_factory.mktemp('folds')
    with ShardWriter(root, webp_quality=None) as writer:
        for i in range(10):
            writer.write(f'o{i}', random_cloud(20, seed=i), np.zeros((6, 4, 4, 3), np.uint8), captions=['a'],
                         split='val' if i == 3 else 'train')
    views = np.broadcast_to(np.arange(6)[None, :, None], (10, 6, 2))
    FeatureWriter(ShardReader(root), 'toy', 2, 'abc').write(0, views, [np.ones((1, 2))] * 10)
    return root


def test_a_fold_replaces_the_splits_of_a_dataset(root):
    dataset = dict(root=root, pipeline=[dict(type='PackGaussians')], fold=(1, 4))
    parts = {split: TripletDataset(split=split, **dataset) for split in ('train', 'test', None)}
    uids = {split: [part[i]['data_samples']['uid'] for i in range(len(part))] for split, part in parts.items()}
    assert uids['test'] == [uid for uid, fold in zip(parts[None].reader.uids, assign_folds(uids[None], 4)) if fold == 1]
    assert sorted(uids['train'] + uids['test']) == sorted(uids[None]) == sorted(f'o{i}' for i in range(10))
    everyone = [parts[None][i]['data_samples'] for i in range(10)]
    assert [each['uid'] for each in everyone if each['split'] == 'test'] == uids['test']
    with pytest.raises(ValueError, match='set hold_out=0'):
        TripletDataset(hold_out=0.1, **dataset)


def test_views_of_queries_never_reach_training(root):
    dataset = TripletDataset(root, 'train', [dict(type='PackGaussians')], 'toy', num_views=3, views=range(4),
                             fold=(0, 5))
    seen = {int(view) for epoch in range(50) for i in range(len(dataset))
            for view in dataset[epoch, i]['data_samples']['views'][:, 0]}
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize('name', ['clipgs_pointbert-nano_60e_triplet-folds', 'views_toy-clip_0e_triplet-folds',
                                  'cached-views_toy-clip_0e_triplet-folds'])
def test_configs_train_on_fitted_views_and_ask_with_the_others_among_all_objects(name):
    cfg = get_config(name, {'fold_number': 3})
    rule = GenerationSettings.from_config(get_config(config_root() / 'triplets' / 'held_out_views.py').generation).views
    fitted, asked = set(range(rule.num_views)), set(cfg.test_evaluator.view_slots)
    assert rule.keep_test and asked == set(range(rule.num_views, rule.num_views + rule.num_test))
    assert cfg.test_dataloader.dataset.split is None and cfg.test_evaluator.queries == 'test'
    assert tuple(cfg.test_dataloader.dataset.fold) == (3, 5) and cfg.val_dataloader is None
    if cfg.train_dataloader is not None:
        train = cfg.train_dataloader.dataset
        assert train.split == 'train' and tuple(train.fold) == (3, 5) and set(train.views) == fitted
    if name.startswith('cached'):
        assert set(cfg.model.view_slots) == fitted
