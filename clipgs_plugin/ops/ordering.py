"""Orders of points: along space-filling curves, and by content."""
from __future__ import annotations

import torch
from torch import Tensor

from clipgs_plugin.ops.detached import detached

CURVES = ('hilbert', 'z', 'xyz')
MAX_BITS = 20


def order_keys(points: Tensor, curve: str = 'hilbert', bits: int = 10) -> Tensor:
    """Return keys whose ascending order visits points along a space-filling curve.

    Points are quantised to ``2**bits`` cells per axis of their own bounding box, so the order does not depend on scale
    or position. Points of one cell have equal keys; :func:`curve_order` keeps their order.

    Args:
        points: Positions, (..., K, 3), any unit, finite.
        curve: ``'hilbert'``, ``'z'`` (Morton) or ``'xyz'`` (lexicographic).
        bits: Cells per axis as a power of two, 1 to 20.

    Returns:
        Integer keys, (..., K), int64, below ``2**(3 * bits)``.

    Raises:
        ValueError: The curve is unknown, or a number or shape is out of range.

    Source: Skilling, "Programming the Hilbert curve", 2004.
    """
    _check_curve(curve, bits)
    if points.ndim < 2 or points.shape[-1] != 3:
        raise ValueError(f'points have shape {tuple(points.shape)}, expected (..., K, 3)')
    return _keys(_cells(points.detach(), bits), curve, bits)


def cell_keys(cells: Tensor, curve: str = 'hilbert', bits: int = 10) -> Tensor:
    """Return the keys of :func:`order_keys` for given cells.

    The keys of ``'hilbert'`` and ``'z'`` are paths in an octree: a key without its last 3 bits is the key of the cell
    of twice the edge, at one bit less.

    Args:
        cells: Cells along x, y and z, (..., 3), integers from 0 to ``2**bits - 1``.
        curve: ``'hilbert'``, ``'z'`` or ``'xyz'``.
        bits: Cells per axis as a power of two, 1 to 20.

    Returns:
        Integer keys, (...), int64, below ``2**(3 * bits)``; different cells have different keys.

    Raises:
        ValueError: The curve is unknown, or a number or shape is out of range.
    """
    _check_curve(curve, bits)
    if cells.shape[-1] != 3 or cells.is_floating_point():
        raise ValueError(f'cells are {cells.dtype} of shape {tuple(cells.shape)}, expected integers (..., 3)')
    return _keys(list(cells.int().unbind(-1)), curve, bits)


@detached
def curve_order(points: Tensor, curve: str = 'hilbert', bits: int = 10) -> Tensor:
    """Return the permutation, (..., K) int64, that visits points along a curve.

    Points of one cell keep their order. Arguments are those of :func:`order_keys`.
    """
    keys, count = order_keys(points, curve, bits), points.shape[-2]
    if keys.device.type != 'cpu' or count << 3 * bits > torch.iinfo(torch.int64).max:
        return keys.argsort(dim=-1, stable=True)
    # Unique numbers need no stable sort, and numpy sorts numbers several times as fast.
    packed = (keys * count + torch.arange(count)).numpy()
    packed.sort(axis=-1)
    return torch.from_numpy(packed % count)


