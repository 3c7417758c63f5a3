import struct

import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians

SH_C0 = 0.28209479177387814
STEPS, BLOCK, BUCKET = 32767, 5.0, 4


def pack(cloud, level: int, *degrees: int) -> bytes:
    """Encode a file of two sections, Gaussian by Gaussian, in the layout of the viewer; each may have its degree."""
    sections, headers = [], []
    for part, degree in zip((cloud[:10], cloud[10:]), (degrees[0], degrees[-1])):
        # Buckets of four around grid points near the Gaussians; the last bucket is partly filled.
        centres = [np.float32(np.round(part.means[i:i + BUCKET].mean(0).numpy() * 4) / 4) for i in
                   range(0, len(part), BUCKET)]
        full, rest = divmod(len(part), BUCKET)
        data = b''
        if level:
            data += struct.pack('<I', rest) if rest else b''
            data += b''.join(struct.pack('<3f', *c) for c in centres)
        for i in range(len(part)):
            means, scales, quats = part.means[i].tolist(), part.scales[i].tolist(), part.quats[i].tolist()
            if level == 0:
                data += struct.pack('<10f', *means, *scales, *quats)
            else:
                offsets = [round((m - c) * STEPS / (BLOCK / 2)) + STEPS for m, c in zip(means, centres[i // BUCKET])]
                data += struct.pack('<3H7e', *offsets, *scales, *quats)
            rgb = (part.rgb[i] * 255).round().int().tolist()
            data += struct.pack('<4B', *rgb, round(part.opacities[i].item() * 255))
            for band in range(1, degree + 1):
                for channel in range(3):
                    for k in range(band * band, (band + 1) ** 2):
                        value = part.sh[i, k, channel].item()
                        data += (struct.pack('<f', value) if level == 0 else struct.pack('<e', value) if level == 1
                                 else struct.pack('<B', round((min(max(value, -2), 2) + 2) / 4 * 255)))
        bucketed = level > 0
        header = struct.pack('<IIIIfHxxIIIIH', len(part), len(part), BUCKET * bucketed, len(centres) * bucketed,
                             BLOCK * bucketed, 12 * bucketed, STEPS * bucketed, len(data), full * bucketed,
                             (1 if rest else 0) * bucketed, degree)
        headers.append(header.ljust(1024, b'\0'))
        sections.append(data)
    header = struct.pack('<BBxxIIIIH2x3fff', 0, 1, 2, 2, len(cloud), len(cloud), level, 0, 0, 0, -2.0, 2.0)
    return header.ljust(4096, b'\0') + b''.join(headers) + b''.join(sections)


@pytest.mark.parametrize('degree', [0, 1, 2])
@pytest.mark.parametrize('level', [0, 1, 2])
def test_every_level_and_degree_is_read(random_cloud, tmp_path, level, degree):
    cloud = random_cloud(23, sh_degree=degree)
    cloud = cloud.replace(sh=cloud.sh.clamp(-1.7, 1.7))
    (tmp_path / 'cloud.ksplat').write_bytes(pack(cloud, level, degree))
    back = read_gaussians(tmp_path / 'cloud.ksplat')
    assert len(back) == 23 and back.sh_degree == degree
    half = 0 if level == 0 else 2 ** -11  # relative precision of a half float
    assert (back.means - cloud.means).abs().max() <= (0 if level == 0 else BLOCK / 2 / STEPS / 2 + 1e-6)
    assert torch.allclose(back.scales, cloud.scales, rtol=half + 1e-6, atol=0)
    assert torch.allclose(back.quats, cloud.quats, rtol=half, atol=1e-7)
    assert (back.rgb - cloud.rgb).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(back.sh[:, 1:], cloud.sh[:, 1:], rtol=half, atol=4 / 255 / 2 + 1e-6 if level == 2 else 1e-7)


@pytest.mark.parametrize('level', [0, 1, 2])
@pytest.mark.parametrize('degrees', [(0, 2), (2, 1), (1, 0)])
def test_sections_of_a_lower_degree_have_zeros_above_it(random_cloud, tmp_path, level, degrees):
    cloud = random_cloud(23, sh_degree=2)
    cloud = cloud.replace(sh=cloud.sh.clamp(-1.7, 1.7))
    (tmp_path / 'cloud.ksplat').write_bytes(pack(cloud, level, *degrees))
    back = read_gaussians(tmp_path / 'cloud.ksplat')
    assert back.sh_degree == max(degrees)
    for rows, degree in zip((slice(10), slice(10, None)), degrees):
        count = (degree + 1) ** 2
        assert torch.allclose(back.sh[rows, 1:count], cloud.sh[rows, 1:count], atol=4 / 255 / 2 + 1e-6)
        assert not back.sh[rows, count:].any()


def test_the_minimal_real_file_equals_its_splat_version(splats):
    a, b = read_gaussians(splats / 'minimal.ksplat'), read_gaussians(splats / 'minimal.splat')
    assert len(a) == len(b) == 4
    order = torch.cdist(a.means, b.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert torch.allclose(a.means, b.means[order], atol=1e-4) and torch.allclose(a.scales, b.scales[order], atol=1e-3)
    assert (a.rgb - b.rgb[order]).abs().max() <= 1 / 255 + 1e-6
    assert (a.opacities - b.opacities[order]).abs().max() <= 1 / 255 + 1e-6


def test_a_zero_scale_in_half_floats_is_finite(random_cloud, tmp_path):
    cloud = random_cloud(12)
    (tmp_path / 'flat.ksplat').write_bytes(pack(cloud.replace(log_scales=torch.full((12, 3), -60.0)), 1, 0))
    assert read_gaussians(tmp_path / 'flat.ksplat').log_scales.isfinite().all()


@pytest.mark.parametrize('change, message', [
    (lambda d: d[:100], 'less than a .ksplat header'),
    (lambda d: d[:5000], 'header promises 2 sections'),
    (lambda d: d[:-1], 'truncated'),
    (lambda d: d + b'\0', 'end at byte'),
    (lambda d: b'\1' + d[1:], 'version 1.1'),
    (lambda d: d[:20] + b'\3' + d[21:], 'level 3'),
    (lambda d: d[:16] + struct.pack('<I', 7) + d[20:], 'promises 7 Gaussians, its sections hold 23'),
    (lambda d: d[:4096] + struct.pack('<I', 11) + d[4100:], '11 of at most 10'),
    (lambda d: d[:4096 + 12] + struct.pack('<I', 2) + d[4096 + 16:], 'truncated|buckets|end at byte'),
])
def test_damaged_files_are_refused(random_cloud, tmp_path, change, message):
    (tmp_path / 'bad.ksplat').write_bytes(change(pack(random_cloud(23), 1, 0)))
    with pytest.raises(ValueError, match=message):
        read_gaussians(tmp_path / 'bad.ksplat')


def test_the_format_cannot_be_written(random_cloud, tmp_path):
    with pytest.raises(ValueError, match=r'\.ksplat files cannot be written; write one of \.compressed\.ply, \.ply'):
        write_gaussians(random_cloud(3), tmp_path / 'cloud.ksplat')
