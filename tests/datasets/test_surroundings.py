"""Crop, removal of the plane an object stands on, and the largest cluster."""
import math

import pytest
import torch

from clipgs_plugin import GaussianCloud, read_gaussians
from clipgs_plugin.datasets.transforms import CropGaussians, LargestCluster, RemovePlane
from clipgs_plugin.ops import axis_change
from clipgs_plugin.ops.rotations import axis_vector, quaternion_to_matrix
from clipgs_plugin.toy_world.specs import object_specs
from clipgs_plugin.toy_world.world import make_object


def join(*clouds: GaussianCloud) -> GaussianCloud:
    return GaussianCloud(**{name: torch.cat([getattr(cloud, name) for cloud in clouds])
                            for name, _ in clouds[0].fields()})


def table(cloud: GaussianCloud, share: float, seed: int = 0) -> GaussianCloud:
    """Return Gaussians on a level square below a y-up object, a share of both together."""
    count = round(len(cloud) * share / (1 - share))
    g = torch.Generator().manual_seed(seed)
    radius = float((cloud.means - cloud.means.mean(0)).norm(dim=1).max())
    places = (2 * torch.rand(count, 3, generator=g) - 1) * torch.tensor([2.0, 0.003, 2.0]) * radius
    copies = cloud[torch.randint(len(cloud), (count,), generator=g)]
    return copies.replace(means=places + torch.stack([cloud.means[:, 0].mean(), cloud.means[:, 1].min(),
                                                      cloud.means[:, 2].mean()]))


def tilt(degrees: float) -> torch.Tensor:
    half = math.radians(degrees) / 2
    return quaternion_to_matrix(torch.tensor([math.cos(half), math.sin(half), 0, 0], dtype=torch.float64))


@pytest.mark.parametrize('up, degrees', [('y', 0), ('y', 9), ('-z', 0)])
def test_a_table_is_removed_and_the_object_stays(up, degrees):
    removed, kept, total = 0, 0, 0
    for spec in object_specs(12, split='test'):
        cloud = make_object(spec).gaussians
        whole = join(cloud, table(cloud, 0.4)).transform(axis_change('y', up) @ tilt(degrees))
        results = RemovePlane(up=up)(dict(gaussians=whole))
        rows = {tuple(row) for row in results['gaussians'].means.tolist()}
        own = sum(tuple(row) in rows for row in whole.means[:len(cloud)].tolist())
        assert own >= 0.97 * len(cloud), spec
        assert len(rows) + results['plane'] == len(whole)
        kept, total, removed = kept + own, total + len(cloud), removed + len(rows) - own
    assert kept >= 0.99 * total
    assert removed <= 0.1 * total  # of 0.67, what lies below the objects


def test_objects_without_a_table_are_unchanged(splats):
    for spec in object_specs(12, split='test'):
        cloud = make_object(spec).gaussians
        assert RemovePlane()(dict(gaussians=cloud)) == dict(gaussians=cloud, plane=0), spec
    cloud = read_gaussians(splats / 'potted_plant.splat')
    for up in ('x', 'y', 'z', '-x', '-y', '-z'):
        assert RemovePlane(up=up)(dict(gaussians=cloud))['plane'] == 0


def test_degenerate_objects_are_unchanged(random_cloud):
    for cloud in (random_cloud(1), random_cloud(3), random_cloud(50).replace(means=torch.zeros(50, 3))):
        assert RemovePlane()(dict(gaussians=cloud)) == dict(gaussians=cloud, plane=0)
        assert len(LargestCluster()(dict(gaussians=cloud))['gaussians']) >= 1
    only = table(random_cloud(500), 0.4)
    assert RemovePlane()(dict(gaussians=only))['plane'] == 0  # a plane alone is the object


def test_the_largest_cluster_stays(random_cloud):
    cloud = random_cloud(3000)
    near = random_cloud(900).translate_scale(torch.tensor([25.0, 0, 0]), 0.1)
    far = random_cloud(300).translate_scale(torch.tensor([-300.0, 4, 0]), 0.02)
    whole = join(near, far, cloud)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(1))
    results = LargestCluster(radius=0.2)(dict(gaussians=whole[order]))
    assert results['other_clusters'] == 1200
    assert torch.equal(results['gaussians'].means, whole.means[order[order >= 1200]])


@pytest.mark.parametrize('gap, groups', [(0.9, 1), (3.6, 2)])
def test_points_within_the_radius_are_connected_and_far_ones_apart(gap, groups):
    from clipgs_plugin.datasets.transforms.surroundings import clusters
    points = torch.cat([axis_vector('x')[None] * gap * i for i in range(2)]).numpy()
    for shift in (0.0, 0.05, 0.5, 0.95):
        assert len(set(clusters(points + shift, 1.0))) == groups


def test_a_crop_keeps_its_box_and_never_nothing(random_cloud):
    cloud = random_cloud(500)
    results = CropGaussians((-2, 0, -2), (2, 2, 2))(dict(gaussians=cloud))
    expected = cloud.means[:, 1] >= 0
    assert torch.equal(results['gaussians'].means, cloud.means[expected])
    assert results['cropped'] == 500 - int(expected.sum())
    with pytest.raises(ValueError, match=r'holds none of 500 Gaussians, which lie from'):
        CropGaussians((5, 5, 5), (6, 6, 6))(dict(gaussians=cloud))


@pytest.mark.parametrize('make', [
    lambda: CropGaussians((0, 0, 0), (1, 0, 1)), lambda: RemovePlane(thickness=0), lambda: RemovePlane(min_share=1.0),
    lambda: RemovePlane(up='north'), lambda: LargestCluster(0)])
def test_wrong_options_are_refused(make):
    with pytest.raises(ValueError, match='expected'):
        make()
