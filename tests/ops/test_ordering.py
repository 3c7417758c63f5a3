"""Curves against their definitions on a full grid, and order by content against numpy's lexsort."""
import numpy as np
import pytest
import torch

from clipgs_plugin import ops
from clipgs_plugin.ops.ordering import CURVES


def grid(bits: int) -> torch.Tensor:
    """Return all cells of a cube, shuffled, (8 ** bits, 3)."""
    cells = torch.cartesian_prod(*[torch.arange(2 ** bits)] * 3)
    return cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(bits))]


def morton(x: int, y: int, z: int, bits: int) -> int:
    return int(''.join(a + b + c for a, b, c in zip(*(format(v, f'0{bits}b') for v in (x, y, z)))), 2)


@pytest.mark.parametrize('curve', CURVES)
@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_a_curve_visits_each_cell_once(curve, bits):
    keys = ops.order_keys(grid(bits).float(), curve, bits)
    assert keys.dtype == torch.int64
    assert torch.equal(keys.sort().values, torch.arange(8 ** bits))


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_hilbert_steps_to_a_neighbouring_cell(bits):
    cells = grid(bits)
    path = cells[ops.curve_order(cells.float(), 'hilbert', bits)]
    assert (path.diff(dim=0).abs().sum(-1) == 1).all()


def test_hilbert_is_nested():
    # The first three bits of a key are the octant at every depth, so each coarse cell is visited without leaving it.
    cells = grid(4)
    path = cells[ops.curve_order(cells.float(), 'hilbert', 4)]
    blocks = (path // 2).unique_consecutive(dim=0)
    assert len(blocks) == 8 ** 3


@pytest.mark.parametrize('curve', CURVES)
def test_keys_of_cells_are_those_of_their_points(curve):
    cells = grid(4)
    keys = ops.cell_keys(cells, curve, 4)
    assert torch.equal(keys, ops.order_keys(cells.float(), curve, 4))
    for depth in (1, 2, 3) if curve != 'xyz' else ():
        assert torch.equal(keys >> 3 * (4 - depth), ops.cell_keys(cells >> 4 - depth, curve, depth))


def test_cells_of_wrong_kind_are_named():
    with pytest.raises(ValueError, match=r'cells are torch.float32 of shape \(4, 3\), expected integers'):
        ops.cell_keys(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r'shape \(4, 2\)'):
        ops.cell_keys(torch.zeros(4, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match="curve='peano'"):
        ops.cell_keys(torch.zeros(4, 3, dtype=torch.int32), 'peano')


def test_z_interleaves_bits():
    cells = grid(3)
    assert ops.order_keys(cells.float(), 'z', 3).tolist() == [morton(*cell, 3) for cell in cells.tolist()]


@pytest.mark.parametrize('bits', [10, 20])
def test_z_interleaves_many_bits(bits):
    g = torch.Generator().manual_seed(0)
    cells = torch.cat([torch.randint(2 ** bits, (200, 3), generator=g), torch.tensor([[0] * 3, [2 ** bits - 1] * 3])])
    centers = (cells.double() + 0.5) / 2 ** bits
    centers[-2:] = torch.tensor([[0.0] * 3, [1.0] * 3])  # corners of the box
    assert ops.order_keys(centers, 'z', bits).tolist() == [morton(*cell, bits) for cell in cells.tolist()]


def test_xyz_is_lexicographic():
    cells = grid(3)
    order = ops.curve_order(cells.float(), 'xyz', 3)
    assert cells[order].tolist() == sorted(cells.tolist())


@pytest.mark.parametrize('curve', CURVES)
def test_each_cloud_is_quantised_to_its_own_box(curve):
    g = torch.Generator().manual_seed(1)
    points = torch.rand(4, 5, 32, 3, generator=g)
    keys = ops.order_keys(points, curve)
    assert keys.shape == (4, 5, 32) and keys.min() >= 0 and keys.max() < 2 ** 30
    assert torch.equal(keys[2, 3], ops.order_keys(points[2, 3], curve))
    moved = points * torch.tensor([0.25, 8.0, 2.0]) + torch.tensor([4.0, -2.0, 0.0])
    order, moved_order = ops.curve_order(points, curve, 6), ops.curve_order(moved.double(), curve, 6)
    assert (order == moved_order).float().mean() > 0.99  # rounding moves some points across a cell border


@pytest.mark.parametrize('curve', CURVES)
def test_flat_and_empty_boxes_are_accepted(curve):
    plane = grid(3).float()
    plane[:, 1] = 0.7
    keys = ops.order_keys(plane, curve, 3)
    assert len(keys.unique()) == 64
    assert not ops.order_keys(torch.full((2, 9, 3), 5.0), curve).any()
    assert ops.curve_order(torch.zeros(1, 9, 3), curve).tolist() == [list(range(9))]  # equal keys keep their order
    assert not ops.order_keys(torch.rand(7, 1, 3), curve).any()


def test_order_keys_errors():
    with pytest.raises(ValueError, match="curve='peano'"):
        ops.order_keys(torch.rand(4, 3), 'peano')
    for bits in (0, 21):
        with pytest.raises(ValueError, match=f'bits={bits}'):
            ops.order_keys(torch.rand(4, 3), bits=bits)
    with pytest.raises(ValueError, match=r'shape \(4, 2\)'):
        ops.order_keys(torch.rand(4, 2))


def columns_of(kind: str, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    columns = torch.randn(3, 400, 6, generator=g)
    if kind == 'quantised':
        columns = (columns * 2).round()
    elif kind == 'plane':
        columns[..., 0] = 0.5
    elif kind == 'tied to the last':
        columns[..., :5] = torch.randint(2, (3, 400, 1), generator=g).float()
    elif kind == 'duplicates':
        columns = columns[:, torch.randint(50, (400,), generator=g)]
    elif kind == 'signed zeros':
        columns = (columns.clamp(-0.5, 0.5).round() * torch.where(columns > 0, -1, 1))
    return columns


KINDS = ['distinct', 'quantised', 'plane', 'tied to the last', 'duplicates', 'signed zeros']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_canonical_order_is_lexsort_with_padding_last(kind, dtype):
    columns, lengths = columns_of(kind, 0).to(dtype), torch.tensor([400, 1, 233])
    order = ops.canonical_order(columns, lengths)
    assert order.dtype == torch.int64
    for found, rows, n in zip(order, columns.numpy(), lengths.tolist()):
        assert np.array_equal(found[:n], np.lexsort(rows[:n].T[::-1]))
        assert found[n:].tolist() == list(range(n, 400))


@pytest.mark.parametrize('kind', KINDS)
def test_canonical_order_does_not_depend_on_the_input_order(kind):
    columns = columns_of(kind, 1)
    shuffled = columns[:, torch.randperm(400, generator=torch.Generator().manual_seed(2))]
    pick = lambda c: c.gather(1, ops.canonical_order(c)[..., None].expand_as(c))  # noqa: E731
    assert torch.equal(pick(columns), pick(shuffled))


def test_canonical_order_of_one_column():
    columns = torch.tensor([[[2.0], [1.0], [2.0], [0.0]]])
    assert ops.canonical_order(columns).tolist() == [[3, 1, 0, 2]]
    with pytest.raises(ValueError, match=r'\(4, 2\), expected \(B, N, C\)'):
        ops.canonical_order(torch.rand(4, 2))
