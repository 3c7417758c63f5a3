"""Discs from a surface, the fit, and the measures of quality."""
import dataclasses
import math

import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud, ops
from clipgs_plugin.triplets.fitting import PRESETS, FitSettings, fit, initialise, quality_of
from clipgs_plugin.triplets.objects import Surface, Views

SIZE = 64
BACKGROUND = (1.0, 0.9, 0.8)
SHORT = FitSettings(iterations=60, check_every=0)


def sphere(count: int) -> Surface:
    """Even points of a sphere of radius 0.8 in the colours of its octants, darker at its poles."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - height ** 2)
    normals = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1).astype(np.float32)
    colors = np.where(normals > 0, 0.8, 0.3) * (1 - 0.5 * normals[:, 1:2] ** 2)
    return Surface(0.8 * normals, normals, colors.astype(np.float32))


def views_of(cloud: GaussianCloud, cameras: torch.Tensor, size: int = SIZE) -> Views:
    """Pictures of a cloud with alpha, not premultiplied."""
    intrinsics = ops.intrinsics(40.0, size, size).expand(len(cameras), 3, 3)
    premultiplied, alpha = ops.render(cloud, cameras, intrinsics, size, size)
    images = torch.cat([premultiplied / alpha.clamp_min(1e-6)[..., None], alpha[..., None]], -1).clamp(0, 1)
    return Views(images.numpy(), cameras.numpy(), intrinsics.numpy())


@pytest.fixture(scope='module')
def start() -> GaussianCloud:
    """Few Gaussians, pale, and somewhat off the surface."""
    surface = sphere(300)
    noise = np.random.default_rng(0).normal(0, 0.02, (300, 3)).astype(np.float32)
    return initialise(Surface(surface.positions + noise, surface.normals, 0.3 + surface.colors / 2))


@pytest.fixture(scope='module')
def train() -> Views:
    return views_of(initialise(sphere(3000)), ops.sphere_cameras(8, 3.0))


@pytest.fixture(scope='module')
def test_views() -> Views:
    return views_of(initialise(sphere(3000)), ops.sphere_cameras(4, 3.0, elevation=(-20.0, 35.0)))


def same_bytes(a: GaussianCloud, b: GaussianCloud) -> bool:
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.fields(), b.fields(), strict=True))


# Discs

def test_discs_lie_on_the_surface_and_reach_their_neighbours():
    surface = sphere(50)
    cloud = initialise(surface)
    points = surface.positions.astype(np.float64)
    for i, point in enumerate(points):
        near = sorted(((other - point) ** 2).sum() for other in points)[1:4]
        sigma = 0.6 * math.sqrt(sum(near) / 3)
        np.testing.assert_allclose(cloud.scales[i, :2], sigma, rtol=1e-5)
        assert cloud.scales[i, 2] < 0.2 * sigma
    np.testing.assert_allclose(cloud.rotations[:, :, 2], surface.normals, atol=1e-6)
    np.testing.assert_allclose(cloud.rgb, surface.colors, atol=1e-6)
    assert torch.equal(cloud.means, torch.from_numpy(surface.positions))
    assert cloud.sh_degree == 0 and bool((cloud.opacities > 0.8).all())


def test_a_disc_may_face_any_axis():
    normals = np.array([[0, 0, 1], [0, 0, -1], [0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0]], np.float32)
    cloud = initialise(Surface(normals, normals, np.ones_like(normals)))
    np.testing.assert_allclose(cloud.rotations[:, :, 2], normals, atol=1e-6)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_few_points_and_points_in_one_place_make_discs_that_can_be_drawn(count):
    surface = Surface(*np.broadcast_to(np.array([0, 0, 1], np.float32), (3, count, 3)))
    assert not initialise(surface).validate().invalid().any()


@pytest.mark.parametrize(('field', 'value'), [('normals', np.ones((4, 3))), ('colors', np.ones((5, 4))),
                                              ('positions', np.ones((5, 2)))])
def test_a_surface_whose_arrays_do_not_fit_is_refused(field, value):
    with pytest.raises(ValueError, match=f'surface: {field} has shape'):
        initialise(dataclasses.replace(sphere(5), **{field: value}))


def test_an_empty_surface_is_refused():
    with pytest.raises(ValueError, match='at least 1'):
        initialise(Surface(*np.zeros((3, 0, 3), np.float32)))


# Quality

def plain_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(1 / np.mean((a - b) ** 2))


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window and channel by channel, in float64."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5 ** 2))
    weights /= weights.sum()
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            for c in range(3):
                p, q = a[y:y + 11, x:x + 11, c], b[y:y + 11, x:x + 11, c]
                mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
                var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
                covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
                values.append((2 * mean_p * mean_q + 1e-4) * (2 * covariance + 9e-4)
                              / ((mean_p ** 2 + mean_q ** 2 + 1e-4) * (var_p + var_q + 9e-4)))
    return float(np.mean(values))


def test_quality_is_that_of_plain_loops():
    views = views_of(initialise(sphere(500)), ops.sphere_cameras(2, 3.0), size=32)
    rng = np.random.default_rng(0)
    images = views.images.copy()
    images[..., :3] = rng.random(images[..., :3].shape)
    views = dataclasses.replace(views, images=images)
    cloud = initialise(sphere(200))
    drawn, _ = ops.render(cloud, torch.from_numpy(views.viewmats), torch.from_numpy(views.intrinsics), 32, 32,
                          BACKGROUND)
    drawn = drawn.double().clamp(0, 1).numpy()
    color, alpha = images[..., :3].astype(np.float64), images[..., 3:].astype(np.float64)
    expected = color * alpha + np.array(BACKGROUND) * (1 - alpha)
    quality = quality_of(cloud, views, BACKGROUND)
    inside = [image[..., 3] > 0.5 for image in images]
    assert 0.2 < np.mean(inside) < 0.8
    assert quality == {
        'psnr': pytest.approx(np.mean([plain_psnr(a, b) for a, b in zip(drawn, expected)]), abs=1e-4),
        'psnr_foreground': pytest.approx(np.mean([plain_psnr(a[m], b[m]) for a, b, m in zip(drawn, expected, inside)]),
                                         abs=1e-4),
        'ssim': pytest.approx(np.mean([plain_ssim(a, b) for a, b in zip(drawn, expected)]), abs=1e-5)}


def test_a_view_without_the_object_has_no_part_in_the_foreground(start, train):
    away = views_of(start, ops.look_at([[0.0, 0.0, 3.0]], [0.0, 0.0, 6.0]))
    both = Views(*(np.concatenate([getattr(a, f.name) for a in (train, away)]) for f in dataclasses.fields(Views)))
    alone, mixed = quality_of(start, train, BACKGROUND), quality_of(start, both, BACKGROUND)
    assert mixed['psnr_foreground'] == pytest.approx(alone['psnr_foreground'], abs=1e-9)
    assert mixed['psnr'] == pytest.approx((8 * alone['psnr'] + 100) / 9, abs=1e-3)  # nothing drawn, nothing to see


@pytest.mark.parametrize(('field', 'change', 'match'), [
    ('images', lambda x: x[..., :3], 'images has shape'), ('images', lambda x: x[:0], 'images has shape'),
    ('images', lambda x: x[:, :10], 'expected at least 11 x 11'), ('viewmats', lambda x: x[1:], 'viewmats has shape'),
    ('intrinsics', lambda x: x[0], 'intrinsics has shape'), ('images', lambda x: 0 * x, 'shows the object')])
def test_views_that_cannot_be_used_are_refused_by_name(start, train, test_views, field, change, match):
    bad = lambda views: dataclasses.replace(views, **{field: change(getattr(views, field))})  # noqa: E731
    with pytest.raises(ValueError, match=f'train: .*{match}'):
        fit(start, bad(train), test_views, BACKGROUND, SHORT)
    with pytest.raises(ValueError, match=f'test: .*{match}'):
        fit(start, train, bad(test_views), BACKGROUND, SHORT)
    with pytest.raises(ValueError, match=f'views: .*{match}'):
        quality_of(start, bad(train), BACKGROUND)


# Fits

def test_a_fit_looks_more_like_views_it_has_not_seen(start, train, test_views):
    before = quality_of(start, test_views, BACKGROUND)
    fitted = fit(start, train, test_views, BACKGROUND, SHORT)
    assert fitted.quality['psnr'] > before['psnr'] + 3
    assert fitted.quality['psnr_foreground'] > before['psnr_foreground'] + 2.5
    assert fitted.quality['ssim'] > before['ssim'] + 0.05
    assert fitted.quality == quality_of(fitted.cloud, test_views, BACKGROUND) and fitted.iterations == 60
    assert not fitted.cloud.validate().means.requires_grad


def test_the_same_seed_gives_the_same_bytes_and_leaves_its_input_alone(start, train, test_views):
    settings = dataclasses.replace(SHORT, iterations=20, sh_degree=1)
    before = start.apply(torch.clone)
    one, two, other = (fit(start, train, test_views, BACKGROUND, settings, seed).cloud for seed in (3, 3, 4))
    assert same_bytes(one, two) and not same_bytes(one, other)
    assert same_bytes(start, before)


def test_held_out_views_are_not_fitted(start, train, test_views):
    settings = dataclasses.replace(SHORT, iterations=20)
    others = dataclasses.replace(test_views, images=np.ones_like(test_views.images))
    assert same_bytes(fit(start, train, test_views, BACKGROUND, settings).cloud,
                      fit(start, train, others, BACKGROUND, settings).cloud)


@pytest.mark.parametrize('degree', [1, 2, 3])
def test_higher_degrees_learn_what_changes_with_the_direction(degree, test_views):
    grey = initialise(dataclasses.replace(sphere(3000), colors=np.full((3000, 3), 0.5)))
    shiny = grey.with_sh_degree(1)
    shiny.sh[:, 1:] = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.5, 0.0, 0.0]])
    views = views_of(shiny, ops.sphere_cameras(8, 3.0))
    held_out = views_of(shiny, torch.from_numpy(test_views.viewmats))
    settings = dataclasses.replace(SHORT, iterations=150, colors_rate=0.1)
    flat, lit = (fit(grey[::10], views, held_out, BACKGROUND, dataclasses.replace(settings, sh_degree=d))
                 for d in (0, degree))
    assert lit.cloud.sh.shape == (len(lit.cloud), (degree + 1) ** 2, 3)
    assert lit.quality['psnr_foreground'] > flat.quality['psnr_foreground'] + 2


def test_transparent_gaussians_are_left_out_and_no_others(start, train, test_views):
    hidden = start.replace(means=0.1 * start.means, opacity_logits=torch.full_like(start.opacity_logits, -7.0))
    both = GaussianCloud(*(torch.cat([a, b]) for (_, a), (_, b) in zip(start.fields(), hidden.fields())))
    assert len(fit(both, train, test_views, BACKGROUND, SHORT).cloud) == len(start)
    kept = fit(both, train, test_views, BACKGROUND, dataclasses.replace(SHORT, prune_opacity=0.0)).cloud
    assert len(kept) == len(both)


@pytest.mark.parametrize(('option', 'value'), [('opacity_weight', lambda x: x.opacities.mean()),
                                               ('scale_weight', lambda x: x.scales.mean())])
def test_weights_in_the_loss_lower_what_they_weigh(option, value, start, train, test_views):
    free, held = (fit(start, train, test_views, BACKGROUND, dataclasses.replace(SHORT, **{option: weight})).cloud
                  for weight in (0.0, 0.5))
    assert value(held) < 0.95 * value(free)


def test_ssim_in_the_loss_raises_ssim(start, train, test_views):
    absolute, similar = (fit(start, train, test_views, BACKGROUND, dataclasses.replace(SHORT, ssim_weight=weight))
                         for weight in (0.0, 0.5))
    assert similar.quality['ssim'] > absolute.quality['ssim']


def test_a_fit_stops_once_held_out_views_gain_nothing(start, train, test_views):
    settings = dataclasses.replace(SHORT, iterations=100, check_every=10)
    eager = fit(start, train, test_views, BACKGROUND, dataclasses.replace(settings, min_gain=50.0))
    assert eager.iterations == 30  # a look, one that finds no gain, and the end at falling rates
    patient = fit(start, train, test_views, BACKGROUND, dataclasses.replace(settings, min_gain=-50.0))
    assert patient.iterations == 100


@pytest.mark.parametrize(('option', 'value'), [
    ('num_gaussians', 0), ('iterations', 0), ('sh_degree', 4), ('ssim_weight', 1.5), ('prune_opacity', -0.1),
    ('opacity_weight', -1.0), ('means_rate', -1e-3), ('decay', 0.0)])
def test_settings_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f'{option}={value}'):
        dataclasses.replace(PRESETS['default'], **{option: value})
