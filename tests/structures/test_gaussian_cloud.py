"""GaussianCloud: shapes, indices, validation and geometry."""
import math

import numpy as np
import pytest
import torch

from clipgs_plugin import ops


def test_wrong_shapes_name_the_field(random_cloud):
    cloud = random_cloud(5)
    with pytest.raises(ValueError, match=r'log_scales has shape \(4, 3\), expected \(5, 3\)'):
        cloud.replace(log_scales=cloud.log_scales[:4])
    with pytest.raises(ValueError, match=r'sh has shape \(5, 5, 3\)'):
        cloud.replace(sh=torch.zeros(5, 5, 3))


def test_integer_index_selects_one_gaussian_and_is_checked(random_cloud):
    cloud = random_cloud(4)
    for index in (0, 3, -1, -4, np.int64(2)):
        assert torch.equal(cloud[index].means, cloud.means[int(index)][None])
    for index in (4, -5):
        with pytest.raises(IndexError, match=f'index {index} .* 4 Gaussians'):
            cloud[index]
    assert torch.equal(torch.cat([one.quats for one in cloud]), cloud.quats)  # iteration stops


@pytest.mark.parametrize('field, value', [('means', math.nan), ('log_scales', math.inf), ('quats', 0.0)])
def test_validate_names_field_and_count_and_clean_drops(random_cloud, field, value):
    cloud = random_cloud(6)
    getattr(cloud, field)[2] = value
    with pytest.raises(ValueError, match=rf'thing.ply: {field} .* 1 of 6'):
        cloud.validate('thing.ply')
    cleaned, dropped = cloud.clean()
    assert dropped == 1 and len(cleaned.validate()) == 5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('field, value, limit', [
    ('means', -2e18, '1e[+]18'), ('quats', 3.4e38, '1e[+]18'), ('sh', 2e18, '1e[+]18'), ('log_scales', 42, '41.45')])
def test_values_that_overflow_in_use_are_refused_and_dropped(random_cloud, field, value, limit, dtype):
    cloud = random_cloud(6, dtype=dtype)
    getattr(cloud, field)[3].view(-1)[0] = value
    with pytest.raises(ValueError, match=f'thing.ply: {field} is beyond {limit} in 1 of 6 Gaussians'):
        cloud.validate('thing.ply')
    cleaned, dropped = cloud.clean()
    assert dropped == 1 and len(cleaned.validate()) == 5


def test_infinite_half_floats_are_dropped(random_cloud):
    cloud = random_cloud(6).to(torch.float16)
    cloud.means[2, 0] = -torch.inf
    assert cloud.clean()[1] == 1


def test_normalise_scales_extents_with_positions(random_cloud):
    cloud = random_cloud(100).translate_scale(torch.tensor([5.0, -2.0, 100.0]), 7.0)
    unit = cloud.normalise()
    assert unit.means.norm(dim=-1).max() == pytest.approx(1, abs=1e-6)
    assert unit.means.mean(0).abs().max() < 1e-6
    ratio = (unit.scales / cloud.scales).mean()
    spread = unit.means[:, None].sub(unit.means).norm(dim=-1).max() / cloud.means[:, None].sub(
        cloud.means).norm(dim=-1).max()
    assert ratio.item() == pytest.approx(spread.item(), rel=1e-4)


def test_bounding_sphere_inverts_normalise(random_cloud):
    cloud = random_cloud(30).translate_scale(torch.tensor([5.0, -2.0, 100.0]), 7.0)
    centre, radius = cloud.bounding_sphere()
    assert torch.allclose(cloud.normalise().means.double() * radius + centre, cloud.means.double(), atol=1e-5)
    assert cloud[:1].bounding_sphere()[1] == 1.0


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gaussians_at_one_position_are_only_centred(random_cloud, dtype):
    cloud = random_cloud(3, dtype=dtype)
    cloud = cloud.replace(means=torch.tensor([0.1, -20.3, 1e5], dtype=dtype).expand(3, 3))
    unit = cloud.normalise()
    assert unit.means.abs().max() < 1e-9 and torch.equal(unit.log_scales, cloud.log_scales)
    assert len(cloud[:0].normalise()) == 0


def test_single_gaussian_is_only_centred(random_cloud):
    cloud = random_cloud(1)
    unit = cloud.normalise()
    assert torch.equal(unit.means, torch.zeros(1, 3)) and torch.equal(unit.log_scales, cloud.log_scales)


@pytest.mark.parametrize('factor', [0.0, -2.0, math.nan, math.inf])
def test_nonpositive_and_infinite_factors_raise(random_cloud, factor):
    with pytest.raises(ValueError, match=f'factor={factor}: expected'):
        random_cloud(3).translate_scale(torch.zeros(3), factor)


def test_covariance_from_definition(random_cloud):
    cloud = random_cloud(4, dtype=torch.float64)
    for i in range(4):
        w, x, y, z = (cloud.quats[i] / cloud.quats[i].norm()).tolist()
        # Rotate basis vectors by q v q* with the Hamilton product.
        q, conj = torch.tensor([w, x, y, z]).double(), torch.tensor([w, -x, -y, -z]).double()
        axes = [ops.quaternion_multiply(ops.quaternion_multiply(q, torch.tensor([0.0, *e]).double()), conj)[1:]
                for e in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))]
        expected = sum(s ** 2 * torch.outer(a, a) for s, a in zip(cloud.scales[i], axes))
        assert torch.allclose(cloud.covariances[i], expected, atol=1e-7)
