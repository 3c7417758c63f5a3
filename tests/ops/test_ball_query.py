"""Ball query against a loop over points in float64, by every installed backend."""
import pytest
import pytorch3d_stand_in
import torch

from clipgs_plugin import ops
from clipgs_plugin.ops import backends


def plain_ball_query(points, queries, radius, k):
    """Return the first k points within the radius, padded with the first; without any, the nearest point."""
    rows = []
    for query in queries.double().tolist():
        squared = [sum((a - b) ** 2 for a, b in zip(point, query)) for point in points.double().tolist()]
        inside = [i for i, d in enumerate(squared) if d <= radius ** 2] or [squared.index(min(squared))]
        rows.append([inside[i] if i < len(inside) else inside[0] for i in range(k)])
    return torch.tensor(rows)


@pytest.fixture(params=[*ops.available_backends('ball_query'), 'stand-in'])
def ball_query(request, monkeypatch):
    """The ball query of an installed backend, or of the adapter for pytorch3d upon a stand-in."""
    backend = request.param
    if backend == 'stand-in':
        pytorch3d_stand_in.install(monkeypatch)
        monkeypatch.setattr(backends, '_installed', lambda package: True)
        backend = 'pytorch3d'
    return lambda *args: ops.ball_query(*args, backend=backend)


def cube(n=400, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('k', [1, 8, 64, 500])
@pytest.mark.parametrize('radius', [0.05, 0.2, 2.0])
def test_ball_query_matches_the_plain_loop(ball_query, radius, k):
    points = cube()
    queries = torch.cat([points[::40], cube(5, seed=1)])
    found = ball_query(points[None], queries[None], radius, k)
    assert found.dtype == torch.int64
    assert torch.equal(found[0], plain_ball_query(points, queries, radius, k))


def test_points_at_the_radius_are_inside(ball_query):
    # Squares of multiples of 1/4 are exact in float32.
    axis = torch.arange(5) / 4
    points = torch.cartesian_prod(axis, axis, axis)
    found = ball_query(points[None], points[None], 0.25, 7)[0]
    assert torch.equal(found, plain_ball_query(points, points, 0.25, 7))
    assert len(found[62].unique()) == 7  # the centre and its six neighbours, exactly at the radius
    alone = ball_query(points[None], points[None], 0.2499, 7)[0]
    assert torch.equal(alone, torch.arange(125)[:, None].expand(-1, 7))


def test_points_are_taken_in_the_order_of_the_cloud_not_by_distance(ball_query):
    points = torch.tensor([[9.0, 0, 0], [0.3, 0, 0], [0.2, 0, 0], [0.1, 0, 0]])
    query = torch.zeros(1, 1, 3)
    assert ball_query(points[None], query, 1.0, 2).tolist() == [[[1, 2]]]
    assert ball_query(points[None].flip(1), query, 1.0, 2).tolist() == [[[0, 1]]]
    assert ball_query(points[None], query, 1.0, 5).tolist() == [[[1, 2, 3, 1, 1]]]
    assert ball_query(points[None], query, 0.05, 3).tolist() == [[[3, 3, 3]]]  # none inside: the nearest


@pytest.mark.parametrize('value', [None, torch.inf, torch.nan])
def test_ball_query_ignores_padding(ball_query, value):
    lengths = torch.tensor([60, 3, 1, 33])
    points, queries = (torch.stack([cube(n, seed) for seed in range(4)]) for n in (60, 7))
    for row, query, n in zip(points, queries, lengths):
        row[n:] = query[0] if value is None else value  # the former would be the nearest of all
    found = ball_query(points, queries, 0.4, 10, lengths)
    for b, n in enumerate(lengths):
        assert torch.equal(found[b], plain_ball_query(points[b, :n], queries[b], 0.4, 10))
    unpadded = [ball_query(points[b, None, :n], queries[b, None], 0.4, 10) for b, n in enumerate(lengths)]
    assert torch.equal(found, torch.cat(unpadded))


def test_no_queries(ball_query):
    assert ball_query(cube()[None], torch.rand(1, 0, 3), 0.2, 4).shape == (1, 0, 4)


@pytest.mark.parametrize('radius', [0.0, -1.0, float('nan')])
def test_nonpositive_radius_is_named(ball_query, radius):
    with pytest.raises(ValueError, match=f'radius={radius}: expected a distance above 0'):
        ball_query(cube()[None], torch.rand(1, 2, 3), radius, 4)


def test_points_within_rounding_of_the_radius(ball_query):
    """Squared distances next to the squared radius: the float32 below, equal, and above."""
    radius = 0.3
    limit = torch.tensor(radius ** 2)
    lengths = torch.linspace(0.2999999, 0.3000001, 9)
    squared = lengths.square()
    assert (squared < limit).any() and (squared > limit).any()
    points = torch.stack([lengths, torch.zeros(9), torch.zeros(9)], dim=1)
    expected = (squared <= limit).nonzero()[:, 0]
    found = ball_query(points[None], torch.zeros(1, 1, 3), radius, len(expected))
    assert torch.equal(found[0, 0], expected)


def test_equally_near_points_outside_are_taken_in_order(ball_query):
    points = torch.tensor([[4.0, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2]])
    assert ball_query(points[None], torch.zeros(1, 1, 3), 1.0, 4).tolist() == [[[1, 2, 3, 1]]]
