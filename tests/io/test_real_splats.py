"""Real Gaussians agree between formats, in numbers and in rendered images."""
import math

import pytest
import torch
from scipy.spatial import cKDTree

from clipgs_plugin import io, ops, read_gaussians, write_gaussians

HALF_TURN_Z = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))


def render_views(cloud, framing=None, size: int = 128, up: str = '-y'):
    """Render four views around the median position of ``framing``."""
    framing = framing or cloud
    centre = framing.means.median(0).values
    radius = (framing.means - centre).norm(dim=1).quantile(0.9)
    turns = [2 * math.pi * i / 4 for i in range(4)]
    eyes = centre + 3.2 * radius * torch.tensor([[math.sin(t), -0.3, math.cos(t)] for t in turns])
    focal = size / 2 / math.tan(math.radians(20))
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]).expand(4, 3, 3)
    views = ops.look_at(eyes, centre, up=up)
    return ops.render(cloud, views, intrinsics, size, size, background=(1.0, 1.0, 1.0))[0].clamp(0, 1)


def psnr(a, b) -> float:
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-12))


def relative_covariance_error(a, b) -> torch.Tensor:
    return (a.covariances - b.covariances).flatten(1).norm(dim=1) / a.covariances.flatten(1).norm(dim=1)


def nearest(a, b):
    """Return distances to and indices of the Gaussians of ``b`` nearest to those of ``a``."""
    distance, index = cKDTree(b.means.numpy()).query(a.means.numpy())
    return torch.from_numpy(distance), torch.from_numpy(index)


def test_camera_as_ply_and_as_sog(splats):
    ply, sog = read_gaussians(splats / 'camera.ply'), read_gaussians(splats / 'camera.sog')
    _, index = nearest(ply, sog)
    assert index.unique().numel() == len(ply) == len(sog)
    same = sog[index]
    logarithm = ply.means.sign() * ply.means.abs().log1p()
    step = (logarithm.amax(0) - logarithm.amin(0)) / 65535
    assert ((ply.means - same.means).abs() <= step * (1 + ply.means.abs()) + 1e-5).all()
    assert (ply.opacities - same.opacities).abs().max() <= 1 / 255 + 1e-6
    assert (ply.rgb - same.rgb).abs().max() < 0.01 and (ply.sh[:, 1:] - same.sh[:, 1:]).abs().max() < 0.02
    assert (ply.log_scales - same.log_scales).abs().max() < 0.1
    errors = relative_covariance_error(ply, same)
    assert errors.median() < 0.03 and errors.max() < 0.2  # quaternions in 8 bits and scales from a codebook of 256
    assert psnr(render_views(ply), render_views(sog, ply)) > 38
    flattened = ply.replace(sh=torch.cat([ply.sh[:, :1], -ply.sh[:, 1:]], 1))
    assert psnr(render_views(ply), render_views(flattened, ply)) < 35  # the images depend on the higher bands


@pytest.mark.parametrize('suffix, tolerance', [('splat', 0.025), ('spz', 0.045)])
def test_three_points_in_three_formats(splats, suffix, tolerance):
    expected, found = read_gaussians(splats / 'three_points.ply'), read_gaussians(splats / f'three_points.{suffix}')
    assert torch.allclose(found.means, expected.means, atol=0.5 / 4096 + 1e-6 if suffix == 'spz' else 0)
    assert relative_covariance_error(expected, found).max() < tolerance
    assert (found.opacities - expected.opacities).abs().max() <= 1 / 255
    assert (found.rgb - expected.rgb).abs().max() <= 1 / 255 + 1e-6
    if suffix == 'spz':  # written with 5 and 4 bits for the bands
        assert (found.sh[:, 1:4] - expected.sh[:, 1:4]).abs().max() <= 0.5 / 16 + 1e-6
        assert (found.sh[:, 4:] - expected.sh[:, 4:]).abs().max() <= 0.5 / 8 + 1e-2
    assert (found.rotations - expected.rotations).abs().max() < 0.03


def test_angel_as_compressed_ply_and_as_sog(splats):
    """Both files were compressed separately, one after a half turn about z."""
    ply, sog = read_gaussians(splats / 'angel.compressed.ply'), read_gaussians(splats / 'angel.sog')
    turned = ply.transform(HALF_TURN_Z)
    distance, index = nearest(turned, sog)
    assert distance.median() < 2e-4
    near = distance < 3e-4
    assert near.float().mean() > 0.8
    a, b = turned[near], sog[index[near]]
    assert relative_covariance_error(a, b).median() < 0.05
    assert (a.opacities - b.opacities).abs().median() <= 1 / 255 and (a.rgb - b.rgb).abs().median() <= 1 / 255
    assert psnr(render_views(turned, sog), render_views(sog)) > 38
    assert psnr(render_views(ply, sog), render_views(sog)) < 20


def test_camera_as_spz_has_the_same_up_axis(splats):
    """The file holds other Gaussians of the same capture; brightness per image row agrees best if both are upright."""
    expected = render_views(read_gaussians(splats / 'camera.ply').transform(torch.eye(3)))
    spz = read_gaussians(splats / 'camera.spz')
    rows = lambda image: (1 - image).mean((0, 2, 3))  # noqa: E731  darkness per image row
    profile = lambda cloud: torch.corrcoef(torch.stack([rows(render_views(cloud)), rows(expected)]))[0, 1]  # noqa: E731
    assert profile(spz) > profile(spz.transform(ops.axis_change('y', '-y'))) + 0.2


@pytest.mark.parametrize('suffix, decibels', [('compressed.ply', 45), ('splat', 34), ('spz', 43), ('sog', 43)])
@pytest.mark.parametrize('name', ['camera.ply', 'potted_plant.splat'])
def test_images_are_preserved_by_every_lossy_format(splats, tmp_path, name, suffix, decibels):
    cloud = read_gaussians(splats / name)
    if suffix == 'splat':
        cloud = cloud.with_sh_degree(0)
    write_gaussians(cloud, tmp_path / f'cloud.{suffix}')
    back = read_gaussians(tmp_path / f'cloud.{suffix}')
    assert len(back) == len(cloud) and back.sh_degree == cloud.sh_degree
    assert psnr(render_views(cloud), render_views(back, cloud)) > decibels


def test_every_real_file_is_detected_and_has_the_expected_count(splats):
    counts = {'angel.compressed.ply': 71377, 'angel.sog': 71359, 'camera.ply': 8192, 'camera.sog': 8192,
              'camera.spz': 8192, 'fruit_drops_sh3.ply': 4721, 'guitar.compressed.ply': 90854, 'minimal.ksplat': 4,
              'minimal.splat': 4, 'minimal_v2.spz': 4, 'minimal_v3.spz': 4, 'minimal_v4.spz': 4, 'monkey.sog': 31658,
              'potted_plant.splat': 14007, 'sneaker_white.splat': 32870, 'three_points.ply': 3,
              'three_points.splat': 3, 'three_points.spz': 3, 'train_1000_sh3.ply': 1000, 'trumpet_statue.sog': 89292}
    for name, count in counts.items():
        cloud = read_gaussians(splats / name)
        assert len(cloud) == count, name
        assert io.format_of_file(splats / name).description
        assert cloud.scales.median() < cloud.means.std(0).max(), name
