"""Farthest point sampling and grouping against a plain loop in numpy."""
import sys

import numpy as np
import pytest
import torch

from clipgs_plugin import ops, read_gaussians
from clipgs_plugin.ops.kernels import points_pytorch3d as pytorch3d_kernels


def surface(n: int, seed: int) -> torch.Tensor:
    """Points of a noisy torus."""
    g = torch.Generator().manual_seed(seed)
    u, v = torch.rand(2, n, generator=g) * 2 * torch.pi
    ring = 1 + 0.4 * v.cos()
    points = torch.stack([ring * u.cos(), ring * u.sin(), 0.4 * v.sin()], dim=-1)
    return points + 0.003 * torch.randn(n, 3, generator=g)


def uniform(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def duplicated(n: int, seed: int) -> torch.Tensor:
    """Repeated positions in random order, fewer than 64 distinct ones."""
    g = torch.Generator().manual_seed(seed)
    return uniform(40, seed)[torch.randint(40, (n,), generator=g)]


def collinear(n: int, seed: int) -> torch.Tensor:
    return torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 2.0, -0.5])


def lattice(n: int, seed: int) -> torch.Tensor:
    """Exact ties everywhere."""
    cells = torch.cartesian_prod(*[torch.arange(round(n ** (1 / 3)) + 1.0)] * 3)
    return cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))][:n] / 8


def near_ties(n: int, seed: int) -> torch.Tensor:
    """Lattice moved by about one unit in the last place."""
    g = torch.Generator().manual_seed(seed)
    return lattice(n, seed) + 1e-7 * torch.randn(n, 3, generator=g)


def far_away(n: int, seed: int) -> torch.Tensor:
    """Torus far from the origin, with few digits for its shape."""
    return surface(n, seed) + torch.tensor([1e4, -3e4, 7e3])


def tiny(n: int, seed: int) -> torch.Tensor:
    """Torus whose squared distances are mostly denormal or zero."""
    return surface(n, seed) * 1e-22


def stray(n: int, seed: int) -> torch.Tensor:
    """Torus with a few outliers, as in unfiltered splats."""
    points = surface(n, seed)
    points[::100] = 1e5 * uniform(len(points[::100]), seed)
    return points


CLOUDS = [surface, uniform, duplicated, collinear, lattice, near_ties, far_away, tiny, stray]


def plain_fps(points: torch.Tensor, count: int, start: int = 0, pointnet2: bool = False) -> torch.Tensor:
    """Sample one cloud with a plain loop."""
    p = points.numpy().astype(np.float32)
    excluded = (p.astype(np.float32) ** 2).sum(-1) <= 1e-3 if pointnet2 else np.zeros(len(p), bool)
    nearest = np.full(len(p), np.inf, np.float32)
    picks = [start]
    while len(picks) < min(count, len(p)):
        d = p - p[picks[-1]]
        nearest = np.minimum(nearest, (d[:, 0] * d[:, 0] + d[:, 1] * d[:, 1]) + d[:, 2] * d[:, 2])
        candidates = np.flatnonzero(~excluded)
        picks.append(int(candidates[nearest[candidates].argmax()]) if len(candidates) else 0)
    return torch.tensor([picks[i % len(p)] for i in range(count)])


@pytest.fixture(params=ops.available_backends('fps'))
def backend(request):
    return request.param


