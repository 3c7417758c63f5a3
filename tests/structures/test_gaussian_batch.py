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


def test_clouds_of_different_dtypes_raise_with_both_sides(random_cloud):
    clouds = [random_cloud(3), random_cloud(4, dtype=torch.float64)]
    for order in (clouds, clouds[::-1]):
        with pytest.raises(ValueError, match=r'means of the objects are of torch.float32, torch.float64; .*cloud.to'):
            GaussianBatch.from_clouds(order)
    mixed = clouds[0].replace(sh=clouds[0].sh.double())
    with pytest.raises(ValueError, match=r'sh of the objects are of torch.float32, torch.float64'):
        GaussianBatch.from_clouds([clouds[0], mixed])
    for dtype in (torch.float16, torch.float64):
        batch = GaussianBatch.from_clouds([cloud.to(dtype=dtype) for cloud in clouds])
        assert all(value.dtype == dtype for _, value in batch.fields())


def test_colours_are_clamped_to_the_unit_interval(random_cloud):
    cloud = random_cloud(3)
    cloud.sh[:, 0] = torch.tensor([[-10.0, 0, 10], [1, -1, 0], [100, -100, 0.5]])
    expected = torch.tensor([[0.0, 0.5, 1], [0.782095, 0.217905, 0.5], [1, 0, 0.641047]])
    torch.testing.assert_close(GaussianBatch.from_clouds([cloud, random_cloud(5)]).rgb[0, :3], expected)


def test_empty_batches_and_empty_clouds_raise(random_cloud):
    with pytest.raises(ValueError, match='at least one GaussianCloud'):
        GaussianBatch.from_clouds([])
    with pytest.raises(ValueError, match='object 1 of the batch has no Gaussians'):
        GaussianBatch.from_clouds([random_cloud(3), random_cloud(0)])
