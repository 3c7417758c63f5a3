"""Attributes of training objects: known quantiles, ranges over objects, and their check."""
import math

import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud
from clipgs_plugin.apis.attributes import LEVELS, NAMES, attribute_quantiles, attribute_ranges, checked_ranges


def cloud_of(values: np.ndarray) -> GaussianCloud:
    """A cloud whose opacity and red are some values, and whose axes are 1, 2 and 3 times them."""
    n, values = len(values), torch.from_numpy(values)
    colours = torch.stack([values, torch.zeros(n), torch.zeros(n)], 1)
    return GaussianCloud(torch.zeros(n, 3), torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
                         (values[:, None] * torch.tensor([2.0, 3.0, 1.0])).log().float(), torch.logit(values).float(),
                         ((colours - 0.5) / 0.28209479177387814).float()[:, None])


def quantiles(values):
    """By linear interpolation between sorted values."""
    places = (len(values) - 1) * np.array(LEVELS)
    return np.interp(places, np.arange(len(values)), np.sort(values))


def test_quantiles_of_known_values():
    values = np.random.default_rng(0).uniform(0.05, 0.95, 90)
    found = attribute_quantiles(cloud_of(values))
    expected = {'opacity': values, 'log scale, longest axis': np.log(3 * values),
                'log scale, middle axis': np.log(2 * values), 'log scale, shortest axis': np.log(values),
                'brightness': values / 3, 'saturation of colour': values}
    assert tuple(found) == NAMES == tuple(expected)
    for name, each in expected.items():
        np.testing.assert_allclose(list(found[name].values()), quantiles(each), atol=1e-5)
        assert list(found[name]) == ['0.05', '0.5', '0.95']


def test_ranges_are_the_smallest_and_largest_quantile_of_any_object():
    low, high = np.linspace(0.1, 0.3, 1001), np.linspace(0.6, 0.8, 11)  # the large object does not outweigh the small
    found = attribute_ranges(map(cloud_of, (high, low)))
    assert found['objects'] == 2
    assert found['attributes']['opacity'] == {'0.05': [0.11, 0.61], '0.5': [0.2, 0.7], '0.95': [0.29, 0.79]}
    assert found['attributes']['log scale, shortest axis']['0.5'] == [
        float(f'{math.log(value):.4g}') for value in (0.2, 0.7)]
    with pytest.raises(ValueError, match='there are no objects'):
        attribute_ranges([])


def test_ranges_of_a_card_are_checked():
    ranges = attribute_ranges([cloud_of(np.array([0.5, 0.6]))])
    assert checked_ranges(ranges, 'x') == ranges['attributes']
    assert checked_ranges({}, 'x') == checked_ranges({'levels': [1, 5], 'extent': [1, 2]}, 'x') == {}
    assert checked_ranges({'attributes': {'unknown': 1}}, 'x') == {}
    pair = [0, 1]
    for wrong in ({'opacity': 1}, {'opacity': {'0.5': pair}},
                  {'opacity': {'0.05': pair, '0.5': [0, 'a'], '0.95': pair}}):
        with pytest.raises(ValueError, match=r'^x'):
            checked_ranges({'attributes': wrong}, 'x')