@pytest.mark.parametrize('cloud', CLOUDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize('n', [1000, 129])
def test_fps_matches_the_plain_loop(backend, cloud, n):
    points = torch.stack([cloud(n, seed) for seed in (3, 4)])
    for start in (0, n // 2):
        found = ops.farthest_point_sample(points, 64, start=start, backend=backend)
        assert found.dtype == torch.int64
        for picks, one in zip(found, points):
            assert torch.equal(picks, plain_fps(one, 64, start))


def test_fps_of_every_point_picks_each_once(backend):
    points = surface(300, 0)[None]
    assert ops.farthest_point_sample(points, 300, backend=backend).sort().values.tolist() == [list(range(300))]


@pytest.mark.parametrize('value', [1e9, torch.inf, torch.nan])  # 1e9 would be the farthest of all
def test_fps_ignores_padding(backend, value):
    lengths = torch.tensor([200, 1, 63, 64, 65, 137])
    clouds = [uniform(int(n), seed) for seed, n in enumerate(lengths)]
    padded = torch.full((6, 200, 3), value)
    for row, one in zip(padded, clouds):
        row[:len(one)] = one
    for start in (0, 'farthest'):
        found = ops.farthest_point_sample(padded, 64, lengths, start=start, backend=backend)
        for picks, one in zip(found, clouds):
            alone = ops.farthest_point_sample(one[None], 64, start=start, backend=backend)[0]
            assert torch.equal(picks, alone)
            assert torch.equal(picks, plain_fps(one, 64, int(picks[0])))
    centers, neighbors = ops.group(padded, 64, 7, lengths, backend=backend)
    for row, one in enumerate(clouds):
        alone = ops.group(one[None], 64, 7, backend=backend)
        assert torch.equal(centers[row], alone[0][0]) and torch.equal(neighbors[row], alone[1][0])


def test_small_clouds_repeat_their_picks_in_order(backend):
    points = uniform(5, 1)[None]
    picks = ops.farthest_point_sample(points, 13, start=2, backend=backend)[0].tolist()
    assert sorted(picks[:5]) == [0, 1, 2, 3, 4]
    assert picks == (picks[:5] * 3)[:13]


def test_single_point(backend):
    centers, neighbors = ops.group(torch.randn(2, 1, 3), 4, 3, backend=backend)
    assert not centers.any() and centers.shape == (2, 4)
    assert not neighbors.any() and neighbors.shape == (2, 4, 3)


def test_equal_points_give_the_lowest_index(backend):
    points = torch.ones(1, 10, 3)
    picks = ops.farthest_point_sample(points, 4, start=7, backend=backend)
    assert picks.tolist() == [[7, 0, 0, 0]]


def test_start_farthest_is_the_point_farthest_from_the_centroid(backend):
    points = torch.stack([surface(500, 1), uniform(500, 2)]).double()
    lengths = torch.tensor([500, 321])
    found = ops.farthest_point_sample(points.float(), 1, lengths, start='farthest', backend=backend)[:, 0]
    for pick, one, n in zip(found, points, lengths):
        one = one[:n].float().double().numpy()
        assert int(pick) == np.linalg.norm(one - one.mean(0), axis=-1).argmax()


def test_the_centroid_of_start_farthest_is_summed_in_float64():
    for seed in range(20):
        # Pairs of opposite points are equally far, so a centroid of one more rounding error decides between them.
        directions = torch.randn(250, 3, generator=torch.Generator().manual_seed(seed))
        points = torch.nn.functional.normalize(torch.cat([directions, -directions]), dim=-1) + 1000.3
        offset = points.numpy() - points.numpy().mean(0, dtype=np.float64).astype(np.float32)
        squared = (offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1]) + offset[:, 2] * offset[:, 2]
        assert ops.farthest_point_sample(points[None], 1, start='farthest').item() == squared.argmax(), seed


def test_start_farthest_takes_the_first_of_ties():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    cube = torch.cat([torch.zeros(3, 3), corners])
    assert ops.farthest_point_sample(cube[None], 1, start='farthest').item() == 3
    shifted = cube + torch.tensor([0.5, 0.25, -2.0])
    assert ops.farthest_point_sample(shifted[None], 1, start='farthest').item() == 3


def test_start_random_is_seeded_and_covers_each_length():
    points, lengths = torch.rand(3000, 3, 3), torch.arange(3000) % 3 + 1
    draw = lambda seed: ops.farthest_point_sample(  # noqa: E731
        points, 1, lengths, start='random', generator=torch.Generator().manual_seed(seed))[:, 0]
    first = draw(1)
    assert torch.equal(first, draw(1)) and not torch.equal(first, draw(2))
    for n in (1, 2, 3):
        counts = torch.bincount(first[lengths == n], minlength=3)
        assert not counts[n:].any()
        assert (counts[:n] - 1000 / n).abs().max() < 100


def test_start_can_differ_by_cloud(backend):
    points = torch.stack([surface(200, 1), surface(200, 2)])
    found = ops.farthest_point_sample(points, 20, start=torch.tensor([7, 199]), backend=backend)
    assert torch.equal(found[0], plain_fps(points[0], 20, 7))
    assert torch.equal(found[1], plain_fps(points[1], 20, 199))


@pytest.mark.parametrize('backend', [b for b in ops.available_backends('fps') if b != 'pytorch3d'])
def test_pointnet2_rule_skips_points_near_the_origin(backend):
    near_origin = uniform(400, 5) * 0.1  # norms up to 0.087, the limit is 0.0316
    assert 20 < ((near_origin ** 2).sum(-1) <= 1e-3).sum() < 380
    inside_first = torch.cat([torch.full((1, 3), 1e-3), near_origin])
    for points in (near_origin, inside_first):
        found = ops.farthest_point_sample(points[None], 200, backend=backend, rule='pointnet2')[0]
        assert torch.equal(found, plain_fps(points, 200, pointnet2=True))
        picked = points[found[1:]]
        assert ((picked ** 2).sum(-1) > 1e-3).all()
        assert found[0] == 0
    assert not torch.equal(found, ops.farthest_point_sample(points[None], 200, backend=backend)[0])


@pytest.mark.parametrize('backend', [b for b in ops.available_backends('fps') if b != 'pytorch3d'])
def test_pointnet2_rule_without_another_point_repeats_the_start(backend):
    points = uniform(50, 1)[None] * 0.01
    assert not ops.farthest_point_sample(points, 8, backend=backend, rule='pointnet2').any()


@pytest.mark.parametrize('cloud', CLOUDS, ids=lambda f: f.__name__)
def test_group_is_fps_and_knn(backend, cloud):
    lengths = torch.tensor([700, 20, 333])
    points = torch.stack([cloud(700, seed) for seed in range(3)])
    centers, neighbors = ops.group(points, 48, 24, lengths, start='farthest', backend=backend)
    expected = ops.farthest_point_sample(points, 48, lengths, start='farthest', backend='reference')
    assert torch.equal(centers, expected)
    queries = points.gather(1, expected[..., None].expand(-1, -1, 3))
    assert torch.equal(neighbors, ops.knn(points, queries, 24, lengths, backend='reference')[0])


@pytest.mark.parametrize('name', ['camera.ply', 'potted_plant.splat', 'monkey.sog'])
def test_group_of_real_splats(splats, name):
    points = read_gaussians(splats / name).means[None]
    for cpu, reference in zip(*[ops.group(points, 64, 32, start='farthest', backend=b) for b in ('cpu', 'reference')]):
        assert torch.equal(cpu, reference)


def test_number_of_threads_does_not_change_groups(set_threads):
    points = torch.stack([surface(2000, seed) for seed in range(5)])
    results = []
    for count in (1, 3):
        set_threads(count)
        results.append(ops.group(points, 64, 16, backend='cpu'))
    for one, several in zip(*results):
        assert torch.equal(one, several)


def test_points_need_not_be_contiguous_or_float32(backend):
    points = surface(300, 0)
    expected = plain_fps(points, 32)
    columns = torch.cat([points, torch.randn(300, 4)], dim=-1)[None]
    assert torch.equal(ops.farthest_point_sample(columns[..., :3], 32, backend=backend)[0], expected)
    assert torch.equal(ops.farthest_point_sample(points.double()[None], 32, backend=backend)[0], expected)
    learnt = points[None].clone().requires_grad_()
    assert torch.equal(ops.farthest_point_sample(learnt, 32, backend=backend)[0], expected)


@pytest.mark.parametrize('kwargs, words', [
    (dict(num_samples=0), 'num_samples=0'),
    (dict(lengths=torch.tensor([0, 5])), 'cloud 0 has length 0, expected 1..10'),
    (dict(lengths=torch.tensor([3, 11])), 'cloud 1 has length 11'),
    (dict(lengths=torch.tensor([3])), r'lengths .* expected integers of shape \(2,\)'),
    (dict(start=10), 'start=10: cloud 0 has the indices 0..9'),
    (dict(start=-1), 'start=-1'),
    (dict(start='nearest'), "start='nearest'"),
    (dict(start=0.5), 'start is torch.float32'),
    (dict(rule='dgl'), "rule='dgl'"),
    (dict(rule='pointnet2', start='farthest'), "rule='pointnet2' always starts at 0"),
    (dict(backend='gpu'), "backend='gpu'"),
])
def test_errors_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ops.farthest_point_sample(torch.rand(2, 10, 3), **{'num_samples': 4, **kwargs})


@pytest.mark.parametrize('value', [torch.nan, torch.inf, 1e20])
def test_non_finite_points_raise(backend, value):
    points = torch.rand(2, 10, 3)
    points[1, 4, 2] = value
    with pytest.raises(ValueError, match='1 points of cloud 1 are NaN, infinite'):
        ops.farthest_point_sample(points, 4, backend=backend)
    with pytest.raises(ValueError, match='1 queries of cloud 1 are NaN, infinite'):
        ops.knn(torch.rand(2, 10, 3), points, 4, backend=backend)
    # Beyond a cloud's length it is padding.
    ops.farthest_point_sample(points, 4, torch.tensor([10, 4]), backend=backend)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r'\(10, 3\), expected floats of shape \(B, N, 3\)'):
        ops.farthest_point_sample(torch.rand(10, 3), 4)
    with pytest.raises(ValueError, match=r'expected \(2, G, 3\)'):
        ops.knn(torch.rand(2, 10, 3), torch.rand(3, 4, 3), 2)


