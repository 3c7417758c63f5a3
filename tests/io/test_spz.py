import gzip
import math
import struct

import numpy as np
import pyarrow
import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.ops import rotate_sh

REAL = ['camera.spz', 'three_points.spz', 'minimal_v2.spz', 'minimal_v3.spz', 'minimal_v4.spz']
HALF_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # right-up-back to right-down-front


def payload(path) -> bytes:
    """Return header and planes of a file in the layout of versions 2 and 3."""
    data = path.read_bytes()
    if data[:2] == b'\x1f\x8b':
        return gzip.decompress(data)
    table, streams = struct.unpack_from('<I', data, 16)[0], data[15]
    start, body = table + 16 * streams, b''
    for i in range(streams):
        packed, size = struct.unpack_from('<QQ', data, table + 16 * i)
        body += pyarrow.Codec('zstd').decompress(data[start:start + packed], size).to_pybytes()
        start += packed
    return data[:16] + body


def by_hand(data: bytes, i: int) -> dict:
    """Decode one Gaussian in the frame of the file in Python, as the format defines it."""
    _, version, n, degree, bits, _, _ = struct.unpack_from('<4sIIBBBB', data)
    coefficients, rotation_bytes = (degree + 1) ** 2 - 1, 3 if version == 2 else 4
    at = 16
    means = [int.from_bytes(data[at + 9 * i + 3 * a:at + 9 * i + 3 * a + 3], 'little', signed=True) / 2 ** bits
             for a in range(3)]
    at += 9 * n
    alpha = data[at + i] / 255
    at += n
    dc = [(data[at + 3 * i + c] / 255 - 0.5) / 0.15 for c in range(3)]
    at += 3 * n
    log_scales = [data[at + 3 * i + a] / 16 - 10 for a in range(3)]
    at += 3 * n
    raw = data[at + rotation_bytes * i:at + rotation_bytes * (i + 1)]
    if version == 2:
        x, y, z = (b / 127.5 - 1 for b in raw)
        quats = [math.sqrt(max(0, 1 - x * x - y * y - z * z)), x, y, z]
    else:
        packed, xyzw = int.from_bytes(raw, 'little'), [0.0] * 4
        largest = packed >> 30
        for component in (3, 2, 1, 0):
            if component != largest:
                value = (packed & 511) / 511 / math.sqrt(2)
                xyzw[component] = -value if packed & 512 else value
                packed >>= 10
        xyzw[largest] = math.sqrt(max(0, 1 - sum(v * v for v in xyzw)))
        quats = [xyzw[3], *xyzw[:3]]
    at += rotation_bytes * n
    bands = [[(data[at + 3 * (coefficients * i + k) + c] - 128) / 128 for c in range(3)] for k in range(coefficients)]
    return dict(means=means, quats=quats, log_scales=log_scales, alpha=alpha, sh=[dc, *bands])


