"""Point operations on the CPU in numba, with buckets of neighbouring points.

A cloud is sorted along a Morton curve and cut into buckets of consecutive points, each with its bounding box. A bucket
is skipped if its box is too far away to change a result. Rounding is monotonic, so the computed distance to a box,
with the same operations in the same order, never exceeds the computed distance to a point in it. Skipping is therefore
exact, ties included.

Kernels are serial and release the interpreter's lock. Python threads process the clouds of a batch, up to torch's
number of threads. Threads live for one call and wait passively, so they survive a fork. A data loader's worker, which
torch limits to one thread, starts none.
"""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.ops.kernels.jit import kernel

BUCKET = 64    # points
CELL_BITS = 5  # bits of the Morton curve per axis


@kernel()
def _space_bits(value):
    """Insert two zeros between the bits of a number of CELL_BITS bits."""
    spaced = 0
    for bit in range(CELL_BITS):
        spaced |= (value >> bit & 1) << 3 * bit
    return spaced


@kernel()
def _cell(position):
    return int(min(max(position, 0.0), (1 << CELL_BITS) - 1.0))


@kernel()
def _sort_into_buckets(points):
    """Sort points (n, 3) by Morton code: coordinates (3, n), indices (n,), and bounding boxes of buckets (6, m)."""
    n = len(points)
    # Cells cover the bulk of the points, within 2.5 mean deviations. A bounding box would follow outliers; here they
    # share the outermost cells.
    mean, deviation = np.zeros(3), np.zeros(3)
    for i in range(n):
        for axis in range(3):
            mean[axis] += points[i, axis] / n
    for i in range(n):
        for axis in range(3):
            deviation[axis] += abs(points[i, axis] - mean[axis]) / n
    reach = 2.5 * deviation.max()
    scale = (1 << CELL_BITS) / (2 * reach) if reach > 0 else 0.0
    low = mean - reach

    spaced = np.array([_space_bits(value) for value in range(1 << CELL_BITS)])
    codes = np.empty(n, np.int32)
    place = np.zeros((1 << 3 * CELL_BITS) + 1, np.int32)
    for i in range(n):
        code = 0
        for axis in range(3):
            code |= spaced[_cell((points[i, axis] - low[axis]) * scale)] << axis
        codes[i] = code
        place[code + 1] += 1
    for code in range(1, len(place)):
        place[code] += place[code - 1]

    sorted_points = np.empty((3, n), np.float32)
    order = np.empty(n, np.int32)
    for i in range(n):
        slot = place[codes[i]]
        place[codes[i]] += 1
        order[slot] = i
        for axis in range(3):
            sorted_points[axis, slot] = points[i, axis]

    m = (n + BUCKET - 1) // BUCKET
    boxes = np.empty((6, m), np.float32)
    for bucket in range(m):
        for axis in range(3):
            values = sorted_points[axis, bucket * BUCKET:(bucket + 1) * BUCKET]
            boxes[axis, bucket] = values.min()
            boxes[3 + axis, bucket] = values.max()
    return sorted_points, order, boxes


@kernel()
def _distances_to_boxes(boxes, point, out):
    x, y, z = point
    zero = np.float32(0)
    for bucket in range(len(out)):
        dx = max(max(boxes[0, bucket] - x, x - boxes[3, bucket]), zero)
        dy = max(max(boxes[1, bucket] - y, y - boxes[4, bucket]), zero)
        dz = max(max(boxes[2, bucket] - z, z - boxes[5, bucket]), zero)
        out[bucket] = (dx * dx + dy * dy) + dz * dz


@kernel()
def _distances(xs, ys, zs, point, out):
    x, y, z = point
    for i in range(len(xs)):
        dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
        out[i] = (dx * dx + dy * dy) + dz * dz


@kernel()
def _lower(xs, ys, zs, point, distance):
    """Take the minimum of each distance and the distance to a new pick."""
    x, y, z = point
    for i in range(len(distance)):
        dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
        new = (dx * dx + dy * dy) + dz * dz
        distance[i] = new if new < distance[i] else distance[i]


# Bits of non-negative floats, read as integers, have the order of the floats, and bits of negative floats are lower.
# Compilers use vector instructions for extrema of integers. An index in the lower half also ranks equal distances.

@kernel()
def _largest(bits):
    largest = bits[0]
    for i in range(len(bits)):
        largest = max(largest, bits[i])
    return largest


@kernel()
def _smallest(bits):
    smallest = bits[0]
    for i in range(len(bits)):
        smallest = min(smallest, bits[i])
    return smallest


@kernel()
def _pick(points, start, skip, sorted_points, order, boxes, picks):
    n, m = len(points), boxes.shape[1]
    xs, ys, zs = sorted_points[0], sorted_points[1], sorted_points[2]
    distance = np.full(n, np.inf, np.float32)
    if len(skip):
        for i in range(n):
            if skip[order[i]]:
                distance[i] = -1
    bits = distance.view(np.int32)
    nearest = np.empty(m, np.float32)   # lower bound of the distance from the new pick to each bucket
    farthest = np.empty(m, np.float32)  # the largest distance in each bucket
    farthest_bits = farthest.view(np.int32)
    for bucket in range(m):
        farthest_bits[bucket] = _largest(bits[bucket * BUCKET:(bucket + 1) * BUCKET])
    pick = start
    for sample in range(len(picks)):
        if sample >= n:
            picks[sample] = picks[sample - n]
            continue
        picks[sample] = pick
        point = points[pick, 0], points[pick, 1], points[pick, 2]
        _distances_to_boxes(boxes, point, nearest)
        for bucket in range(m):
            if nearest[bucket] < farthest[bucket]:
                span = slice(bucket * BUCKET, min((bucket + 1) * BUCKET, n))
                _lower(xs[span], ys[span], zs[span], point, distance[span])
                farthest_bits[bucket] = _largest(bits[span])
        largest = _largest(farthest_bits)
        pick = n
        for bucket in range(m):
            if farthest_bits[bucket] == largest:
                for i in range(bucket * BUCKET, min((bucket + 1) * BUCKET, n)):
                    if bits[i] == largest and order[i] < pick:
                        pick = order[i]