@detached
def canonical_order(columns: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return permutations that sort each cloud by the first column, ties by the second, and so on.

    Operations that break ties by index then break them by content, for any order of the rows in a file. Rows equal in
    every column keep their order.

    Args:
        columns: Values, (B, N, C), finite; usually positions first.
        lengths: Number of rows of each cloud, (B,), each 1..N; padding stays last. None means N.

    Returns:
        (B, N), int64.

    Raises:
        ValueError: The shape of ``columns`` is wrong.
    """
    if columns.ndim != 3 or columns.shape[-1] < 1:
        raise ValueError(f'columns have shape {tuple(columns.shape)}, expected (B, N, C) with C at least 1')
    b, n, _ = columns.shape
    if lengths is None:
        lengths = torch.full((b,), n, device=columns.device)
    index = torch.arange(n, device=columns.device)
    first = columns[..., 0].masked_fill(index >= lengths.to(columns.device)[:, None], torch.inf)
    first, order = first.sort(dim=-1, stable=True)

    # Runs of equal rows, numbered through the batch. The next column sorts runs of more than one row.
    starts = torch.ones(b, n, dtype=torch.bool, device=columns.device)
    starts[:, 1:] = (first[:, 1:] != first[:, :-1]) | (first[:, 1:] == torch.inf)
    run = starts.flatten().cumsum(0)
    flat_order = (order + n * torch.arange(b, device=columns.device)[:, None]).flatten()
    rows = columns.flatten(0, 1)
    slots = torch.arange(b * n, device=columns.device)
    for column in range(1, columns.shape[-1]):
        tied = torch.zeros_like(run, dtype=torch.bool)
        tied[1:] = run[1:] == run[:-1]
        tied[:-1] |= tied[1:].clone()
        if not bool(tied.any()):
            break
        slots, run = slots[tied], run[tied]
        members = flat_order[slots]
        values = rows[members, column]
        if bool(((values[1:] < values[:-1]) & (run[1:] == run[:-1])).any()):
            # Sorting by (run, value) keeps each run in its slots.
            by_value = values.argsort(stable=True)
            by_run = by_value[run[by_value].argsort(stable=True)]
            flat_order[slots] = members[by_run]
            values = values[by_run]
        starts = torch.ones_like(run, dtype=torch.bool)
        starts[1:] = (run[1:] != run[:-1]) | (values[1:] != values[:-1])
        run = starts.cumsum(0)
    return flat_order.view(b, n) % n


def _check_curve(curve: str, bits: int) -> None:
    if curve not in CURVES:
        raise ValueError(f'curve={curve!r}: expected one of {CURVES}')
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f'bits={bits}: expected 1 to {MAX_BITS}')


def _keys(axes: list[Tensor], curve: str, bits: int) -> Tensor:
    """Return the keys (...) of cells, given as three numbers (...) int32."""
    if curve == 'xyz':
        x, y, z = (axis.long() for axis in axes)
        return (x << 2 * bits) | (y << bits) | z
    return _interleave(_hilbert_transpose(axes, bits) if curve == 'hilbert' else axes)


def _cells(points: Tensor, bits: int) -> list[Tensor]:
    """Return the cell of each point along x, y and z of the bounding box, (..., K) int32; 0 along a flat axis."""
    cells = []
    for values in points.to(torch.float64 if bits > 16 else torch.float32).unbind(-1):
        values = values.contiguous()
        low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
        extent = torch.where(high > low, high - low, 1)
        cells.append(((values - low) / extent * 2 ** bits).int().clamp_(max=2 ** bits - 1))
    return cells


def _interleave(axes: list[Tensor]) -> Tensor:
    """Interleave the bits of three numbers, first number first: x_top y_top z_top ... x_0 y_0 z_0."""
    x, y, z = (_space_bits(axis.long()) for axis in axes)
    return x << 2 | y << 1 | z


def _space_bits(x: Tensor) -> Tensor:
    """Insert two zeros between the lowest 21 bits, by moving halves apart."""
    for shift, mask in ((32, 0x001F00000000FFFF), (16, 0x001F0000FF0000FF), (8, 0x100F00F00F00F00F),
                        (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249)):
        x = (x | x << shift) & mask
    return x


def _hilbert_transpose(axes: list[Tensor], bits: int) -> list[Tensor]:
    """Map coordinates to the Hilbert index, distributed over the bits of three numbers (Skilling, AxesToTranspose)."""
    x, y, z = axes
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        # If an axis has the bit, invert the lower bits of the first axis; otherwise exchange the lower bits of both.
        x = x ^ (x >> bit & 1) * low
        x, y = _invert_or_exchange(x, y, bit, low)
        x, z = _invert_or_exchange(x, z, bit, low)
    # Gray code.
    y = y ^ x
    z = z ^ y
    flips = torch.zeros_like(z)
    for bit in range(1, bits):
        flips ^= (z >> bit & 1) * ((1 << bit) - 1)
    return [x ^ flips, y ^ flips, z ^ flips]


def _invert_or_exchange(first: Tensor, axis: Tensor, bit: int, low: int) -> tuple[Tensor, Tensor]:
    invert = (axis >> bit & 1) * low
    exchange = (first ^ axis) & (invert ^ low)
    return first ^ (invert | exchange), axis ^ exchange
