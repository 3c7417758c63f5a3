"""Padding of clouds into a batch."""
import pytest
import torch

from clipgs_plugin import GaussianBatch


def test_batch_returns_its_clouds_and_pads_with_the_identity(random_cloud):
    clouds = [random_cloud(3, 1), random_cloud(7, 2, sh_degree=1), random_cloud(1, 3)]
    batch = GaussianBatch.from_clouds(clouds)
    for cloud, back in zip(clouds, batch.to_clouds()):
        for name, value in cloud.with_sh_degree(1).fields():
            assert torch.equal(getattr(back, name), value)
    assert torch.equal(batch.quats[2, 1:], torch.tensor([1.0, 0, 0, 0]).expand(6, 4))
    assert batch.mask.sum(1).tolist() == [3, 7, 1]


def test_empty_batches_and_empty_clouds_raise(random_cloud):
    with pytest.raises(ValueError, match='at least one GaussianCloud'):
        GaussianBatch.from_clouds([])
    with pytest.raises(ValueError, match='object 1 of the batch has no Gaussians'):
        GaussianBatch.from_clouds([random_cloud(3), random_cloud(0)])
