"""Gaussians as pytorch3d's Pointclouds, of a stand-in and of the package itself where it is installed."""
import sys
from importlib.util import find_spec

import pytest
import pytorch3d_stand_in
import torch

from clipgs_plugin import GaussianBatch, GaussianCloud, read_gaussians
from clipgs_plugin.structures import FIELDS


@pytest.fixture(params=['stand-in', *(['pytorch3d'] if find_spec('pytorch3d') else [])])
def pointclouds_class(request, monkeypatch):
    """The class Pointclouds that ``to_pointclouds`` makes."""
    if request.param == 'pytorch3d':
        from pytorch3d.structures import Pointclouds
        return Pointclouds
    pytorch3d_stand_in.install(monkeypatch)
    return pytorch3d_stand_in.Pointclouds


def assert_same(found, expected):
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype and torch.equal(a, b), name


@pytest.mark.parametrize('degree', [0, 1, 2, 3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_an_object_returns_bit_for_bit(pointclouds_class, random_cloud, degree, dtype):
    cloud = random_cloud(50, 1, degree, dtype)
    pointclouds = cloud.to_pointclouds()
    assert isinstance(pointclouds, pointclouds_class) and len(pointclouds) == 1
    features, = pointclouds.features_list()
    assert features.shape == (50, 8 + 3 * (degree + 1) ** 2)
    # Columns: quaternion, log scales, opacity logit, SH coefficients one after the other.
    assert torch.equal(features[:, :4], cloud.quats) and torch.equal(features[:, 4:7], cloud.log_scales)
    assert torch.equal(features[:, 7], cloud.opacity_logits) and torch.equal(features[:, 8:11], cloud.sh[:, 0])
    assert torch.equal(features[:, -3:], cloud.sh[:, -1])
    assert_same(GaussianCloud.from_pointclouds(pointclouds), cloud)


def test_a_file_returns_bit_for_bit(pointclouds_class, splats):
    cloud = read_gaussians(sorted(splats.glob('*.spz'))[0])
    assert_same(GaussianCloud.from_pointclouds(cloud.to_pointclouds(normals=True)), cloud)


def test_objects_of_different_sizes_share_one_pointclouds(pointclouds_class, random_cloud):
    clouds = [random_cloud(n, n, degree) for n, degree in ((5, 1), (9, 0), (1, 1))]
    pointclouds = GaussianBatch.from_clouds(clouds).to_pointclouds()
    assert [len(points) for points in pointclouds.points_list()] == [5, 9, 1]
    assert torch.equal(pointclouds.points_list()[1], clouds[1].means)
    batch = GaussianBatch.from_pointclouds(pointclouds)
    for found, cloud in zip(batch.to_clouds(), clouds):
        assert_same(found, cloud.with_sh_degree(1))  # a batch has one degree
    with pytest.raises(ValueError, match=r'hold 3 clouds, expected 1; GaussianBatch\.from_pointclouds'):
        GaussianCloud.from_pointclouds(pointclouds)


def test_normals_are_the_shortest_axes_and_point_outwards(pointclouds_class, random_cloud):
    # Two discs: a quarter turn about x takes z to -y, and the shortest axis is z of the Gaussian.
    half = 0.5 ** 0.5
    cloud = GaussianCloud(torch.tensor([[0.0, 2, 0], [0, -2, 0.1]]), torch.tensor([[half, half, 0, 0], [3.0, 3, 0, 0]]),
                          torch.tensor([[0.0, -1, -5], [0, 0, -5]]), torch.zeros(2), torch.zeros(2, 1, 3))
    normals, = cloud.to_pointclouds(normals=True).normals_list()
    assert torch.allclose(normals, torch.tensor([[0.0, 1, 0], [0, -1, 0]]), atol=1e-6)
    cloud = random_cloud(40)
    spread = (cloud.normals[:, None] @ cloud.covariances @ cloud.normals[..., None]).flatten()
    assert torch.allclose(spread, torch.linalg.eigvalsh(cloud.covariances)[:, 0], rtol=1e-4)
    assert cloud.to_pointclouds().normals_list() is None


def test_gradients_flow_there_and_back(pointclouds_class, random_cloud):
    cloud = random_cloud(6).apply(lambda value: value.requires_grad_())
    back = GaussianCloud.from_pointclouds(cloud.to_pointclouds())
    sum(getattr(back, name).square().sum() for name in FIELDS).backward()
    for name in FIELDS:
        assert torch.equal(getattr(cloud, name).grad, 2 * getattr(cloud, name).detach()), name


def test_features_of_other_pointclouds_are_refused(pointclouds_class):
    points = [torch.rand(4, 3)]
    for features, width in (([torch.rand(4, 3)], 3), (None, 0), ([torch.rand(4, 12)], 12)):
        with pytest.raises(ValueError, match=rf'have {width} features a point, expected one of \(11, 20, 35, 56\)'):
            GaussianCloud.from_pointclouds(pointclouds_class(points=points, features=features))


def test_fields_of_different_dtypes_are_refused(pointclouds_class, random_cloud):
    cloud = random_cloud(4)
    with pytest.raises(ValueError, match=r'are of torch.float32, torch.float64; features have one dtype'):
        cloud.replace(sh=cloud.sh.double()).to_pointclouds()


def test_without_pytorch3d_the_error_has_its_install_line(monkeypatch, random_cloud):
    monkeypatch.setitem(sys.modules, 'pytorch3d', None)
    monkeypatch.setitem(sys.modules, 'pytorch3d.structures', None)
    for gaussians in (random_cloud(3), GaussianBatch.from_clouds([random_cloud(3)])):
        with pytest.raises(ModuleNotFoundError, match=r'pytorch3d: pip install "git\+https://github.com/facebook'):
            gaussians.to_pointclouds()
