"""Training views that show other objects."""
import numpy as np
import pytest
import torch
from conftest import random_cloud

from clipgs_plugin.datasets import StrayViewTriplets, TripletDataset
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

PIPELINE = [dict(type='PackGaussians')]
COUNT, VIEWS = 12, 6


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Views and features that state their object and view."""
    root = tmp_path_factory.mktemp('stray')
    with ShardWriter(root, webp_quality=None) as writer:
        for i in range(COUNT):
            views = np.stack([np.full((4, 4, 3), 10 * i + view, np.uint8) for view in range(VIEWS)])
            writer.write(f'o{i}', random_cloud(5, seed=i), views, captions=['a'], split='train' if i < 9 else 'test')
    writer = FeatureWriter(ShardReader(root), 'toy', 2, 'abc')
    for shard, rows in writer.pending():
        writer.write(shard, np.array([[[row, view] for view in range(VIEWS)] for row in rows]),
                     [np.array([[row, 1]]) for row in rows])
    return root


def objects(root, index, epochs=200, **options):
    """Return the object that each view shows by its features, (epochs, K)."""
    dataset = StrayViewTriplets(root, features='toy', num_views=4, pipeline=PIPELINE, **options)
    return torch.stack([dataset[epoch, index]['data_samples']['views'][:, 0] for epoch in range(epochs)])


def test_a_share_of_the_views_shows_other_objects_of_the_split(root):
    shown = objects(root, 3)
    assert abs((shown != 3).float().mean() - 0.4 * 8 / 9) < 0.05  # one in nine strays is the object itself
    assert set(shown.unique().tolist()) == set(range(9))


def test_captions_and_gaussians_stay_those_of_the_object(root):
    plain, stray = (kind(root, features='toy', num_views=4, pipeline=PIPELINE)
                    for kind in (TripletDataset, StrayViewTriplets))
    for epoch in range(5):
        one, other = plain[epoch, 3], stray[epoch, 3]
        assert torch.equal(one['inputs'].means, other['inputs'].means)
        assert torch.equal(one['data_samples']['text'], other['data_samples']['text'])
        kept = other['data_samples']['views'][:, 0] == 3
        assert torch.equal(one['data_samples']['views'][kept], other['data_samples']['views'][kept])


def test_decoded_views_stray_with_their_features(root):
    dataset = StrayViewTriplets(root, features='toy', num_views=4, load_views=True, stray=1, pipeline=PIPELINE)
    for epoch in range(5):
        sample = dataset[epoch, 0]['data_samples']
        expected = 10 * sample['views'][:, 0] + sample['views'][:, 1]
        assert torch.equal(sample['view_pixels'][:, 0, 0, 0].float(), expected)


def test_no_view_strays_with_probability_0_or_in_test_mode(root):
    assert (objects(root, 3, 20, stray=0) == 3).all()
    dataset = StrayViewTriplets(root, features='toy', stray=1, test_mode=True, pipeline=PIPELINE)
    assert (dataset[3]['data_samples']['views'][:, 0] == 3).all()
    with pytest.raises(ValueError, match=r'stray=1\.5: expected a probability'):
        StrayViewTriplets(root, stray=1.5)
