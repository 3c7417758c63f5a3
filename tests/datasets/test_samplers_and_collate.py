import math

import mmengine.registry
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from clipgs_plugin import GaussianBatch
from clipgs_plugin.datasets import EpochSampler, collate_gaussians
from clipgs_plugin.datasets import samplers as samplers_module
from clipgs_plugin.registry import DATA_SAMPLERS, FUNCTIONS


def pairs(count: int, epoch: int = 0, **options) -> list[tuple[int, int]]:
    sampler = EpochSampler(range(count), **{'seed': 0, **options})
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def test_each_epoch_is_a_new_permutation_that_depends_on_the_seed():
    first, second = pairs(50, 0), pairs(50, 1)
    assert {epoch for epoch, _ in second} == {1}
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(50))
    assert [i for _, i in first] != [i for _, i in second] != list(range(50))
    assert pairs(50, 1) == second != pairs(50, 1, seed=5)
    assert pairs(4, 3, shuffle=False) == [(3, 0), (3, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize('count, world', [(10, 3), (2, 5), (9, 3)])
@pytest.mark.parametrize('round_up', [True, False])
def test_processes_split_the_objects(monkeypatch, count, world, round_up):
    whole = [index for _, index in pairs(count)]
    ranks = []
    for rank in range(world):
        monkeypatch.setattr(samplers_module, 'get_dist_info', lambda rank=rank: (rank, world))
        ranks.append([index for _, index in pairs(count, round_up=round_up)])
    sizes = [len(r) for r in ranks]
    assert sum(sizes) == (math.ceil(count / world) * world if round_up else count)
    # Interleaving the ranks gives the whole order, followed by its first indices.
    dealt = [ranks[i % world][i // world] for i in range(sum(sizes))]
    assert dealt == (whole * world)[:len(dealt)]


def test_a_loader_passes_pairs_to_the_dataset():
    class Echo(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, pair):
            return pair
    sampler = DATA_SAMPLERS.build(dict(type='EpochSampler', dataset=Echo(), shuffle=False))
    sampler.set_epoch(2)
    batches = list(DataLoader(Echo(), 2, sampler=sampler, collate_fn=list))
    assert batches == [[(2, 0), (2, 1)], [(2, 2), (2, 3)], [(2, 4)]]


def item(random_cloud, n: int, **sample) -> dict:
    return dict(inputs=random_cloud(n, seed=n), data_samples=dict(uid=str(n), **sample))


def test_collate_pads_objects_and_stacks_values(random_cloud):
    batch = collate_gaussians([
        item(random_cloud, 3, label=7, caption_id=2 ** 62 + 1, caption='a', text=torch.ones(4),
             view_pixels=torch.zeros(2, 3, 4, 4, dtype=torch.uint8)),
        item(random_cloud, 5, label=-1, caption_id=1, caption='b', text=torch.zeros(4),
             view_pixels=torch.ones(2, 3, 4, 4, dtype=torch.uint8))])
    assert isinstance(batch['inputs'], GaussianBatch) and batch['inputs'].lengths.tolist() == [3, 5]
    assert torch.equal(batch['inputs'][1].means, random_cloud(5, seed=5).means)
    samples = batch['data_samples']
    assert samples['uid'] == ['3', '5'] and samples['caption'] == ['a', 'b']
    assert samples['caption_id'].dtype == samples['label'].dtype == torch.int64
    assert samples['caption_id'].tolist() == [2 ** 62 + 1, 1] and samples['label'].tolist() == [7, -1]
    assert samples['text'].shape == (2, 4) and samples['view_pixels'].dtype == torch.uint8


def test_numpy_numbers_become_tensors_and_strings_stay(random_cloud):
    samples = collate_gaussians([
        item(random_cloud, n, label=np.int64(n), score=np.float64(0.5), up=np.ones(3, np.float32), name=np.str_('x'),
             words=np.array(['a', 'b']), quality=n if n == 3 else 0.5, source=None if n == 3 else 7)
        for n in (3, 4)])['data_samples']
    assert samples['label'].dtype == torch.int64 and samples['label'].tolist() == [3, 4]
    assert samples['score'].dtype == samples['quality'].dtype == torch.float32
    assert samples['quality'].tolist() == [3, 0.5]
    assert samples['up'].shape == (2, 3) and samples['up'].dtype == torch.float32
    assert samples['name'] == ['x', 'x'] and samples['source'] == [None, 7] and isinstance(samples['words'], list)


def test_items_with_different_keys_or_shapes_are_refused(random_cloud):
    with pytest.raises(ValueError, match=r"\['label'\] is in the data samples of only one"):
        collate_gaussians([item(random_cloud, 3), item(random_cloud, 4, label=1)])
    with pytest.raises(ValueError, match=r"'views' has the shapes \[\(2, 4\), \(3, 4\)\]"):
        collate_gaussians([item(random_cloud, n, views=torch.zeros(n, 4)) for n in (2, 3)])


def test_collate_is_registered_without_a_scope():
    assert mmengine.registry.FUNCTIONS.get('collate_gaussians') is collate_gaussians
    assert FUNCTIONS.get('collate_gaussians') is collate_gaussians
