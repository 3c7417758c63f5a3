"""The base class of the datasets."""
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from clipgs_plugin.datasets import GaussianDataset


class InMemory(GaussianDataset):
    """Clouds that were made in memory."""

    classes = []

    def __init__(self, clouds, pipeline=()):
        super().__init__(pipeline)
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


def test_the_log_names_the_first_object_with_floaters_once(random_cloud, caplog):
    clouds = [random_cloud(1000, seed=seed) for seed in range(3)]
    for cloud in clouds[1:]:
        cloud.means[7] = 50.0
    dataset = InMemory(clouds, [dict(type='DropFloaters'), dict(type='PackGaussians')])
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        assert [len(dataset[i]['inputs']) for i in range(3)] == [1000, 999, 999]
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == ["InMemory: DropFloaters leaves out 1 Gaussians of object 'o1', and others of later "
                               'objects']
    assert dataset[1]['data_samples']['floaters'] == 1
