import io
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io import sog


def by_hand(path, i: int) -> dict:
    """Decode one Gaussian of a version 2 bundle in Python, as the format defines it."""
    archive = zipfile.ZipFile(path)
    meta = json.loads(archive.read('meta.json'))

    def pixel(name: str, x: int | None = None, y: int = 0) -> tuple[int, ...]:
        image = Image.open(io.BytesIO(archive.read(name))).convert('RGBA')
        return image.getpixel((i % image.width, i // image.width) if x is None else (x, y))

    low, high = (pixel(name) for name in meta['means']['files'])
    means = []
    for a in range(3):
        lowest, highest = meta['means']['mins'][a], meta['means']['maxs'][a]
        value = lowest + (highest - lowest) * (high[a] * 256 + low[a]) / 65535
        means.append(math.copysign(math.exp(abs(value)) - 1, value))
    *three, tag = pixel('quats.webp')
    quats = [(c / 255 * 2 - 1) / math.sqrt(2) for c in three]
    quats.insert(tag - 252, math.sqrt(max(0, 1 - sum(q * q for q in quats))))
    color = pixel('sh0.webp')
    sh = [[meta['sh0']['codebook'][c] for c in color[:3]]]
    if 'shN' in meta:
        label = pixel('shN_labels.webp')[0] + 256 * pixel('shN_labels.webp')[1]
        coefficients = {1: 3, 2: 8, 3: 15}[meta['shN']['bands']]
        for k in range(coefficients):
            entry = pixel('shN_centroids.webp', label % 64 * coefficients + k, label // 64)
            sh.append([meta['shN']['codebook'][c] for c in entry[:3]])
    return dict(means=means, quats=quats, log_scales=[meta['scales']['codebook'][c] for c in pixel('scales.webp')[:3]],
                alpha=color[3] / 255, sh=sh)


@pytest.mark.parametrize('name', ['camera.sog', 'angel.sog', 'monkey.sog', 'trumpet_statue.sog'])
def test_real_files_are_read_as_the_format_defines(splats, name):
    cloud = read_gaussians(splats / name)
    for i in {0, 1234, len(cloud) - 1}:
        expected = by_hand(splats / name, i)
        for field in ('means', 'quats', 'log_scales', 'sh'):
            np.testing.assert_allclose(getattr(cloud, field)[i], expected[field], rtol=1e-5, atol=2e-6, err_msg=field)
        assert cloud.opacities[i].item() == pytest.approx(expected['alpha'], abs=2e-6)


@pytest.mark.parametrize('count, degree', [(1, 0), (2, 3), (300, 1), (300, 2), (1000, 3)])
@pytest.mark.parametrize('bundled', [True, False])
def test_round_trip_errors_are_within_the_steps_of_the_format(random_cloud, tmp_path, count, degree, bundled):
    cloud = random_cloud(count, sh_degree=degree)
    path = tmp_path / ('cloud.sog' if bundled else 'meta.json')
    write_gaussians(cloud, path)
    back = read_gaussians(path)
    cloud = cloud[torch.from_numpy(sog.storage_order(cloud))]
    assert len(back) == count and back.sh_degree == degree
    logarithm = cloud.means.sign() * cloud.means.abs().log1p()
    step = (logarithm.amax(0) - logarithm.amin(0)) / 65535 * (1 + cloud.means.abs().amax(0))
    assert ((back.means - cloud.means).abs() <= step / 2 + 1e-6).all()
    turned = (back.rotations - cloud.rotations).flatten(1).norm(dim=1)
    assert turned.max() < 8 ** 0.5 * 2 * 3 ** 0.5 * (2 ** 0.5 / 255 / 2)
    assert (back.opacities - cloud.opacities).abs().max() <= 0.5 / 255 + 1e-6
    for name, a, b in [('log_scales', cloud.log_scales, back.log_scales), ('dc', cloud.sh[:, :1], back.sh[:, :1]),
                       ('bands', cloud.sh[:, 1:], back.sh[:, 1:])]:
        if a.numel():  # a codebook of 256 fits at least as well as 256 equal steps
            uniform = (a.max() - a.min()) / 255 / 12 ** 0.5
            assert (a - b).square().mean().sqrt() <= uniform + 1e-6, name


def test_a_folder_is_read_by_its_path_or_its_meta_file(random_cloud, tmp_path):
    write_gaussians(random_cloud(20), tmp_path / 'meta.json')
    a, b = read_gaussians(tmp_path), read_gaussians(tmp_path / 'meta.json')
    assert torch.equal(a.means, b.means)
    assert {p.name for p in tmp_path.iterdir()} == {
        'meta.json', 'means_l.webp', 'means_u.webp', 'quats.webp', 'scales.webp', 'sh0.webp'}


def test_saturated_alphas_keep_their_bytes_and_their_colours(random_cloud, tmp_path):
    cloud = random_cloud(256)
    cloud = cloud.replace(opacity_logits=torch.logit(torch.arange(256).double() / 255, eps=1e-9).float())
    write_gaussians(cloud, tmp_path / 'a.sog')
    first = read_gaussians(tmp_path / 'a.sog')
    write_gaussians(first, tmp_path / 'b.sog')
    second = read_gaussians(tmp_path / 'b.sog')
    assert sorted((first.opacities * 255).round().int().tolist()) == list(range(256))
    order = torch.from_numpy(sog.storage_order(first))
    assert torch.equal(second.opacity_logits, first.opacity_logits[order])
    assert torch.allclose(second.sh, first.sh[order], atol=1e-6)
    assert torch.allclose(second.log_scales, first.log_scales[order], atol=1e-6)


def test_a_small_palette_holds_the_means_of_neighbouring_bands(random_cloud, tmp_path):
    """With two distant groups of bands and a palette of two, each Gaussian gets the mean of its group."""
    cloud = random_cloud(100, sh_degree=1)
    sign = torch.where(torch.arange(100) % 2 == 0, 1.0, -1.0)
    sh = cloud.sh.clone()
    sh[:, 1:] = sign[:, None, None] * 0.5 + 0.01 * sh[:, 1:]
    write_gaussians(cloud.replace(sh=sh), tmp_path / 'small.sog', palette=2)
    back = read_gaussians(tmp_path / 'small.sog')
    order = torch.from_numpy(sog.storage_order(cloud))
    means = torch.stack([sh[sign > 0, 1:].mean(0), sh[sign < 0, 1:].mean(0)])
    expected = means[(sign[order] < 0).long()]
    assert torch.allclose(back.sh[:, 1:], expected, atol=1e-5)
    with pytest.raises(ValueError, match='palette=0'):
        write_gaussians(cloud, tmp_path / 'small.sog', palette=0)


def version_1(folder, count: int = 5) -> dict:
    """Write a version 1 folder of random bytes and return its fields, decoded in Python."""
    g = np.random.default_rng(0)
    image = lambda *shape: g.integers(0, 256, (*shape, 4), dtype=np.uint8)  # noqa: E731
    low, high, quats, scales, sh0, labels = (image(2, 4) for _ in range(6))
    palette = image(1, 64 * 3)
    for array in (low, high, scales, labels, palette):
        array[..., 3] = 255
    labels[..., 0], labels[..., 1] = g.integers(0, 64, (2, 4)), 0
    for pixel in quats.reshape(-1, 4):
        quat = g.normal(size=4)
        tag = int(np.abs(quat).argmax())
        quat = np.delete(quat * np.sign(quat[tag]) / np.linalg.norm(quat), tag)
        pixel[:] = [*np.rint((quat * math.sqrt(2) + 1) / 2 * 255), 252 + tag]
    meta = dict(
        means=dict(shape=[count, 3], mins=[-1.0, -2.0, 0.5], maxs=[1.0, 0.0, 2.0], files=['l.webp', 'u.webp']),
        scales=dict(mins=[-6.0, -7.0, -8.0], maxs=[-1.0, -2.0, -3.0], files=['s.webp']),
        quats=dict(files=['q.webp']),
        sh0=dict(mins=[-1.0, -1.5, -2.0, -5.0], maxs=[1.0, 1.5, 2.0, 5.0], files=['c.webp']),
        shN=dict(mins=-0.5, maxs=0.75, files=['p.webp', 'n.webp']))
    for name, array in dict(l=low, u=high, s=scales, q=quats, c=sh0, p=palette, n=labels).items():
        Image.fromarray(array).save(folder / f'{name}.webp', lossless=True, exact=True)
    (folder / 'meta.json').write_text(json.dumps(meta))
    expected = dict(means=[], log_scales=[], opacity_logits=[], sh=[], quats=[])
    for i in range(count):
        y, x = divmod(i, 4)
        lerp = lambda group, channel, t: group['mins'][channel] + (  # noqa: E731
            group['maxs'][channel] - group['mins'][channel]) * t
        logs = [lerp(meta['means'], a, (int(high[y, x, a]) * 256 + int(low[y, x, a])) / 65535) for a in range(3)]
        expected['means'].append([math.copysign(math.expm1(abs(v)), v) for v in logs])
        expected['log_scales'].append([lerp(meta['scales'], a, scales[y, x, a] / 255) for a in range(3)])
        expected['opacity_logits'].append(lerp(meta['sh0'], 3, sh0[y, x, 3] / 255))
        three = [(c / 255 * 2 - 1) / math.sqrt(2) for c in quats[y, x, :3].tolist()]
        three.insert(int(quats[y, x, 3]) - 252, math.sqrt(max(0, 1 - sum(q * q for q in three))))
        expected['quats'].append(three)
        label = int(labels[y, x, 0])
        expected['sh'].append([[lerp(meta['sh0'], c, sh0[y, x, c] / 255) for c in range(3)]] + [
            [-0.5 + 1.25 * int(palette[0, label * 3 + k, c]) / 255 for c in range(3)] for k in range(3)])
    return expected


def test_version_1_is_read_as_the_format_defines(tmp_path):
    expected = version_1(tmp_path)
    cloud = read_gaussians(tmp_path)
    for name, value in cloud.fields():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=3e-6, err_msg=name)


def test_a_null_in_a_codebook_is_extrapolated(random_cloud, tmp_path):
    """Some writers store null, the JSON form of a non-finite value, as the first value."""
    write_gaussians(random_cloud(50), tmp_path / 'meta.json')
    meta = json.loads((tmp_path / 'meta.json').read_text())
    codebook = meta['scales']['codebook']
    meta['scales']['codebook'] = [None, *codebook[1:]]
    (tmp_path / 'meta.json').write_text(json.dumps(meta))
    cloud = read_gaussians(tmp_path)
    assert cloud.log_scales.isfinite().all()
    assert cloud.log_scales.min().item() == pytest.approx(codebook[1] + (codebook[1] - codebook[-1]) / 256, abs=1e-5)


@pytest.mark.parametrize('change, message', [
    (lambda m: m.update(version=3), 'SOG version 3'),
    (lambda m: m.pop('scales'), 'meta.json: scales is missing, expected an object with codebook, files'),
    (lambda m: m.update(count=10_000), 'promises 10000 Gaussians'),
    (lambda m: m['means'].update(files=['means_l.webp']), 'means.files has 1 entries, expected 2'),
    (lambda m: m['quats'].update(files=['../secret.webp']), "names the file '../secret.webp'"),
    (lambda m: m['quats'].update(files=['other.webp']), 'lacks other.webp'),
    (lambda m: m['quats'].update(files=['means_l.webp']), None),
    (lambda m: m['sh0'].update(codebook=[0.0]), 'in a codebook of 1'),
    (lambda m: m['means'].update(mins=[0.0, None, 0.0]), r'means\.mins\[1\] is None, expected a number'),
])
def test_damaged_metadata_is_refused(random_cloud, tmp_path, change, message):
    write_gaussians(random_cloud(50), tmp_path / 'meta.json')
    meta = json.loads((tmp_path / 'meta.json').read_text())
    change(meta)
    (tmp_path / 'meta.json').write_text(json.dumps(meta))
    if message is None:  # opaque pixels decode as quaternions whose largest component is z
        assert len(read_gaussians(tmp_path)) == 50
        return
    with pytest.raises(ValueError, match=message):
        read_gaussians(tmp_path)


def test_a_lossy_quaternion_image_is_refused(random_cloud, tmp_path):
    write_gaussians(random_cloud(50), tmp_path / 'meta.json')
    Image.fromarray(np.full((8, 8, 4), 90, np.uint8)).save(tmp_path / 'quats.webp', lossless=True)
    with pytest.raises(ValueError, match='invalid tag in 50 of 50'):
        read_gaussians(tmp_path)


def test_equal_clouds_give_equal_files(random_cloud, tmp_path):
    for name in 'ab':
        write_gaussians(random_cloud(50, sh_degree=1), tmp_path / f'{name}.sog')
    assert (tmp_path / 'a.sog').read_bytes() == (tmp_path / 'b.sog').read_bytes()
