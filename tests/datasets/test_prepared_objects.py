"""Prepared objects by uid: behind objects without a class, and not at their place."""
import pytest
import torch

from clipgs_plugin.datasets import FrozenFeatures, PreparedObjects
from clipgs_plugin.registry import DATASETS


@DATASETS.register_module(force=True)
class NamedClouds(list):
    """Dataset of clouds with uids that counts what is read."""

    def __init__(self, uids, clouds):
        super().__init__(dict(uid=uid, gaussians=cloud) for uid, cloud in zip(uids, clouds, strict=True))
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def prepared(uids, clouds, labelled):
    features = FrozenFeatures(torch.eye(len(labelled)), torch.zeros(len(labelled)), labelled, ['x'])
    return PreparedObjects(dict(type='NamedClouds', uids=uids, clouds=clouds),
                           lambda results: dict(inputs=results['gaussians'][:5]), features)


def test_objects_are_found_behind_those_without_a_class(random_cloud):
    clouds = [random_cloud(9, seed=i) for i in range(6)]
    objects = prepared('abcdef', clouds, list('bef'))  # a, c and d have no class
    for found, index in zip(objects.take(['f', 'b', 'e']), (5, 1, 4), strict=True):
        assert torch.equal(found.means, clouds[index].means[:5])
    whole = prepared('abcdef', clouds, list('abcdef'))
    whole.take(['c', 'a'])
    assert whole._objects.read == 2  # at once, where all have a class


def test_objects_of_other_features_are_named(random_cloud):
    clouds = [random_cloud(9, seed=i) for i in range(3)]
    with pytest.raises(ValueError, match="object 'z' of the folds is not among the 2 features"):
        prepared('abc', clouds, ['a', 'c']).take(['z'])
    with pytest.raises(ValueError, match="object 'c' of the features is not at its place in"):
        prepared('cab', clouds, ['a', 'b', 'c']).take(['c'])
