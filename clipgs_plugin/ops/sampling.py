"""Farthest point sampling, and grouping of a cloud into patches."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops.backends import load_backend
from clipgs_plugin.ops.detached import detached

PointStart = int | str | Tensor
STARTS = ('farthest', 'random')
RULES = ('exact', 'pointnet2')
POINTNET2_MIN_SQUARED_NORM = 1e-3
LARGEST_COORDINATE = 1e18  # its square is still a float32


@detached
def farthest_point_sample(
    points: Tensor,
    num_samples: int,
    lengths: Tensor | None = None,
    start: PointStart = 0,
    backend: str = 'auto',
    rule: str = 'exact',
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pick points one by one, each farthest from the points picked before.

    Every backend returns the same indices: squared distances are float32, ``(dx * dx + dy * dy) + dz * dz``, and ties
    are broken by the lowest index. A cloud of ``n < num_samples`` points repeats its ``n`` picks cyclically;
    ``arange(num_samples) < lengths[:, None]`` masks the repeats.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        num_samples: Number of picks G, at least 1.
        lengths: Number of points of each cloud, (B,), each 1..N; the rest is padding. None means N.
        start: First pick: an index for all clouds, one index per cloud (B,), ``'farthest'`` (the point farthest from
            the centroid, which is summed in float64) or ``'random'`` (uniform, from ``generator``).
        backend: ``'auto'`` or one of ``available_backends('fps')``.
        rule: ``'exact'``, or ``'pointnet2'`` for weights trained with the kernel of PointNet++, which starts at 0 and
            never picks another point of squared norm up to 1e-3.
        generator: Random generator of ``start='random'``; None uses torch's default generator.

    Returns:
        Indices, (B, G), int64.

    Raises:
        ValueError: A shape, length, start, rule or backend is wrong, or a point is NaN or infinite.

    Source: Eldar et al., "The farthest point strategy for progressive image sampling", 1997. Rule
    ``'pointnet2'``: kernels of Qi et al., "PointNet++", 2017.
    """
    points, lengths = check_points(points, lengths)
    check_count('num_samples', num_samples)
    starts, skip = resolve_start(points, lengths, start, rule, generator)
    return load_backend('fps', backend, points.device).fps(points, lengths, starts, skip, num_samples)