@pytest.mark.parametrize('name', REAL)
def test_real_files_are_read_as_the_format_defines_in_the_inria_frame(splats, name):
    data, cloud = payload(splats / name), read_gaussians(splats / name)
    assert len(cloud) == struct.unpack_from('<I', data, 8)[0] and cloud.sh_degree == data[12]
    for i in {0, len(cloud) // 2, len(cloud) - 1}:
        expected = by_hand(data, i)
        turned = cloud.transform(HALF_TURN)[i]  # back into the frame of the file
        np.testing.assert_allclose(turned.means[0], expected['means'], atol=1e-6)
        np.testing.assert_allclose(turned.log_scales[0], expected['log_scales'], atol=1e-6)
        np.testing.assert_allclose(turned.sh[0], expected['sh'], atol=2e-6)
        assert turned.opacities.item() == pytest.approx(expected['alpha'], abs=2e-6)
        reference = cloud[i].replace(quats=torch.tensor([expected['quats']]))
        scale = turned.covariances.abs().max()
        assert torch.allclose(turned.covariances / scale, reference.covariances / scale, atol=1e-5)


@pytest.mark.parametrize('name', REAL)
def test_real_files_keep_their_payload(splats, tmp_path, name):
    before = payload(splats / name)
    cloud = read_gaussians(splats / name)
    write_gaussians(cloud, tmp_path / 'again.spz', version=before[4], fractional_bits=before[13])
    after = payload(tmp_path / 'again.spz')
    n = struct.unpack_from('<I', before, 8)[0]
    assert after[:14] == before[:14] and len(after) == len(before)
    bands = 3 * ((before[12] + 1) ** 2 - 1)
    planes = np.cumsum([16, 9 * n, n, 3 * n, 3 * n, (3 if before[4] == 2 else 4) * n, bands * n])
    for name, start, end in zip(['means', 'alpha', 'colour', 'scales', 'rotations', 'sh'], planes, planes[1:]):
        assert after[start:end] == before[start:end], name


def test_written_sh_bands_are_rotated_by_a_half_turn(random_cloud, tmp_path):
    cloud = random_cloud(1, sh_degree=3)
    write_gaussians(cloud, tmp_path / 'cloud.spz')
    stored = np.array(by_hand(payload(tmp_path / 'cloud.spz'), 0)['sh'])[1:]
    expected = rotate_sh(cloud.sh, HALF_TURN)[0, 1:].clamp(-1, 127 / 128).numpy()
    np.testing.assert_allclose(stored, expected, atol=0.5 / 128 + 1e-6)


@pytest.mark.parametrize('version', [2, 3, 4])
@pytest.mark.parametrize('degree', [0, 1, 2, 3])
def test_round_trip_errors_are_within_half_a_step(random_cloud, tmp_path, version, degree):
    cloud = random_cloud(300, sh_degree=degree)
    cloud = cloud.replace(sh=cloud.sh.clamp(-0.99, 0.99))
    write_gaussians(cloud, tmp_path / 'cloud.spz', version=version)
    back = read_gaussians(tmp_path / 'cloud.spz')
    assert payload(tmp_path / 'cloud.spz')[4] == version and back.sh_degree == degree
    assert (back.means - cloud.means).abs().max() <= 0.5 / 4096 + 1e-6
    assert (back.log_scales - cloud.log_scales).abs().max() <= 0.5 / 16 + 1e-6
    assert (back.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.sh[:, 0] - cloud.sh[:, 0]).abs().max() <= 0.5 / 255 / 0.15 + 1e-5
    if degree:
        assert (back.sh[:, 1:] - cloud.sh[:, 1:]).abs().max() <= 0.5 / 128 + 1e-6
    turned = (back.rotations - cloud.rotations).flatten(1).norm(dim=1)
    if version == 2:  # w is computed from x, y, z, inaccurately if it is small
        assert turned[torch.nn.functional.normalize(cloud.quats, dim=1)[:, 0].abs() > 0.5].max() < 0.06
    else:
        assert turned.max() < 8 ** 0.5 * 2 * 3 ** 0.5 * (0.5 / 511 / 2 ** 0.5)


def test_saturated_alphas_keep_their_bytes(random_cloud, tmp_path):
    cloud = random_cloud(256)
    alpha = torch.arange(256) / 255
    cloud = cloud.replace(opacity_logits=torch.logit(alpha.double(), eps=1e-9).float())
    write_gaussians(cloud, tmp_path / 'a.spz')
    write_gaussians(read_gaussians(tmp_path / 'a.spz'), tmp_path / 'b.spz')
    for name in 'ab':
        assert list(payload(tmp_path / f'{name}.spz')[16 + 9 * 256:16 + 10 * 256]) == list(range(256))


@pytest.mark.parametrize('extent, bits', [(1.0, 12), (2000.0, 12), (3000.0, 11), (8e6, 0)])
def test_resolution_is_reduced_if_positions_would_overflow(random_cloud, tmp_path, extent, bits):
    cloud = random_cloud(10)
    cloud = cloud.replace(means=cloud.means / cloud.means.abs().max() * extent)
    write_gaussians(cloud, tmp_path / 'far.spz')
    assert payload(tmp_path / 'far.spz')[13] == bits
    assert (read_gaussians(tmp_path / 'far.spz').means - cloud.means).abs().max() <= 0.5 / 2 ** bits + extent * 1e-7


def test_too_large_positions_and_unknown_versions_are_refused(random_cloud, tmp_path):
    cloud = random_cloud(3)
    with pytest.raises(ValueError, match=r'means reach 1e\+08'):
        write_gaussians(cloud.replace(means=torch.full((3, 3), 1e8)), tmp_path / 'far.spz')
    with pytest.raises(ValueError, match='version=1'):
        write_gaussians(cloud, tmp_path / 'old.spz', version=1)
    assert not list(tmp_path.iterdir())


def extension(kind: int, value: int) -> bytes:
    return struct.pack('<III', kind, 4, value)


@pytest.mark.parametrize('kind, value, message', [
    (0x12340001, 7, None), (0xADBE0003, 4, None), (0xADBE0003, 6, 'coordinate system 6')])
@pytest.mark.parametrize('version', [3, 4])
def test_extensions_are_skipped_unless_they_change_the_frame(random_cloud, tmp_path, version, kind, value, message):
    path = tmp_path / 'cloud.spz'
    write_gaussians(random_cloud(5), path, version=version)
    expected = read_gaussians(path)
    if version == 3:
        data = bytearray(gzip.decompress(path.read_bytes()) + extension(kind, value))
        data[14] |= 2
        path.write_bytes(gzip.compress(bytes(data)))
    else:
        data = bytearray(path.read_bytes())
        data[14] |= 2
        data[16:20] = struct.pack('<I', 32 + 12)
        path.write_bytes(bytes(data[:32]) + extension(kind, value) + bytes(data[32:]))
    if message:
        with pytest.raises(ValueError, match=message):
            read_gaussians(path)
    else:
        assert torch.equal(read_gaussians(path).means, expected.means)


def test_degree_4_is_cut_to_3_with_a_warning(random_cloud, tmp_path):
    cloud = random_cloud(6, sh_degree=3)
    write_gaussians(cloud, tmp_path / 'a.spz')
    content = bytearray(payload(tmp_path / 'a.spz'))
    content[12] = 4
    bands = len(content) - 6 * 45
    wider = b''.join(bytes(content[bands + 45 * i:bands + 45 * (i + 1)]) + b'\xff' * 27 for i in range(6))
    (tmp_path / 'b.spz').write_bytes(gzip.compress(bytes(content[:bands]) + wider))
    with pytest.warns(UserWarning, match=r'b\.spz: harmonics of degree 4 were cut to degree 3'):
        found = read_gaussians(tmp_path / 'b.spz')
    assert torch.equal(found.sh, read_gaussians(tmp_path / 'a.spz').sh)


@pytest.mark.parametrize('version', [2, 3, 4])
def test_the_flag_of_antialiasing_is_kept_with_a_warning(random_cloud, tmp_path, version):
    write_gaussians(random_cloud(6), tmp_path / 'a.spz', version=version, antialiased=True)
    assert payload(tmp_path / 'a.spz')[14] == 1
    with pytest.warns(UserWarning, match=r'a\.spz: trained with antialiasing'):
        read_gaussians(tmp_path / 'a.spz')
