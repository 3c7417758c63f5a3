"""Rotations against closed forms and one another."""
import pytest
import torch

from clipgs_plugin import ops

AXES = ['x', 'y', 'z', '-x', '-y', '-z']


def unit(axis: str) -> torch.Tensor:
    vector = torch.zeros(3, dtype=torch.float64)
    vector['xyz'.index(axis[-1])] = -1 if axis[0] == '-' else 1
    return vector


@pytest.mark.parametrize('target', AXES)
@pytest.mark.parametrize('source', AXES)
def test_axis_change_is_the_shortest_proper_rotation_of_integers(source, target):
    matrix = ops.axis_change(source, target)
    assert torch.equal(matrix @ unit(source), unit(target))
    assert torch.equal(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix) == 1
    assert matrix.trace() == 1 + 2 * (unit(source) @ unit(target))  # 1 + 2 cos(angle)


def test_z_up_to_y_up_is_the_usual_rotation():
    assert torch.equal(ops.axis_change('z') @ torch.tensor([1.0, 2, 3]).double(), torch.tensor([1.0, 3, -2]).double())


@pytest.mark.parametrize('axis', ['up', '+x', 'Z', ''])
def test_unknown_axis_is_named(axis):
    with pytest.raises(ValueError, match=f"axis '\\{axis}'" if axis == '+x' else f"axis '{axis}'"):
        ops.axis_change(axis, 'y')


@pytest.mark.parametrize('length', [1e-44, 1e-30, 1e-12, 1e12, 1e30])
def test_matrix_does_not_depend_on_the_length_of_the_quaternion(length):
    # A quarter turn about x: y becomes z, and z becomes -y.
    quats = torch.tensor([1.0, 1.0, 0.0, 0.0]) * length
    quats.requires_grad_()
    matrix = ops.quaternion_to_matrix(quats)
    assert torch.allclose(matrix, torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), atol=1e-6)
    if length > 1e-30:  # otherwise the gradient, of size 1 / length, overflows
        # A further turn about x by d takes z to -sin(d) y, and d is twice the change of the component across q.
        gradient, = torch.autograd.grad(matrix[1, 1], quats)
        assert torch.allclose(gradient * length, torch.tensor([1.0, -1.0, 0, 0]), atol=1e-5)


def test_product_of_quaternions_is_the_product_of_matrices():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 30, 4, generator=g, dtype=torch.float64)
    product = ops.quaternion_multiply(a, b)
    assert torch.allclose(ops.quaternion_to_matrix(product), ops.quaternion_to_matrix(a) @ ops.quaternion_to_matrix(b))
    assert torch.allclose(product.norm(dim=-1), a.norm(dim=-1) * b.norm(dim=-1))


def test_matrix_and_quaternion_invert_each_other():
    quats = torch.nn.functional.normalize(torch.randn(500, 4, dtype=torch.float64), dim=-1)
    half_turns = torch.eye(4, dtype=torch.float64)
    quats = torch.cat([quats, half_turns])
    matrices = ops.quaternion_to_matrix(quats)
    back = ops.matrix_to_quaternion(matrices)
    assert torch.allclose(ops.quaternion_to_matrix(back), matrices, atol=1e-12)
    assert (back[:, 0] >= 0).all()
