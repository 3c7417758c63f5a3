import numpy as np
import pytest
import scipy.special
import torch

from clipgs_plugin import ops


def directions(n: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1)


def orthogonal(seed: int, determinant: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    return q * torch.linalg.det(q).sign() * determinant


@pytest.mark.parametrize('degree', [0, 1, 2, 3])
def test_basis_matches_scipy_with_the_condon_shortley_sign(degree):
    d = directions(50)
    theta, phi = np.arccos(d[:, 2].numpy()), np.arctan2(d[:, 1].numpy(), d[:, 0].numpy())
    expected = []
    for band in range(degree + 1):
        for order in range(-band, band + 1):
            value = scipy.special.sph_harm_y(band, abs(order), theta, phi)
            part = value.imag if order < 0 else value.real
            expected.append(part if order == 0 else np.sqrt(2) * part)
    basis = ops.eval_sh_basis(d, degree)
    assert basis.shape == (50, (degree + 1) ** 2)
    np.testing.assert_allclose(basis.numpy(), np.stack(expected, -1), atol=1e-14)


def test_degree_out_of_range_is_named():
    with pytest.raises(ValueError, match='degree 4'):
        ops.eval_sh_basis(directions(2), 4)


@pytest.mark.parametrize('determinant', [1, -1])
@pytest.mark.parametrize('bands', [1, 4, 9, 16])
def test_colour_along_the_rotated_direction_is_unchanged(bands, determinant):
    matrix = orthogonal(3, determinant)
    sh, d = torch.randn(20, bands, 3, dtype=torch.float64), directions(20, seed=1)
    turned = ops.rotate_sh(sh, matrix)
    assert torch.allclose(ops.eval_sh(turned, d @ matrix.T), ops.eval_sh(sh, d), atol=1e-13)
    assert torch.equal(turned[:, 0], sh[:, 0])
    if bands > 1:
        assert not torch.allclose(turned, sh, atol=1e-2)


def test_point_inversion_flips_odd_bands():
    sh = torch.randn(5, 16, 3, dtype=torch.float64)
    sign = torch.tensor([1.0] + [-1.0] * 3 + [1.0] * 5 + [-1.0] * 7, dtype=torch.float64)
    assert torch.allclose(ops.rotate_sh(sh, -torch.eye(3)), sh * sign[:, None], atol=1e-14)


def test_two_rotations_equal_their_product_and_keep_the_norm():
    a, b = orthogonal(1, 1), orthogonal(2, -1)
    sh = torch.randn(5, 16, 3, dtype=torch.float64)
    assert torch.allclose(ops.rotate_sh(ops.rotate_sh(sh, a), b), ops.rotate_sh(sh, b @ a), atol=1e-13)
    assert torch.allclose(ops.rotate_sh(sh, a)[:, 9:].norm(dim=1), sh[:, 9:].norm(dim=1), atol=1e-13)


@pytest.mark.parametrize('matrix', [2 * torch.eye(3), torch.ones(3, 3).triu(),
                                    torch.eye(2)])
def test_non_orthogonal_matrix_raises(matrix):
    with pytest.raises(ValueError, match='not orthogonal'):
        ops.rotate_sh(torch.zeros(1, 4, 3), matrix)


def test_gradients_rotate_back():
    sh, weight = torch.randn(2, 3, 9, 3, dtype=torch.float64)
    matrix = orthogonal(5, 1)
    gradient, = torch.autograd.grad((weight * ops.rotate_sh(sh.requires_grad_(), matrix)).sum(), sh)
    assert torch.allclose(gradient, ops.rotate_sh(weight, matrix.T), atol=1e-13)