@detached
def group(
    points: Tensor,
    num_groups: int,
    group_size: int,
    lengths: Tensor | None = None,
    start: PointStart = 0,
    backend: str = 'auto',
    rule: str = 'exact',
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Group a cloud into patches: centres by :func:`farthest_point_sample`, their neighbours by :func:`knn`.

    The indices equal those of the two calls, but the CPU backend builds its spatial index only once.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        num_groups: Number of patches G, at least 1.
        group_size: Number of points of each patch K, at least 1.
        lengths, start, rule, generator: Arguments of :func:`farthest_point_sample`.
        backend: ``'auto'`` or one of ``available_backends('fps')``.

    Returns:
        Centres, (B, G), and their neighbours, nearest first, (B, G, K), both int64. A cloud of fewer points than G or K
        repeats them cyclically.

    Raises:
        ValueError: A shape, length, start, rule or backend is wrong, or a point is NaN or infinite.
    """
    points, lengths = check_points(points, lengths)
    check_count('num_groups', num_groups)
    check_count('group_size', group_size)
    starts, skip = resolve_start(points, lengths, start, rule, generator)
    return load_backend('fps', backend, points.device).group(points, lengths, starts, skip, num_groups, group_size)


def check_count(name: str, value: int) -> None:
    """Check that a count is at least 1."""
    if value < 1:
        raise ValueError(f'{name}={value}: expected at least 1')


def check_start(start: PointStart, rule: str) -> None:
    """Check the names of a start and a rule, and their combination."""
    if isinstance(start, str) and start not in STARTS:
        raise ValueError(f"start={start!r}: expected an index, 'farthest' or 'random'")
    if rule not in RULES:
        raise ValueError(f'rule={rule!r}: expected one of {RULES}')
    if rule == 'pointnet2' and not (isinstance(start, int) and start == 0):
        raise ValueError(f"start={start!r}: rule='pointnet2' always starts at 0")


def check_points(points: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Check points and lengths, and return them as float32 and int64 on the points' device."""
    if points.ndim != 3 or points.shape[-1] != 3 or not points.is_floating_point():
        raise ValueError(f'points are {points.dtype} of shape {tuple(points.shape)}, '
                         'expected floats of shape (B, N, 3)')
    b, n = points.shape[:2]
    if lengths is None:
        lengths = points.new_full((b,), n, dtype=torch.int64)
    elif lengths.shape != (b,) or lengths.is_floating_point():
        raise ValueError(f'lengths are {lengths.dtype} of shape {tuple(lengths.shape)}, '
                         f'expected integers of shape ({b},)')
    lengths = lengths.to(points.device, torch.int64)
    points = points.to(torch.float32).contiguous()
    if points.device.type == 'cpu':  # elsewhere the check would synchronise host and device
        bad = (lengths < 1) | (lengths > n)
        if bool(bad.any()):
            raise ValueError(f'cloud {int(bad.nonzero()[0])} has length {int(lengths[bad][0])}, expected 1..{n}')
        check_finite('points', points, lengths)
    return points, lengths


def check_finite(name: str, points: Tensor, lengths: Tensor | None = None) -> None:
    """Check that squared distances of points are finite floats."""
    # In numpy: torch's threads would keep spinning on the cores that the kernels need next.
    if points.numel() == 0 or np.abs(points.numpy()).max() < LARGEST_COORDINATE:  # false for NaN
        return
    bad = ~(points.abs() < LARGEST_COORDINATE).all(-1)
    if lengths is not None:
        bad &= torch.arange(points.shape[1]) < lengths[:, None]
    if bool(bad.any()):
        cloud = int(bad.any(-1).nonzero()[0])
        raise ValueError(f'{int(bad[cloud].sum())} {name} of cloud {cloud} are NaN, infinite or beyond '
                         f'{LARGEST_COORDINATE:g}; drop them, for instance with GaussianCloud.clean()')


def resolve_start(
    points: Tensor,   # (B, N, 3)
    lengths: Tensor,  # (B,)
    start: PointStart,
    rule: str,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the first pick of each cloud, (B,), and the mask of points never picked later, (B, N) bool or None."""
    check_start(start, rule)
    skip = None
    if rule == 'pointnet2':
        x, y, z = points.unbind(-1)
        # The original kernel compares a float with a double constant.
        skip = (x * x + y * y + z * z).double() <= POINTNET2_MIN_SQUARED_NORM
    return _first_picks(points, lengths, start, generator), skip


def _first_picks(points: Tensor, lengths: Tensor, start: PointStart, generator: torch.Generator | None) -> Tensor:
    if isinstance(start, str):
        if start == 'farthest':
            return torch.stack([_farthest_from_centroid(cloud[:n]) for cloud, n in zip(points, lengths.tolist())])
        device = generator.device if generator is not None else 'cpu'
        draws = torch.rand(len(points), generator=generator, dtype=torch.float64, device=device)
        return (draws.to(points.device) * lengths).long().clamp(max=lengths - 1)
    starts = torch.as_tensor(start, device=points.device)
    if starts.is_floating_point() or starts.shape not in ((), lengths.shape):
        raise ValueError(f'start is {starts.dtype} of shape {tuple(starts.shape)}, expected an integer or '
                         f'{len(lengths)} of them')
    starts = starts.to(torch.int64).expand(lengths.shape)
    if points.device.type == 'cpu':
        bad = (starts < 0) | (starts >= lengths)
        if bool(bad.any()):
            cloud = int(bad.nonzero()[0])
            raise ValueError(f'start={int(starts[cloud])}: cloud {cloud} has the indices 0..{int(lengths[cloud]) - 1}')
    return starts


def _farthest_from_centroid(cloud: Tensor) -> Tensor:
    # Padding is excluded, so that the sum of a cloud is the same in every batch. The mean is rounded to float32, so
    # that the last bit of the sum does not decide between points at equal distance.
    offset = cloud - cloud.double().mean(0).float()
    dx, dy, dz = offset.unbind(-1)
    return ((dx * dx + dy * dy) + dz * dz).argmax()
