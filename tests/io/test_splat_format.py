import math
import struct

import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians

SH_C0 = 0.28209479177387814
REAL = ['sneaker_white.splat', 'potted_plant.splat', 'three_points.splat', 'minimal.splat']


@pytest.mark.parametrize('name', REAL)
def test_real_files_are_read_as_the_format_defines(splats, name):
    data, cloud = (splats / name).read_bytes(), read_gaussians(splats / name)
    assert len(cloud) == len(data) // 32
    for index in {0, len(cloud) // 2, len(cloud) - 1}:
        *numbers, r, g, b, a, w, x, y, z = struct.unpack_from('<6f8B', data, 32 * index)
        assert cloud.means[index].tolist() == numbers[:3]
        np.testing.assert_allclose(cloud.scales[index], numbers[3:], rtol=2e-6)
        np.testing.assert_allclose(cloud.rgb[index], [r / 255, g / 255, b / 255], atol=1e-6)
        np.testing.assert_allclose(cloud.sh[index, 0], [(c / 255 - 0.5) / SH_C0 for c in (r, g, b)], atol=1e-6)
        assert cloud.opacities[index].item() == pytest.approx(a / 255, abs=2e-6)
        assert cloud.quats[index].tolist() == [(c - 128) / 128 for c in (w, x, y, z)]


@pytest.mark.parametrize('name', REAL)
def test_real_files_keep_their_bytes(splats, tmp_path, name):
    write_gaussians(read_gaussians(splats / name), tmp_path / 'again.splat')
    before = np.frombuffer((splats / name).read_bytes(), np.uint8).reshape(-1, 32)
    after = np.frombuffer((tmp_path / 'again.splat').read_bytes(), np.uint8).reshape(-1, 32)
    np.testing.assert_array_equal(after[:, :12], before[:, :12])
    np.testing.assert_array_equal(after[:, 24:28], before[:, 24:28])
    norms = np.linalg.norm((before[:, 28:] - 128.0) / 128, axis=1)
    unit = np.abs(norms - 1) < 1 / 64
    assert unit.mean() > 0.9
    np.testing.assert_array_equal(after[unit, 28:], before[unit, 28:])
    # Scales are stored linearly, but kept as float32 logarithms, which costs a few of the last bits.
    np.testing.assert_allclose(after[:, 12:24].copy().view('<f4'), before[:, 12:24].copy().view('<f4'), rtol=2e-6)


def test_saturated_alphas_and_zero_scales_keep_their_bytes(tmp_path):
    records = b''.join(struct.pack('<6f8B', 0, 1, 2, scale, 1e-30, 0.1, 0, 255, 7, alpha, 255, 128, 128, 128)
                       for alpha in range(256) for scale in (0.0, 1e-45, 3.0))
    (tmp_path / 'a.splat').write_bytes(records)
    cloud = read_gaussians(tmp_path / 'a.splat')
    assert all(value.isfinite().all() for _, value in cloud.fields())
    write_gaussians(cloud, tmp_path / 'b.splat')
    before, after = (np.frombuffer(d, np.uint8).reshape(-1, 32) for d in (records, (tmp_path / 'b.splat').read_bytes()))
    np.testing.assert_array_equal(after[:, 24:], before[:, 24:])
    np.testing.assert_array_equal(after[:, 12:16].copy().view('<f4').ravel()[::3], 0)


def test_round_trip_errors_are_within_half_a_step(random_cloud, tmp_path):
    cloud = random_cloud(500, sh_degree=3)
    write_gaussians(cloud, tmp_path / 'cloud.splat')
    back = read_gaussians(tmp_path / 'cloud.splat')
    assert torch.equal(back.means, cloud.means) and back.sh_degree == 0
    assert torch.allclose(back.log_scales, cloud.log_scales, atol=1e-6)
    assert (back.rgb - cloud.rgb).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    # A component of 1 saturates at 255, one step below; other components are within half a step.
    unit = torch.nn.functional.normalize(cloud.quats, dim=-1)
    assert (back.quats - unit).abs().max() <= 1 / 128 and (back.rotations - cloud.rotations).abs().max() < 0.05


@pytest.mark.parametrize('field, value, message', [
    (0, math.nan, 'means'), (1, math.inf, 'means'), (3, -1.0, 'log_scales'), (4, math.nan, 'log_scales')])
def test_invalid_values_are_refused(tmp_path, field, value, message):
    numbers = [0.0, 1, 2, 0.1, 0.1, 0.1]
    numbers[field] = value
    good = struct.pack('<6f8B', 0, 1, 2, 0.1, 0.1, 0.1, 9, 9, 9, 9, 255, 128, 128, 128)
    (tmp_path / 'bad.splat').write_bytes(good + struct.pack('<6f8B', *numbers, 9, 9, 9, 9, 255, 128, 128, 128))
    with pytest.raises(ValueError, match=f'bad.splat: {message} is NaN or infinite in 1 of 2'):
        read_gaussians(tmp_path / 'bad.splat')
    with pytest.warns(UserWarning, match='dropped 1 of 2'):
        assert len(read_gaussians(tmp_path / 'bad.splat', clean=True)) == 1


def test_a_zero_quaternion_is_refused(tmp_path):
    (tmp_path / 'bad.splat').write_bytes(struct.pack('<6f8B', 0, 1, 2, 0.1, 0.1, 0.1, 9, 9, 9, 9, *[128] * 4))
    with pytest.raises(ValueError, match='quats are zero and define no rotation in 1 of 1'):
        read_gaussians(tmp_path / 'bad.splat')


@pytest.mark.parametrize('content', [
    bytes(3200), b'Hello, this is a text file ok.\n\n' * 20, b'<!DOCTYPE html><title>404</title>' * 64,
    np.random.default_rng(0).integers(0, 256, 6400, np.uint8).clip(1, 60).tobytes(),
    bytes([0, 1]) + bytes(5278)], ids=['zeros', 'text', 'page', 'noise', 'ksplat'])
def test_other_content_with_the_suffix_is_refused(tmp_path, content):
    (tmp_path / 'not.splat').write_bytes(content)
    assert len(content) % 32 == 0
    with pytest.raises(ValueError, match=r'not.splat: quats are far from unit in \d+ of \d+ Gaussians.*another format'):
        read_gaussians(tmp_path / 'not.splat')


def test_a_few_quaternions_that_are_not_unit_are_accepted(random_cloud, tmp_path):
    write_gaussians(random_cloud(100), tmp_path / 'a.splat')
    records = np.frombuffer((tmp_path / 'a.splat').read_bytes(), np.uint8).reshape(-1, 32).copy()
    records[:10, 28:] = [255, 255, 128, 128]
    (tmp_path / 'a.splat').write_bytes(records.tobytes())
    assert read_gaussians(tmp_path / 'a.splat').quats[:10].norm(dim=1).min() > 1.3


@pytest.mark.parametrize('odd, accepted', [(50, True), (51, False)])
def test_a_file_is_another_format_if_most_quaternions_are_not_unit(random_cloud, tmp_path, odd, accepted):
    path = tmp_path / 'a.splat'
    write_gaussians(random_cloud(100), path)
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 32).copy()
    records[:odd, 28:] = [255, 255, 128, 128]
    path.write_bytes(records.tobytes())
    if accepted:
        assert len(read_gaussians(path)) == 100
    else:
        with pytest.raises(ValueError, match='far from unit in 51 of 100'):
            read_gaussians(path)


@pytest.mark.parametrize('suffix', ['splat', 'spz'])
def test_colours_beyond_the_range_saturate(random_cloud, tmp_path, suffix):
    step = {'splat': SH_C0, 'spz': 0.15}[suffix]
    dc = torch.tensor([[-3.0, 0.0, 3.0], [-0.5, 0.5, 0.51], [1.5, -1.5, 0.0]]) / step
    write_gaussians(random_cloud(3).replace(sh=dc[:, None]), tmp_path / f'a.{suffix}')
    back = read_gaussians(tmp_path / f'a.{suffix}').sh[:, 0] * step
    assert torch.allclose(back, (dc * step).clamp(-0.5, 0.5), atol=0.5 / 255 + 1e-6)
