"""GaussianCloud.transform: covariances, colours and images."""
import pytest
import torch

from clipgs_plugin import ops


def similarity(seed: int, scale: float, determinant: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    return scale * q * torch.linalg.det(q).sign() * determinant


@pytest.mark.parametrize('determinant', [1, -1])
@pytest.mark.parametrize('scale', [1.0, 0.01, 30.0])
def test_means_covariances_and_colours_follow_the_matrix(random_cloud, scale, determinant):
    cloud = random_cloud(50, sh_degree=3, dtype=torch.float64)
    matrix, offset = similarity(1, scale, determinant), torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    moved = cloud.transform(matrix, offset)
    assert torch.allclose(moved.means, cloud.means @ matrix.T + offset, atol=1e-12)
    assert torch.allclose(moved.covariances, matrix @ cloud.covariances @ matrix.T, rtol=1e-9, atol=1e-12 * scale ** 2)
    assert torch.allclose(torch.linalg.det(moved.rotations), torch.ones(50, dtype=torch.float64))
    assert torch.equal(moved.opacity_logits, cloud.opacity_logits)
    seen = torch.nn.functional.normalize(cloud.means - torch.tensor([3.0, 1, 2]), dim=-1)
    assert torch.allclose(ops.eval_sh(moved.sh, seen @ matrix.T / scale), ops.eval_sh(cloud.sh, seen), atol=1e-12)


def test_inverse_restores_the_cloud(random_cloud):
    cloud = random_cloud(20, sh_degree=2, dtype=torch.float64)
    matrix = similarity(4, 3.0, -1)
    back = cloud.transform(matrix).transform(torch.linalg.inv(matrix))
    for name, value in cloud.fields():
        if name != 'quats':
            assert torch.allclose(getattr(back, name), value, atol=1e-12), name
    assert torch.allclose(back.rotations, cloud.rotations, atol=1e-12)


@pytest.mark.parametrize('matrix', [torch.diag(torch.tensor([1.0, 2.0, 1.0])), torch.zeros(3, 3), torch.eye(4),
                                    torch.tensor([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]), torch.full((3, 3), torch.nan)])
def test_matrices_other_than_similarities_raise(random_cloud, matrix):
    with pytest.raises(ValueError, match='not a similarity'):
        random_cloud(3).transform(matrix)


def camera(eye) -> torch.Tensor:
    return ops.look_at(torch.tensor(eye, dtype=torch.float64), up='y')


def image(cloud, viewmat):
    size = 40
    intrinsics = torch.tensor([[45.0, 0, size / 2], [0, 45.0, size / 2], [0, 0, 1]], dtype=torch.float64)
    return ops.render(cloud, viewmat[None], intrinsics[None], size, size, background=(0.2, 0.3, 0.4), near=1e-6,
                      backend='reference')[0][0]


@pytest.mark.parametrize('determinant', [1, -1])
def test_image_is_unchanged_if_cloud_and_camera_move_together(random_cloud, determinant):
    """A camera cannot be reflected, so under a reflection the moved camera sees the mirror image."""
    cloud = random_cloud(60, sh_degree=3, dtype=torch.float64)
    scale, offset = 2.5, torch.tensor([4.0, -1.0, 0.5], dtype=torch.float64)
    matrix = similarity(7, scale, determinant)
    before = camera([1.0, 1.5, 3.0])
    mirror = torch.diag(torch.tensor([float(determinant), 1, 1], dtype=torch.float64))
    after = torch.eye(4, dtype=torch.float64)
    after[:3, :3] = mirror @ before[:3, :3] @ matrix.T / scale
    after[:3, 3] = scale * mirror @ before[:3, 3] - after[:3, :3] @ offset
    expected, found = image(cloud, before), image(cloud.transform(matrix, offset), after)
    assert expected.std() > 0.05
    assert torch.allclose(found if determinant > 0 else found.flip(1), expected, atol=1e-9)
    assert not torch.allclose(image(cloud.transform(matrix, offset).replace(sh=cloud.sh), after), found, atol=1e-2)
