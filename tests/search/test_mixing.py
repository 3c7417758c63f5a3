import pytest
import torch

from clipgs_plugin.search import SearchIndex, mix_queries


def test_a_mix_is_the_weighted_mean_of_unit_vectors():
    a, b = torch.tensor([3., 0, 0]), torch.tensor([0, 1., 0])
    assert torch.allclose(mix_queries([a, b], [1, 1]), torch.tensor([1, 1, 0]) / 2 ** 0.5)
    assert torch.allclose(mix_queries([a, b], [2, -1]), torch.tensor([2, -1, 0]) / 5 ** 0.5)


def test_a_mix_ranks_what_has_both_first_and_what_is_not_wanted_last():
    chair, red, wood = torch.eye(3)
    objects = torch.nn.functional.normalize(torch.stack([chair, chair + red, chair + wood, red]), dim=-1)
    index = SearchIndex(objects, ('chair', 'red chair', 'wooden chair', 'red'), 'm')
    assert index.query(mix_queries([chair, red], [1, 1]), 1)[0][0] == 'red chair'
    assert index.query(mix_queries([chair, wood], [1, -0.5]))[0][0] == 'chair'
    assert [path for path, _ in index.query(mix_queries([chair, wood], [1, -0.5]))[-2:]] == ['wooden chair', 'red']


@pytest.mark.parametrize('weights, message', [([1], '2 queries'), ([-1, -1], 'positive'), ([1, -1], 'cancel out')])
def test_mixes_without_a_direction_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        mix_queries([torch.tensor([1., 0]), torch.tensor([2., 0])], weights)
