"""The base class of the datasets."""
import numpy as np
import pytest
import torch

from clipgs_plugin.datasets import GaussianDataset


class InMemory(GaussianDataset):
    """Clouds that were made in memory."""

    classes = []

    def __init__(self, clouds):
        super().__init__()
        self.clouds = clouds

    def __len__(self):
        return len(self.clouds)

    def load(self, index: int, rng: np.random.Generator) -> dict:
        return dict(uid=f'o{index}', gaussians=self.clouds[index])


@pytest.mark.parametrize('field', ['means', 'quats', 'log_scales', 'opacity_logits', 'sh'])
def test_an_object_that_is_not_finite_is_refused_by_uid_field_and_gaussian(random_cloud, field):
    clouds = [random_cloud(9), random_cloud(9)]
    getattr(clouds[1], field)[[4, 6]] = torch.nan
    dataset = InMemory(clouds)
    assert dataset[0]['gaussians'] is clouds[0]
    with pytest.raises(ValueError, match=f"^object 'o1': {field} is NaN or infinite in 2 of 9 Gaussians, the first at "
                                         r'index 4; .*clean\(\)'):
        dataset[1]
