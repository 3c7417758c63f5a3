"""Farthest point sampling, and the grouping of a cloud into patches that is built on it."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops.backends import load_backend

PointStart = int | str | Tensor
STARTS = ('farthest', 'random')
RULES = ('exact', 'pointnet2')
POINTNET2_MIN_SQUARED_NORM = 1e-3
LARGEST_COORDINATE = 1e18  # of which the square is still a float32


@torch.no_grad()
def farthest_point_sample(
    points: Tensor,
    num_samples: int,
    lengths: Tensor | None = None,
    start: PointStart = 0,
    backend: str = 'auto',
    rule: str = 'exact',
    generator: torch.Generator | None = None,
) -> Tensor:
    """Indices of points that each lie farthest from those picked before.

    Every backend gives the same indices: squared distances are float32, ``(dx * dx + dy * dy) + dz * dz``, and the
    lowest index wins a tie. A cloud of ``n < num_samples`` points gives its ``n`` picks over and over in the same
    order, so ``arange(num_samples) < lengths[:, None]`` masks the repeats.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        num_samples: G, at least 1.
        lengths: Points of each cloud, (B,), each 1..N; the rest is padding. All N where None.
        start: The first pick: an index for all clouds, one index per cloud (B,), ``'farthest'`` (the point farthest
            from the centroid, which is summed in float64) or ``'random'`` (uniform, from ``generator``).
        backend: ``'auto'`` or one of ``available_backends('fps')``.
        rule: ``'exact'``, or ``'pointnet2'`` for weights trained with that library's kernel, which starts at 0 and
            picks no other point of squared norm up to 1e-3.
        generator: Source of ``start='random'``; torch's default generator where None.

    Returns:
        (B, G), int64.

    Raises:
        ValueError: A shape, length or start does not fit, a name is unknown, or a point is NaN or infinite.

    Source: Eldar et al., "The farthest point strategy for progressive image sampling", 1997; rule ``'pointnet2'``
    from the kernels of Qi et al., "PointNet++", 2017.
    """
    points, lengths = check_points(points, lengths)
    check_count('num_samples', num_samples)
    starts, skip = resolve_start(points, lengths, start, rule, generator)
    return load_backend('fps', backend, points.device).fps(points, lengths, starts, skip, num_samples)


@torch.no_grad()
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
    """Patches: centres by :func:`farthest_point_sample` and the points nearest to each as :func:`knn` finds them.

    The same indices as the two calls one after the other, but the CPU backend builds its spatial index once.

    Args:
        points: Positions, (B, N, 3), any unit, finite; computed in float32.
        num_groups: G, at least 1.
        group_size: K, at least 1.
        lengths, start, rule, generator: As :func:`farthest_point_sample` takes them.
        backend: ``'auto'`` or a name in both ``available_backends('fps')`` and ``available_backends('knn')``.

    Returns:
        Centres, (B, G), and their neighbours, nearest first, (B, G, K), both int64. Where a cloud has fewer points
        than G or K, both repeat cyclically.
    """
    points, lengths = check_points(points, lengths)
    check_count('num_groups', num_groups)
    check_count('group_size', group_size)
    starts, skip = resolve_start(points, lengths, start, rule, generator)
    return load_backend('fps', backend, points.device).group(points, lengths, starts, skip, num_groups, group_size)


def check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f'{name}={value}: expected at least 1')


def check_start(start: PointStart, rule: str) -> None:
    if isinstance(start, str) and start not in STARTS:
        raise ValueError(f"start={start!r}: expected an index, 'farthest' or 'random'")
    if rule not in RULES:
        raise ValueError(f'rule={rule!r}: expected one of {RULES}')
    if rule == 'pointnet2' and not (isinstance(start, int) and start == 0):
        raise ValueError(f"start={start!r}: rule='pointnet2' always starts at 0")


def check_points(points: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Float32 points and int64 lengths on the points' device, checked."""
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
    if points.device.type == 'cpu':  # elsewhere the checks would make the host wait for the device
        bad = (lengths < 1) | (lengths > n)
        if bool(bad.any()):
            raise ValueError(f'cloud {int(bad.nonzero()[0])} has length {int(lengths[bad][0])}, expected 1..{n}')
        check_finite('points', points, lengths)
    return points, lengths


def check_finite(name: str, points: Tensor, lengths: Tensor | None = None) -> None:
    """Refuse points whose squared distances are not finite floats."""
    # In numpy: a parallel loop of torch would leave its threads spinning, on the cores that the kernels need next.
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
    """The first pick of each cloud, (B,), and the points that may not be picked after it, (B, N) bool or None."""
    check_start(start, rule)
    skip = None
    if rule == 'pointnet2':
        x, y, z = points.unbind(-1)
        # The kernel compares a float with a double constant.
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
    # Without its padding, so that a cloud's sum is the same in every batch; rounded to float32, so that neither
    # does the last bit of the sum decide between points that are equally far.
    offset = cloud - cloud.double().mean(0).float()
    dx, dy, dz = offset.unbind(-1)
    return ((dx * dx + dy * dy) + dz * dz).argmax()
