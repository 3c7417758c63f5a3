"""Neighbours, centres and edges of Gaussians in one list of nodes, against loops."""
import pytest
import torch
from conftest import relabelled

pytest.importorskip('torch_geometric')
import torch_geometric.typing
from torch_geometric.data import Batch

from clipgs_plugin.geometric import GaussianData, farthest_points, gaussian_edges, knn, knn_graph
from clipgs_plugin.geometric.edges import Shapes

SIZES = (20, 3, 11)
BATCH = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))


def test_neighbors_equal_those_of_each_cloud():
    pos, k = torch.rand(sum(SIZES), 3), 5
    query, point = knn(pos, pos, k, BATCH, BATCH)
    for i in range(len(pos)):
        own = torch.nonzero(BATCH[i] == BATCH)[:, 0]
        expected = own[(pos[own] - pos[i]).square().sum(1).argsort(stable=True)][:k]
        assert torch.equal(point[query == i], expected)
    assert torch.equal(knn_graph(pos, k, BATCH), torch.stack([point, query]))


def test_queries_may_be_other_points():
    pos, queries = torch.rand(6, 3), torch.rand(2, 3)
    query, point = knn(pos, queries, 1)
    assert query.tolist() == [0, 1] and torch.equal(point, torch.cdist(queries, pos).argmin(1))


def test_farthest_points_are_those_of_each_cloud():
    pos = torch.rand(sum(SIZES), 3)
    centers = farthest_points(pos, 5, BATCH)
    assert BATCH[centers].tolist() == [0] * 5 + [1] * 3 + [2] * 5
    alone = farthest_points(pos[23:], 5)
    assert torch.equal(centers[8:], alone + 23)


def test_kernels_of_torch_geometric_are_used_where_they_are(monkeypatch):
    pos = torch.rand(4, 3)
    monkeypatch.setattr(torch_geometric.typing, 'WITH_KNN', False)
    with pytest.raises(ModuleNotFoundError, match='needs pyg-lib'):
        knn(pos, pos, 2, backend='pyg')
    monkeypatch.setattr(torch_geometric.typing, 'WITH_KNN', True)
    monkeypatch.setattr(torch_geometric.nn, 'knn', lambda *args: ('called with', *args))
    assert knn(pos, pos, 2, backend='pyg') == ('called with', pos, pos, 2, None, None)
    with pytest.raises(ValueError, match="backend='fast'"):
        knn(pos, pos, 2, backend='fast')


def shapes(cloud):
    return Shapes(cloud.means, cloud.quats, cloud.log_scales)


def features(cloud, names, edge_index, **options):
    return gaussian_edges(shapes(cloud), shapes(cloud), edge_index, names, **options)


@pytest.fixture
def cloud(random_cloud):
    return random_cloud(12)


@pytest.fixture
def edge_index(cloud):
    return knn_graph(cloud.means, 4)


def test_offset_and_rotation_are_in_the_frame_of_the_neighbour(cloud, edge_index):
    found = features(cloud, ('offset', 'rotation'), edge_index)
    for value, (j, i) in zip(found, edge_index.T):
        frame = cloud.rotations[j].T
        assert torch.allclose(value[:3], frame @ (cloud.means[i] - cloud.means[j]), atol=1e-6)
        assert torch.allclose(value[3:].view(3, 3), frame @ cloud.rotations[i], atol=1e-6)


def test_overlap_is_the_integral_of_the_geometric_mean(cloud):
    """Integrates sqrt(p q) on a grid, which is the definition of the coefficient."""
    pair = cloud[:2].replace(means=torch.tensor([[0.0, 0, 0], [0.3, -0.2, 0.1]]),
                             log_scales=torch.tensor([[0.3, 0.5, 0.2], [0.4, 0.25, 0.6]]).log())
    axis = torch.linspace(-3, 3, 61, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis, axis)
    densities = [torch.distributions.MultivariateNormal(mean.double(), covariance.double()).log_prob(points)
                 for mean, covariance in zip(pair.means, pair.covariances)]
    expected = float((sum(densities) / 2).exp().sum()) * 0.1 ** 3
    found = features(pair, ('overlap',), torch.tensor([[0], [1]]), floor=0.0)
    assert found.item() == pytest.approx(expected, abs=1e-4)
    assert features(pair, ('overlap',), torch.tensor([[0], [0]])).item() == pytest.approx(1)


def test_mahalanobis_distances_in_both_gaussians(cloud, edge_index):
    found = features(cloud, ('mahalanobis',), edge_index, floor=0.0)
    for value, (j, i) in zip(found, edge_index.T):
        d = (cloud.means[i] - cloud.means[j]).double()
        for distance, one in zip(value, (j, i)):
            expected = d @ torch.linalg.solve(cloud.covariances[one].double(), d)
            assert distance.item() == pytest.approx(float(expected.log1p()), rel=1e-3, abs=1e-5)


def test_edges_do_not_see_rotations_and_translations(cloud, edge_index):
    matrix = torch.linalg.qr(torch.randn(3, 3)).Q.double()
    matrix *= torch.linalg.det(matrix).sign()
    turned = cloud.transform(matrix, torch.tensor([1.0, 2.0, 3.0]))
    names = ('offset', 'rotation', 'mahalanobis', 'overlap')
    assert torch.allclose(features(turned, names, edge_index), features(cloud, names, edge_index), atol=1e-4)


def test_distances_and_overlaps_do_not_see_the_labels_of_axes(cloud, edge_index):
    first, *others = [features(other, ('mahalanobis', 'overlap'), edge_index) for other in relabelled(cloud)]
    assert all(torch.allclose(other, first, atol=1e-5) for other in others)


def test_flat_gaussians_have_finite_features(cloud, edge_index):
    flat = cloud.replace(log_scales=torch.full_like(cloud.log_scales, -30.0))
    assert bool(features(flat, ('mahalanobis', 'overlap'), edge_index).isfinite().all())


def test_unknown_features_are_refused(cloud, edge_index):
    with pytest.raises(ValueError, match=r"'colour'.*expected some of"):
        features(cloud, ('colour',), edge_index)


def test_batched_objects_have_no_edges_between_them(random_cloud):
    batch = Batch.from_data_list([GaussianData.from_cloud(random_cloud(n, seed=n)) for n in (6, 9)])
    sources, targets = knn_graph(batch.pos, 4, batch.batch)
    assert torch.equal(batch.batch[sources], batch.batch[targets]) and len(sources) == 4 * 15