@kernel()
def _search(queries, sorted_points, order, boxes, neighbors, squared):
    """Find the nearest points of each query, visiting buckets by distance until the rest is too far away."""
    n, m = len(order), boxes.shape[1]
    k = min(neighbors.shape[1], n)
    xs, ys, zs = sorted_points[0], sorted_points[1], sorted_points[2]
    nearest = np.empty(m, np.float32)
    nearest_bits = nearest.view(np.int32)
    block = np.empty(BUCKET, np.float32)
    bits = block.view(np.int32)
    visited = np.int32(2 ** 31 - 1)  # above the bits of any distance
    ranks = np.empty(k, np.int64)    # of the nearest points so far, ascending
    for query in range(len(queries)):
        point = queries[query, 0], queries[query, 1], queries[query, 2]
        _distances_to_boxes(boxes, point, nearest)
        limit = visited
        ranks[:] = np.int64(visited) << 32
        for _ in range(m):
            closest = _smallest(nearest_bits)
            if closest > limit:
                break
            bucket = 0
            while nearest_bits[bucket] != closest:
                bucket += 1
            nearest_bits[bucket] = visited
            span = slice(bucket * BUCKET, min((bucket + 1) * BUCKET, n))
            _distances(xs[span], ys[span], zs[span], point, block)
            for i in range(span.stop - span.start):
                if bits[i] > limit:
                    continue
                rank = np.int64(bits[i]) << 32 | order[span.start + i]
                if rank < ranks[k - 1]:
                    slot = k - 1
                    while slot > 0 and ranks[slot - 1] > rank:
                        ranks[slot] = ranks[slot - 1]
                        slot -= 1
                    ranks[slot] = rank
                    limit = np.int32(ranks[k - 1] >> 32)
        for slot in range(neighbors.shape[1]):
            rank = ranks[slot % k]
            neighbors[query, slot] = rank & 0xFFFFFFFF
            squared[query, slot] = np.int32(rank >> 32).view(np.float32)


@kernel('void(float32[:, ::1], int64, boolean[::1], int64[::1])')
def _fps(points, start, skip, picks):
    sorted_points, order, boxes = _sort_into_buckets(points)
    _pick(points, start, skip, sorted_points, order, boxes, picks)


@kernel('void(float32[:, ::1], float32[:, ::1], int64[:, ::1], float32[:, ::1])')
def _knn(points, queries, neighbors, squared):
    sorted_points, order, boxes = _sort_into_buckets(points)
    _search(queries, sorted_points, order, boxes, neighbors, squared)


@kernel('void(float32[:, ::1], int64, boolean[::1], int64[::1], int64[:, ::1])')
def _group(points, start, skip, picks, neighbors):
    sorted_points, order, boxes = _sort_into_buckets(points)
    _pick(points, start, skip, sorted_points, order, boxes, picks)
    squared = np.empty(neighbors.shape, np.float32)
    _search(points[picks], sorted_points, order, boxes, neighbors, squared)


@torch.compiler.disable  # it would trace the kernels of a single thread
def _for_each_cloud(run: Callable[[int], None], count: int) -> None:
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        for cloud in range(count):
            run(cloud)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run, range(count)):  # reading the results re-raises errors of kernels
            pass


def _clouds(points: Tensor, lengths: Tensor) -> list[np.ndarray]:
    return [cloud[:n] for cloud, n in zip(points.numpy(), lengths.tolist())]


def _skips(skip: Tensor | None, lengths: Tensor) -> list[np.ndarray]:
    return [np.empty(0, np.bool_)] * len(lengths) if skip is None else _clouds(skip, lengths)


def fps(points: Tensor, lengths: Tensor, starts: Tensor, skip: Tensor | None, num_samples: int) -> Tensor:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.fps`."""
    centers = torch.empty(len(points), num_samples, dtype=torch.int64)
    clouds, skips, first, out = _clouds(points, lengths), _skips(skip, lengths), starts.tolist(), centers.numpy()
    _for_each_cloud(lambda i: _fps(clouds[i], first[i], skips[i], out[i]), len(points))
    return centers


def knn(points: Tensor, queries: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.knn`."""
    neighbors = torch.empty(*queries.shape[:2], k, dtype=torch.int64)
    squared = torch.empty(neighbors.shape)
    clouds, targets, out, out_squared = _clouds(points, lengths), queries.numpy(), neighbors.numpy(), squared.numpy()
    _for_each_cloud(lambda i: _knn(clouds[i], targets[i], out[i], out_squared[i]), len(points))
    return neighbors, squared


def group(
    points: Tensor, lengths: Tensor, starts: Tensor, skip: Tensor | None, num_groups: int, group_size: int,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`clipgs_plugin.ops.kernels.points_reference.group` with one set of buckets."""
    centers = torch.empty(len(points), num_groups, dtype=torch.int64)
    neighbors = torch.empty(len(points), num_groups, group_size, dtype=torch.int64)
    clouds, skips, first = _clouds(points, lengths), _skips(skip, lengths), starts.tolist()
    out, out_neighbors = centers.numpy(), neighbors.numpy()
    _for_each_cloud(lambda i: _group(clouds[i], first[i], skips[i], out[i], out_neighbors[i]), len(points))
    return centers, neighbors
