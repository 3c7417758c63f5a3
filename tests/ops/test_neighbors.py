"""Nearest neighbours against sorting all distances in numpy."""
import numpy as np
import pytest
import torch

from clipgs_plugin import ops


def clouds(n: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(n)
    sphere = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    line = torch.rand(n, 1, generator=g) * torch.tensor([1.0, -3.0, 0.2])
    grid = torch.randint(0, 5, (n, 3), generator=g) / 4  # ties and duplicates
    return {'sphere': sphere, 'cube': torch.rand(n, 3, generator=g), 'line': line, 'grid': grid,
            'near_ties': grid + 1e-7 * torch.randn(n, 3, generator=g), 'far_away': sphere + 1e4,
            'equal': torch.ones(n, 3), 'tiny': sphere * 1e-22,
            'stray': torch.where(torch.rand(n, 1, generator=g) < 0.02, sphere * 1e5, sphere)}


def plain_knn(points: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    d = queries[:, None] - points[None]
    squared = (d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1]) + d[..., 2] * d[..., 2]
    found = squared.argsort(axis=-1, kind='stable')
    found = found[:, np.arange(k) % len(points)]
    return found, np.take_along_axis(squared, found, -1)


@pytest.fixture(params=ops.available_backends('knn'))
def backend(request):
    return request.param


@pytest.mark.parametrize('name', clouds(1))
@pytest.mark.parametrize('k', [1, 7, 64, 200])
def test_knn_matches_the_sorted_distances(backend, name, k):
    points = clouds(500)[name]
    queries = torch.cat([points[::25], points.mean(0, keepdim=True), points[:3] + 10, torch.zeros(1, 3)])
    found, squared = ops.knn(points[None], queries[None], k, backend=backend)
    expected, expected_squared = plain_knn(points.numpy(), queries.numpy(), k)
    assert found.dtype == torch.int64
    assert np.array_equal(found[0], expected)
    assert np.array_equal(squared[0], expected_squared)


def test_distances_agree_with_float64(backend):
    g = torch.Generator().manual_seed(0)
    points, queries = torch.rand(1, 900, 3, generator=g), torch.rand(1, 40, 3, generator=g)
    found, squared = ops.knn(points, queries, 16, backend=backend)
    exact = torch.cdist(queries.double(), points.double()) ** 2
    torch.testing.assert_close(squared.double(), exact.sort().values[..., :16], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(exact.gather(-1, found), exact.sort().values[..., :16], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('value', [None, torch.inf, torch.nan])
def test_knn_ignores_padding_and_repeats_neighbours(backend, value):
    lengths = torch.tensor([128, 3, 1, 65])
    g = torch.Generator().manual_seed(0)
    points, queries = torch.rand(4, 128, 3, generator=g), torch.rand(4, 9, 3, generator=g)
    for row, n in zip(points, lengths):
        row[n:] = queries[0, 0] if value is None else value  # the former would be the nearest of all
    found, squared = ops.knn(points, queries, 10, lengths, backend=backend)
    for b, n in enumerate(lengths):
        expected, expected_squared = plain_knn(points[b, :n].numpy(), queries[b].numpy(), 10)
        assert np.array_equal(found[b], expected)
        assert np.array_equal(squared[b], expected_squared)


def test_blocks_of_queries_do_not_change_the_reference(monkeypatch):
    g = torch.Generator().manual_seed(0)
    points, queries = torch.rand(2, 100, 3, generator=g), torch.rand(2, 30, 3, generator=g)
    whole = ops.knn(points, queries, 5, backend='reference')
    monkeypatch.setattr('clipgs_plugin.ops.kernels.points_reference._CHUNK', 7 * 200)
    for one, other in zip(whole, ops.knn(points, queries, 5, backend='reference')):
        assert torch.equal(one, other)


def test_no_queries(backend):
    found, squared = ops.knn(torch.rand(2, 10, 3), torch.rand(2, 0, 3), 4, backend=backend)
    assert found.shape == squared.shape == (2, 0, 4)


@pytest.mark.parametrize('search', [ops.knn, lambda points, queries, k: ops.ball_query(points, queries, 0.2, k)],
                         ids=['knn', 'ball_query'])
def test_wrong_counts_and_queries_are_named(search):
    points, queries = torch.rand(2, 10, 3), torch.rand(2, 4, 3)
    with pytest.raises(ValueError, match='k=0: expected at least 1'):
        search(points, queries, 0)
    for value in (torch.nan, torch.inf, -1e30):
        wrong = queries.clone()
        wrong[1, 2, 0] = value
        with pytest.raises(ValueError, match='1 queries of cloud 1 are NaN, infinite or beyond'):
            search(points, wrong, 3)
    with pytest.raises(ValueError, match='1 points of cloud 0 are NaN'):
        search(points.masked_fill(torch.arange(10)[:, None] + 10 * torch.arange(2)[:, None, None] == 7, torch.nan),
               queries, 3)