class FakePytorch3d:
    """Two functions of pytorch3d.ops as documented: sampling starts at 0 and pads with -1, neighbours pad with 0."""

    @staticmethod
    def sample_farthest_points(points, lengths, K):
        found = torch.full((len(points), K), -1)
        for row, one, n in zip(found, points, lengths.tolist()):
            row[:min(n, K)] = plain_fps(one[:n], min(n, K))
        return None, found

    @staticmethod
    def knn_points(p1, p2, lengths2, K, return_sorted):
        distance = ((p1[:, :, None] - p2[:, None]) ** 2).sum(-1)
        distance[(torch.arange(p2.shape[1]) >= lengths2[:, None])[:, None].expand_as(distance)] = torch.inf
        squared, found = distance.sort(dim=-1, stable=True)
        beyond = (torch.arange(K) >= lengths2[:, None])[:, None]
        return squared[..., :K].masked_fill(beyond, 0), found[..., :K].masked_fill(beyond, 0), None


def test_pytorch3d_adapter_keeps_the_contract(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch3d', FakePytorch3d)
    monkeypatch.setitem(sys.modules, 'pytorch3d.ops', FakePytorch3d)
    lengths, starts = torch.tensor([90, 7, 33]), torch.tensor([5, 6, 0])
    for cloud in (uniform, lattice, duplicated):
        points = torch.stack([cloud(90, seed) for seed in range(3)])
        args = (points, lengths, starts, None, 60, 12)
        for found, expected in zip(pytorch3d_kernels.group(*args),
                                   ops.group(points, 60, 12, lengths, start=starts, backend='reference')):
            assert torch.equal(found, expected)
    with pytest.raises(ValueError, match='pointnet2'):
        pytorch3d_kernels.fps(points, lengths, starts, torch.zeros(3, 90, dtype=torch.bool), 4)
