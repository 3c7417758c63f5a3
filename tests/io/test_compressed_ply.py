import math

import numpy as np
import plyfile
import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io import compressed_ply
from clipgs_plugin.ops import quaternion_to_matrix

SH_C0 = 0.28209479177387814


def by_hand(path, index: int) -> dict:
    """Decode one Gaussian of a compressed file in Python, as the format defines it."""
    file = plyfile.PlyData.read(path)
    chunk, vertex = file['chunk'].data[index // 256], file['vertex'].data[index]
    word = {name: int(vertex['packed_' + name]) for name in ('position', 'rotation', 'scale', 'color')}

    def vector(packed: int, prefix: str) -> list[float]:
        unit = [(packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047]
        return [(1 - t) * float(chunk[f'min_{prefix}{a}']) + t * float(chunk[f'max_{prefix}{a}'])
                for t, a in zip(unit, 'xyz')]

    rest = [((word['rotation'] >> shift & 1023) / 1023 - 0.5) * math.sqrt(2) for shift in (20, 10, 0)]
    rest.insert(word['rotation'] >> 30, math.sqrt(max(0, 1 - sum(x * x for x in rest))))
    rgba = [(word['color'] >> shift & 255) / 255 for shift in (24, 16, 8, 0)]
    if 'min_r' in chunk.dtype.names:
        rgba[:3] = [(1 - t) * float(chunk[f'min_{a}']) + t * float(chunk[f'max_{a}']) for t, a in zip(rgba, 'rgb')]
    return dict(means=vector(word['position'], ''), log_scales=vector(word['scale'], 'scale_'), quats=rest,
                alpha=rgba[3], dc=[(c - 0.5) / SH_C0 for c in rgba[:3]])


@pytest.mark.parametrize('name', ['angel.compressed.ply', 'guitar.compressed.ply'])
def test_real_files_are_read_as_the_format_defines(splats, name):
    cloud = read_gaussians(splats / name)
    for index in [0, 255, 256, 12345, len(cloud) - 1]:
        expected = by_hand(splats / name, index)
        for field in ('means', 'log_scales', 'quats'):
            np.testing.assert_allclose(getattr(cloud, field)[index], expected[field], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(cloud.sh[index, 0], expected['dc'], atol=1e-5)
        assert cloud.opacities[index].item() == pytest.approx(expected['alpha'], abs=2e-6)


@pytest.mark.parametrize('name', ['angel.compressed.ply', 'guitar.compressed.ply'])
def test_saturated_alphas_of_real_files_keep_their_bytes(splats, tmp_path, name):
    cloud = read_gaussians(splats / name)
    stored = plyfile.PlyData.read(splats / name)['vertex']['packed_color'] & 255
    assert 255 in stored or 0 in stored
    assert cloud.opacity_logits.isfinite().all()
    write_gaussians(cloud, tmp_path / 'again.compressed.ply')
    again = plyfile.PlyData.read(tmp_path / 'again.compressed.ply')['vertex']['packed_color'] & 255
    np.testing.assert_array_equal(again, stored[compressed_ply.storage_order(cloud)])


@pytest.mark.parametrize('degree', [0, 1, 2, 3])
@pytest.mark.parametrize('count', [1, 255, 256, 257, 1000])
def test_round_trip_errors_are_within_the_steps_of_each_chunk(random_cloud, tmp_path, count, degree):
    cloud = random_cloud(count, sh_degree=degree)
    write_gaussians(cloud, tmp_path / 'cloud.compressed.ply')
    back = read_gaussians(tmp_path / 'cloud.compressed.ply')
    cloud = cloud[torch.from_numpy(compressed_ply.storage_order(cloud))]
    assert len(back) == count and back.sh_degree == degree
    steps = torch.tensor([2047, 1023, 2047])
    for start in range(0, count, 256):
        part, read = cloud[start:start + 256], back[start:start + 256]
        for name in ('means', 'log_scales'):
            a, b = getattr(part, name), getattr(read, name)
            span = a.amax(0) - a.amin(0)
            assert ((a - b).abs() <= span / steps / 2 + 1e-5).all(), name
        rgb_span = (part.sh[:, 0].amax(0) - part.sh[:, 0].amin(0))
        assert ((part.sh[:, 0] - read.sh[:, 0]).abs() <= rgb_span / 255 / 2 + 1e-5).all()
    assert (cloud.opacities - back.opacities).abs().max() <= 0.5 / 255 + 1e-6
    turned = (quaternion_to_matrix(cloud.quats) - quaternion_to_matrix(back.quats)).flatten(1).norm(dim=1)
    step = 2 ** 0.5 / 1023
    assert turned.max() < 8 ** 0.5 * 2 * 3 ** 0.5 * step / 2  # the restored component adds 1.7 times the others at most
    if degree:
        assert (cloud.sh[:, 1:] - back.sh[:, 1:]).abs().max() <= 8 / 256 / 2 + 1e-6


def test_a_second_round_trip_changes_nothing(random_cloud, tmp_path):
    """Quantisation is idempotent, because the bounds and their steps are kept."""
    first, second = tmp_path / 'a.compressed.ply', tmp_path / 'b.compressed.ply'
    write_gaussians(random_cloud(200, sh_degree=1), first)
    write_gaussians(read_gaussians(first), second)
    a, b = read_gaussians(first), read_gaussians(second)
    order = torch.from_numpy(compressed_ply.storage_order(a))
    for name, value in b.fields():
        assert torch.allclose(value, getattr(a, name)[order], atol=2e-6), name


def test_damaged_chunks_and_properties_are_named(random_cloud, tmp_path):
    write_gaussians(random_cloud(300), tmp_path / 'c.compressed.ply')
    data = (tmp_path / 'c.compressed.ply').read_bytes()
    for wrong, right, message in [(b'element chunk 2', b'element chunk 3', 'header promises 300 Gaussians in 3 chunks'),
                                  (b'float min_scale_y', b'float min_scale_q', 'chunk lacks the property min_scale_y'),
                                  (b'uint packed_scale', b'float packed_scale', 'packed_scale is not of type uint')]:
        (tmp_path / 'bad.ply').write_bytes(data.replace(wrong, right))
        with pytest.raises(ValueError, match=message):
            read_gaussians(tmp_path / 'bad.ply')


def test_coefficients_beyond_the_range_are_read_as_its_ends(random_cloud, tmp_path):
    cloud = random_cloud(5, sh_degree=1)
    write_gaussians(cloud.replace(sh=torch.cat([cloud.sh[:, :1], 100 * cloud.sh[:, 1:].sign()], 1)),
                    tmp_path / 'a.compressed.ply')
    found = read_gaussians(tmp_path / 'a.compressed.ply').sh[:, 1:]
    assert set(found.abs().unique().tolist()) == {float(compressed_ply.MAX_SH)}


def test_a_chunk_of_one_position_is_written_without_a_division_by_zero(random_cloud, tmp_path):
    cloud = random_cloud(3)
    with np.errstate(all='raise'):
        write_gaussians(cloud.replace(means=cloud.means[:1].repeat(3, 1)), tmp_path / 'a.compressed.ply')
    torch.testing.assert_close(read_gaussians(tmp_path / 'a.compressed.ply').means, cloud.means[:1].repeat(3, 1))
