import math

import numpy as np
import pytest
import torch
from conftest import relabelled

from clipgs_plugin import GaussianBatch, ops
from clipgs_plugin.structures import attributes


def test_wrong_shape_is_refused_by_name(random_cloud):
    cloud = random_cloud(5)
    with pytest.raises(ValueError, match=r'log_scales has shape \(4, 3\), expected \(5, 3\)'):
        cloud.replace(log_scales=cloud.log_scales[:4])
    with pytest.raises(ValueError, match=r'sh has shape \(5, 5, 3\)'):
        cloud.replace(sh=torch.zeros(5, 5, 3))


def test_one_gaussian_is_taken_by_number_and_no_more_than_there_are(random_cloud):
    cloud = random_cloud(4)
    for index in (0, 3, -1, -4, np.int64(2)):
        assert torch.equal(cloud[index].means, cloud.means[int(index)][None])
    for index in (4, -5):
        with pytest.raises(IndexError, match=f'index {index} .* 4 Gaussians'):
            cloud[index]
    assert torch.equal(torch.cat([one.quats for one in cloud]), cloud.quats)  # a loop ends


@pytest.mark.parametrize('field, value', [('means', math.nan), ('log_scales', math.inf), ('quats', 0.0)])
def test_validate_names_field_and_count_and_clean_drops(random_cloud, field, value):
    cloud = random_cloud(6)
    getattr(cloud, field)[2] = value
    with pytest.raises(ValueError, match=rf'thing.ply: {field} .* 1 of 6'):
        cloud.validate('thing.ply')
    cleaned, dropped = cloud.clean()
    assert dropped == 1 and len(cleaned.validate()) == 5


def test_normalise_scales_extents_with_positions(random_cloud):
    cloud = random_cloud(100).translate_scale(torch.tensor([5.0, -2.0, 100.0]), 7.0)
    unit = cloud.normalise()
    assert unit.means.norm(dim=-1).max() == pytest.approx(1, abs=1e-6)
    assert unit.means.mean(0).abs().max() < 1e-6
    ratio = (unit.scales / cloud.scales).mean()
    spread = unit.means[:, None].sub(unit.means).norm(dim=-1).max() / cloud.means[:, None].sub(
        cloud.means).norm(dim=-1).max()
    assert ratio.item() == pytest.approx(spread.item(), rel=1e-4)


def test_the_bounding_sphere_leads_back(random_cloud):
    cloud = random_cloud(30).translate_scale(torch.tensor([5.0, -2.0, 100.0]), 7.0)
    centre, radius = cloud.bounding_sphere()
    assert torch.allclose(cloud.normalise().means.double() * radius + centre, cloud.means.double(), atol=1e-5)
    assert cloud[:1].bounding_sphere()[1] == 1.0


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gaussians_in_one_place_are_centred_only(random_cloud, dtype):
    cloud = random_cloud(3, dtype=dtype)
    cloud = cloud.replace(means=torch.tensor([0.1, -20.3, 1e5], dtype=dtype).expand(3, 3))
    unit = cloud.normalise()
    assert unit.means.abs().max() < 1e-9 and torch.equal(unit.log_scales, cloud.log_scales)
    assert len(cloud[:0].normalise()) == 0


def test_single_gaussian_is_centred_only(random_cloud):
    cloud = random_cloud(1)
    unit = cloud.normalise()
    assert torch.equal(unit.means, torch.zeros(1, 3)) and torch.equal(unit.log_scales, cloud.log_scales)


@pytest.mark.parametrize('factor', [0.0, -2.0, math.nan, math.inf])
def test_a_factor_that_leaves_no_extent_is_refused(random_cloud, factor):
    with pytest.raises(ValueError, match=f'factor={factor}: expected'):
        random_cloud(3).translate_scale(torch.zeros(3), factor)


def test_batch_returns_its_clouds_and_pads_with_identity(random_cloud):
    clouds = [random_cloud(3, 1), random_cloud(7, 2, sh_degree=1), random_cloud(1, 3)]
    batch = GaussianBatch.from_clouds(clouds)
    for cloud, back in zip(clouds, batch.to_clouds()):
        for name, value in cloud.with_sh_degree(1).fields():
            assert torch.equal(getattr(back, name), value)
    assert torch.equal(batch.quats[2, 1:], torch.tensor([1.0, 0, 0, 0]).expand(6, 4))
    assert batch.mask.sum(1).tolist() == [3, 7, 1]


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


def test_matrix_and_quaternion_invert_each_other():
    quats = torch.nn.functional.normalize(torch.randn(500, 4, dtype=torch.float64), dim=-1)
    half_turns = torch.eye(4, dtype=torch.float64)
    quats = torch.cat([quats, half_turns])
    matrices = ops.quaternion_to_matrix(quats)
    back = ops.matrix_to_quaternion(matrices)
    assert torch.allclose(ops.quaternion_to_matrix(back), matrices, atol=1e-12)
    assert (back[:, 0] >= 0).all()


def test_paper_attributes_are_19_and_blind_to_the_sign_of_q(random_cloud):
    cloud = random_cloud(20)
    raw = attributes.pack(cloud)
    assert raw.shape == (20, attributes.NUM_RAW) == (20, 14)
    linear = attributes.linearise(raw)
    assert linear.shape[-1] == attributes.num_channels('paper') == 19
    assert torch.equal(linear, attributes.linearise(attributes.pack(cloud.replace(quats=-cloud.quats))))
    assert torch.equal(linear[:, 6], cloud.opacities)
    assert torch.equal(linear[:, 10:].reshape(-1, 3, 3), cloud.rotations)


def test_gauge_free_attributes_are_blind_to_the_labelling_of_axes(random_cloud):
    cloud = random_cloud(10)
    expected = attributes.linearise(attributes.pack(cloud), 'gauge_free')
    variants = relabelled(cloud)
    assert len(variants) == 24
    for variant in variants:
        assert torch.allclose(variant.covariances, cloud.covariances, atol=1e-6)
        assert torch.allclose(attributes.linearise(attributes.pack(variant), 'gauge_free'), expected, atol=1e-5)
    changed = attributes.linearise(attributes.pack(variants[5]))
    assert not torch.allclose(changed, attributes.linearise(attributes.pack(cloud)), atol=1e-2)


@pytest.mark.parametrize('value', ['everything', ('xyz', 'smell'), ()])
def test_unknown_attributes_are_named(value):
    with pytest.raises(ValueError, match='attributes='):
        attributes.num_channels(value)
