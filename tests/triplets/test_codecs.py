import numpy as np
import pytest
import torch

from clipgs_plugin.triplets.codecs import caption_id, decode_gaussians, decode_view, encode_gaussians, encode_view


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angle in rad between the rotations of quaternions, float64."""
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b, axis=-1, keepdims=True)
    b = np.where((a * b).sum(-1, keepdims=True) < 0, -b, b)
    return 4 * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2)


@pytest.mark.parametrize('move', [(0.0, 0.0, 0.0), (40.0, -7.0, 1e3)])
@pytest.mark.parametrize('factor', [1e-3, 1.0, 1e5])
def test_float16_errors_stay_within_the_stated_bounds(random_cloud, move, factor):
    cloud = random_cloud(2000, sh_degree=2).translate_scale(torch.tensor(move), factor)
    back = decode_gaussians(encode_gaussians(cloud))
    raw = {name: (getattr(cloud, name).double().numpy(), getattr(back, name).double().numpy())
           for name in ('means', 'quats', 'log_scales', 'opacity_logits', 'sh')}
    means, found = raw['means']
    distance = np.abs(means - means.mean(0))
    float32_rounding = 2.0 ** -24 * np.abs(means)
    assert (np.abs(found - means) <= 2.0 ** -11 * distance + 2.0 ** -24 * distance.max() + float32_rounding).all()
    assert angle(*raw['quats']).max() <= 2.0 ** -10
    for name in ('log_scales', 'opacity_logits', 'sh'):
        value, found = raw[name]
        assert (np.abs(found - value) <= 2.0 ** -11 * np.abs(value) + 2.0 ** -25).all(), name


def test_float32_keeps_every_bit(random_cloud):
    cloud = random_cloud(50, sh_degree=3)
    back = decode_gaussians(encode_gaussians(cloud, 'float32'))
    for name, value in cloud.fields():
        assert torch.equal(getattr(back, name), value)


def test_a_tiny_quaternion_and_a_single_gaussian_survive_float16(random_cloud):
    cloud = random_cloud(1)
    back = decode_gaussians(encode_gaussians(cloud.replace(quats=cloud.quats * 1e-9)))
    assert torch.equal(back.means, cloud.means)
    assert torch.allclose(back.rotations, cloud.rotations, atol=2e-3)


def test_float16_is_half_of_float32(random_cloud):
    cloud = random_cloud(4000)
    assert len(encode_gaussians(cloud)) < 0.51 * len(encode_gaussians(cloud, 'float32'))


def test_values_out_of_range_are_refused(random_cloud):
    cloud = random_cloud(3)
    with pytest.raises(ValueError, match=r"sh contains 70000.*dtype='float32'"):
        encode_gaussians(cloud.replace(sh=torch.full_like(cloud.sh, 7e4)))
    with pytest.raises(ValueError, match='means is NaN'):
        encode_gaussians(cloud.replace(means=cloud.means * float('nan')))
    with pytest.raises(ValueError, match="dtype='int8'"):
        encode_gaussians(cloud, 'int8')


def test_lossless_views_are_exact_and_lossy_views_close():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    view = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), -1)
    assert np.array_equal(decode_view(encode_view(view, None)), view)
    assert np.abs(decode_view(encode_view(view, 90)).astype(int) - view).mean() < 4


def test_caption_id_has_a_fixed_value():
    # printf 'a chair' | b2sum -l 64 prints dd7ad21c74a19f43; the id is half of its little-endian value.
    assert caption_id('a chair') == 0x439fa1741cd27add >> 1
    assert 0 <= caption_id('') < 2 ** 63
