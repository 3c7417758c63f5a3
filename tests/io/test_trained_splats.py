"""Checkpoints of gsplat and Splatfacto hold the raw values of a .ply, and run no code."""
import inspect
import os

import pytest
import torch
from gsplat_stand_in import stand_in

from clipgs_plugin import GaussianCloud, ops, read_gaussians


def gsplat_checkpoint(cloud: GaussianCloud) -> dict:
    """Return what simple_trainer.py saves."""
    splats = dict(means=cloud.means, scales=cloud.log_scales, quats=cloud.quats, opacities=cloud.opacity_logits,
                  sh0=cloud.sh[:, :1], shN=cloud.sh[:, 1:])
    return dict(step=29999, splats=torch.nn.ParameterDict(splats).state_dict(), pose_adjust=dict(w=torch.zeros(2)))


def splatfacto_checkpoint(cloud: GaussianCloud, prefix: str = '_model.gauss_params.') -> dict:
    """Return what the trainer of nerfstudio saves."""
    params = dict(means=cloud.means, scales=cloud.log_scales, quats=cloud.quats,
                  opacities=cloud.opacity_logits[:, None], features_dc=cloud.sh[:, 0], features_rest=cloud.sh[:, 1:])
    optimizer = torch.optim.Adam([torch.nn.Parameter(cloud.means)])
    return dict(step=7, pipeline={**{prefix + name: value for name, value in params.items()},
                                  'datamanager.train_camera_optimizer.pose_adjustment': torch.zeros(3, 6)},
                optimizers=dict(means=optimizer.state_dict()), schedulers={}, scalers={})


@pytest.mark.parametrize('degree', [1, 3])
@pytest.mark.parametrize('name, content', [
    ('ckpt_29999_rank0.pt', gsplat_checkpoint), ('step-000029999.ckpt', splatfacto_checkpoint),
    ('old.ckpt', lambda cloud: splatfacto_checkpoint(cloud, '_model.')),
    ('splats.pth', lambda cloud: gsplat_checkpoint(cloud)['splats'])])
def test_checkpoints_are_read_bit_for_bit(random_cloud, tmp_path, name, content, degree):
    cloud = random_cloud(20, sh_degree=degree)
    torch.save(content(cloud), tmp_path / name)
    found = read_gaussians(tmp_path / name)
    assert all(torch.equal(value, getattr(found, field)) for field, value in cloud.fields())


def test_splatfacto_without_harmonics_trains_colours_before_a_sigmoid(random_cloud, tmp_path):
    cloud = random_cloud(20, sh_degree=0)
    torch.save(splatfacto_checkpoint(cloud), tmp_path / 'a.ckpt')
    assert torch.allclose(read_gaussians(tmp_path / 'a.ckpt').rgb, cloud.sh[:, 0].sigmoid(), atol=1e-6)


def test_degree_4_is_cut_with_a_warning(random_cloud, tmp_path):
    cloud = random_cloud(5, sh_degree=3)
    content = gsplat_checkpoint(cloud)
    content['splats']['shN'] = torch.cat([cloud.sh[:, 1:], torch.ones(5, 9, 3)], 1)
    torch.save(content, tmp_path / 'a.pt')
    with pytest.warns(UserWarning, match='degree 4 were cut to degree 3'):
        assert torch.equal(read_gaussians(tmp_path / 'a.pt').sh, cloud.sh)


def test_a_part_of_a_distributed_training_warns(random_cloud, tmp_path):
    for rank in range(2):
        torch.save(gsplat_checkpoint(random_cloud(5, sh_degree=1)), tmp_path / f'ckpt_6999_rank{rank}.pt')
    with pytest.warns(UserWarning, match=r'rank0\.pt: holds the Gaussians of one process'):
        assert len(read_gaussians(tmp_path / 'ckpt_6999_rank0.pt')) == 5


@pytest.mark.filterwarnings('ignore:Validating sparse')
@pytest.mark.parametrize('change, message', [
    (dict(means=torch.zeros(4, 2)), r'means of shape \(4, 2\)'),
    (dict(shN=torch.zeros(5, 4, 3)), r'rest of shape \(5, 4'), (dict(quats=torch.ones(5, 4).int()), 'quats is not'),
    (dict(means=torch.zeros(1, 3).expand(5, 3)), 'means is not a plain tensor'),
    (dict(scales=torch.eye(5, 3).to_sparse()), 'scales is not a plain tensor'), (dict(sh0=None), 'appearance features'),
    (dict(opacities=None), 'no Gaussians, expected means'),
    (dict(quats=torch.full((5, 4), torch.nan)), 'quats is NaN or infinite in 5 of 5')])
def test_other_content_is_named(random_cloud, tmp_path, change, message):
    content = gsplat_checkpoint(random_cloud(5, sh_degree=1))
    content['splats'].update(change)
    torch.save(content, tmp_path / 'a.pt')
    with pytest.raises(ValueError, match=rf'a\.pt: .*{message}'):
        read_gaussians(tmp_path / 'a.pt')


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)
    torch.save(dict(splats=Evil()), tmp_path / 'a.pt')
    with pytest.raises(ValueError, match=r'a\.pt: holds .*mkdir, which could run code'):
        read_gaussians(tmp_path / 'a.pt')
    assert not (tmp_path / 'ran').exists()


# Parameters of gsplat.rasterization that describe Gaussians, in gsplat 1.5 and 1.6.
DOCUMENTED = {'means', 'quats', 'scales', 'opacities', 'colors', 'sh_degree'}


def test_to_gsplat_has_the_documented_names_and_draws_the_picture_of_ops_render(random_cloud):
    cloud = random_cloud(30, sh_degree=2)
    arguments = cloud.to_gsplat()
    assert set(arguments) == DOCUMENTED and arguments['sh_degree'] == 2
    module, _ = stand_in()
    assert set(inspect.signature(module.rasterization).parameters) >= DOCUMENTED
    views = ops.look_at(torch.tensor([[0.5, -0.4, -3.5]]), torch.zeros(3), up='-y')
    intrinsics = torch.tensor([[[32, 0, 16], [0, 32, 16], [0, 0, 1.0]]])
    colors, alphas, _ = module.rasterization(**arguments, viewmats=views, Ks=intrinsics, width=32, height=32)
    expected, alpha = ops.render(cloud, views, intrinsics, 32, 32)
    assert torch.allclose(colors, expected, atol=1e-3) and torch.allclose(alphas[..., 0], alpha, atol=1e-3)


def test_gsplat_itself_takes_the_names(random_cloud):
    gsplat = pytest.importorskip('gsplat')
    assert set(inspect.signature(gsplat.rasterization).parameters) >= DOCUMENTED
