"""Channels of Gaussians as input of a network."""
import math

import pytest
import torch
from conftest import relabelled

from clipgs_plugin.structures import attributes


def test_paper_attributes_are_19_and_ignore_the_sign_of_quaternions(random_cloud):
    cloud = random_cloud(20)
    raw = attributes.pack(cloud)
    assert raw.shape == (20, attributes.NUM_RAW) == (20, 14)
    linear = attributes.linearise(raw)
    assert linear.shape[-1] == attributes.num_channels('paper') == 19
    assert torch.equal(linear, attributes.linearise(attributes.pack(cloud.replace(quats=-cloud.quats))))
    assert torch.equal(linear[:, 6], cloud.opacities)
    assert torch.equal(linear[:, 10:].reshape(-1, 3, 3), cloud.rotations)


@pytest.mark.parametrize('name', ['gauge_free', 'shape'])
def test_covariances_ignore_the_labelling_of_axes(random_cloud, name):
    cloud = random_cloud(10)
    expected = attributes.linearise(attributes.pack(cloud), name)
    variants = relabelled(cloud)
    assert len(variants) == 24
    for variant in variants:
        assert torch.allclose(variant.covariances, cloud.covariances, atol=1e-6)
        assert torch.allclose(attributes.linearise(attributes.pack(variant), name), expected, atol=1e-5)
    changed = attributes.linearise(attributes.pack(variants[5]))
    assert not torch.allclose(changed, attributes.linearise(attributes.pack(cloud)), atol=1e-2)


def test_shape_of_discs_is_bounded_and_without_size(random_cloud):
    cloud = random_cloud(4)
    log_scales = torch.tensor([[0.3, 0.3, 0.3], [-1, -1, -1.5], [-4, -4, -9], [-2, -2, -40]])
    quats = torch.tensor([[1.0, 0, 0, 0]] * 3 + [[1, 1, 0, 0]])  # the last turns z to -y
    shape = attributes.linearise(attributes.pack(cloud.replace(log_scales=log_scales, quats=quats)), ('shape',))
    flat = -2 * math.log(8)
    expected = torch.tensor([[0.0] * 6, [0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 0, flat], [0, 0, 0, flat, 0, 0]])
    assert torch.allclose(shape, expected, atol=1e-6)


@pytest.mark.parametrize('value', ['everything', ('xyz', 'smell'), ()])
def test_unknown_attributes_are_named(value):
    with pytest.raises(ValueError, match='attributes='):
        attributes.num_channels(value)
