"""Discs on a surface, fits, and their quality."""
import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from gsplat_stand_in import stand_in
from image_loops import psnr_by_formula, ssim_by_loops

from clipgs_plugin import GaussianCloud, ops
from clipgs_plugin.generation.fitting import PRESETS, FitSettings, fit, fit_many, optimise
from clipgs_plugin.generation.fitting.densify import grow
from clipgs_plugin.generation.fitting.quality import quality_of
from clipgs_plugin.generation.objects import Surface, Views
from clipgs_plugin.ops import rendering
from clipgs_plugin.ops.kernels import raster_gsplat

SIZE = 64
BACKGROUND = (1.0, 0.9, 0.8)
SHORT = FitSettings(iterations=60, check_every=0)


def sphere(count: int) -> Surface:
    """Even points on a sphere of radius 0.8, coloured by octant and darker at the poles."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - height ** 2)
    normals = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1).astype(np.float32)
    colors = np.where(normals > 0, 0.8, 0.3) * (1 - 0.5 * normals[:, 1:2] ** 2)
    return Surface(0.8 * normals, normals, colors.astype(np.float32))


def views_of(cloud: GaussianCloud, cameras: torch.Tensor, size: int = SIZE) -> Views:
    """Renders of a cloud with alpha, not premultiplied."""
    intrinsics = ops.intrinsics(40.0, size, size).expand(len(cameras), 3, 3)
    premultiplied, alpha = ops.render(cloud, cameras, intrinsics, size, size)
    images = torch.cat([premultiplied / alpha.clamp_min(1e-6)[..., None], alpha[..., None]], -1).clamp(0, 1)
    return Views(images.numpy(), cameras.numpy(), intrinsics.numpy())


@pytest.fixture(scope='module')
def start() -> GaussianCloud:
    """A few pale Gaussians near the surface."""
    surface = sphere(300)
    noise = np.random.default_rng(0).normal(0, 0.02, (300, 3)).astype(np.float32)
    return Surface(surface.positions + noise, surface.normals, 0.3 + surface.colors / 2).discs()


@pytest.fixture(scope='module')
def train() -> Views:
    return views_of(sphere(3000).discs(), ops.sphere_cameras(8, 3.0))


@pytest.fixture(scope='module')
def test_views() -> Views:
    return views_of(sphere(3000).discs(), ops.sphere_cameras(4, 3.0, elevation=(-20.0, 35.0)))


def same_bytes(a: GaussianCloud, b: GaussianCloud) -> bool:
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a.fields(), b.fields(), strict=True))


# Discs

def test_discs_lie_on_the_surface_and_reach_their_neighbours():
    surface = sphere(50)
    cloud = surface.discs()
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
    cloud = Surface(normals, normals, np.ones_like(normals)).discs()
    np.testing.assert_allclose(cloud.rotations[:, :, 2], normals, atol=1e-6)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_few_or_coinciding_points_make_valid_discs(count):
    surface = Surface(*np.broadcast_to(np.array([0, 0, 1], np.float32), (3, count, 3)))
    assert not surface.discs().validate().invalid().any()


@pytest.mark.parametrize(('field', 'value'), [('normals', np.ones((4, 3))), ('colors', np.ones((5, 4))),
                                              ('positions', np.ones((5, 2)))])
def test_surfaces_with_arrays_of_wrong_shapes_are_refused(field, value):
    with pytest.raises(ValueError, match=f'surface: {field} has shape'):
        dataclasses.replace(sphere(5), **{field: value}).discs()


def test_an_empty_surface_is_refused():
    with pytest.raises(ValueError, match='at least 1'):
        Surface(*np.zeros((3, 0, 3), np.float32)).discs()


# Quality

def test_quality_equals_plain_loops():
    views = views_of(sphere(500).discs(), ops.sphere_cameras(2, 3.0), size=32)
    rng = np.random.default_rng(0)
    images = views.images.copy()
    images[..., :3] = rng.random(images[..., :3].shape)
    views = dataclasses.replace(views, images=images)
    cloud = sphere(200).discs()
    drawn, _ = ops.render(cloud, torch.from_numpy(views.viewmats), torch.from_numpy(views.intrinsics), 32, 32,
                          BACKGROUND)
    drawn = drawn.double().clamp(0, 1).numpy()
    color, alpha = images[..., :3].astype(np.float64), images[..., 3:].astype(np.float64)
    expected = color * alpha + np.array(BACKGROUND) * (1 - alpha)
    quality = quality_of(cloud, views, BACKGROUND)
    inside = [image[..., 3] > 0.5 for image in images]
    assert 0.2 < np.mean(inside) < 0.8
    assert quality == {
        'psnr': pytest.approx(np.mean([psnr_by_formula(a, b) for a, b in zip(drawn, expected)]), abs=1e-4),
        'psnr_foreground': pytest.approx(
            np.mean([psnr_by_formula(a[m], b[m]) for a, b, m in zip(drawn, expected, inside)]), abs=1e-4),
        'ssim': pytest.approx(np.mean([ssim_by_loops(a, b) for a, b in zip(drawn, expected)]), abs=1e-5)}


def test_a_view_without_the_object_does_not_count_for_the_foreground(start, train):
    away = views_of(start, ops.look_at([[0.0, 0.0, 3.0]], [0.0, 0.0, 6.0]))
    both = Views(*(np.concatenate([getattr(a, f.name) for a in (train, away)]) for f in dataclasses.fields(Views)))
    alone, mixed = quality_of(start, train, BACKGROUND), quality_of(start, both, BACKGROUND)
    assert mixed['psnr_foreground'] == pytest.approx(alone['psnr_foreground'], abs=1e-9)
    assert mixed['psnr'] == pytest.approx((8 * alone['psnr'] + 100) / 9, abs=1e-3)  # 100 dB of nothing


@pytest.mark.parametrize(('field', 'change', 'match'), [
    ('images', lambda x: x[..., :3], 'images has shape'), ('images', lambda x: x[:0], 'images has shape'),
    ('images', lambda x: x[:, :10], 'expected at least 11 x 11'), ('viewmats', lambda x: x[1:], 'viewmats has shape'),
    ('intrinsics', lambda x: x[0], 'intrinsics has shape'), ('images', lambda x: 0 * x, 'shows the object')])
def test_invalid_views_are_refused_by_name(start, train, test_views, field, change, match):
    bad = lambda views: dataclasses.replace(views, **{field: change(getattr(views, field))})  # noqa: E731
    with pytest.raises(ValueError, match=f'train: .*{match}'):
        fit(start, bad(train), test_views, BACKGROUND, SHORT)
    with pytest.raises(ValueError, match=f'test: .*{match}'):
        fit(start, train, bad(test_views), BACKGROUND, SHORT)
    with pytest.raises(ValueError, match=f'views: .*{match}'):
        quality_of(start, bad(train), BACKGROUND)


# Fits

def test_a_fit_improves_held_out_views(start, train, test_views):
    before = quality_of(start, test_views, BACKGROUND)
    fitted = fit(start, train, test_views, BACKGROUND, SHORT)
    assert fitted.quality['psnr'] > before['psnr'] + 3
    assert fitted.quality['psnr_foreground'] > before['psnr_foreground'] + 2.5
    assert fitted.quality['ssim'] > before['ssim'] + 0.05
    assert fitted.quality == quality_of(fitted.cloud, test_views, BACKGROUND) and fitted.iterations == 60
    assert not fitted.cloud.validate().means.requires_grad


def test_the_same_seed_gives_the_same_bytes_and_the_input_is_unchanged(start, train, test_views):
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
def test_higher_degrees_learn_view_dependent_colours(degree, test_views):
    grey = dataclasses.replace(sphere(3000), colors=np.full((3000, 3), 0.5)).discs()
    shiny = grey.with_sh_degree(1)
    shiny.sh[:, 1:] = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.5, 0.0, 0.0]])
    views = views_of(shiny, ops.sphere_cameras(8, 3.0))
    held_out = views_of(shiny, torch.from_numpy(test_views.viewmats))
    settings = dataclasses.replace(SHORT, iterations=150, colors_rate=0.1)
    flat, lit = (fit(grey[::10], views, held_out, BACKGROUND, dataclasses.replace(settings, sh_degree=d))
                 for d in (0, degree))
    assert lit.cloud.sh.shape == (len(lit.cloud), (degree + 1) ** 2, 3)
    assert lit.quality['psnr_foreground'] > flat.quality['psnr_foreground'] + 2


def test_only_transparent_gaussians_are_pruned(start, train, test_views):
    hidden = start.replace(means=0.1 * start.means, opacity_logits=torch.full_like(start.opacity_logits, -7.0))
    both = GaussianCloud(*(torch.cat([a, b]) for (_, a), (_, b) in zip(start.fields(), hidden.fields())))
    assert len(fit(both, train, test_views, BACKGROUND, SHORT).cloud) == len(start)
    kept = fit(both, train, test_views, BACKGROUND, dataclasses.replace(SHORT, prune_opacity=0.0)).cloud
    assert len(kept) == len(both)


@pytest.mark.parametrize(('option', 'value'), [('opacity_weight', lambda x: x.opacities.mean()),
                                               ('scale_weight', lambda x: x.scales.mean())])
def test_loss_weights_lower_their_terms(option, value, start, train, test_views):
    free, held = (fit(start, train, test_views, BACKGROUND, dataclasses.replace(SHORT, **{option: weight})).cloud
                  for weight in (0.0, 0.5))
    assert value(held) < 0.95 * value(free)


def test_ssim_in_the_loss_raises_ssim(start, train, test_views):
    absolute, similar = (fit(start, train, test_views, BACKGROUND, dataclasses.replace(SHORT, ssim_weight=weight))
                         for weight in (0.0, 0.5))
    assert similar.quality['ssim'] > absolute.quality['ssim']


def test_a_fit_stops_when_held_out_psnr_stagnates(start, train, test_views):
    settings = dataclasses.replace(SHORT, iterations=100, check_every=10)
    eager = fit(start, train, test_views, BACKGROUND, dataclasses.replace(settings, min_gain=50.0))
    assert eager.iterations == 30  # a check, a check without gain, and the end of the decay
    patient = fit(start, train, test_views, BACKGROUND, dataclasses.replace(settings, min_gain=-50.0))
    assert patient.iterations == 100


# Several objects at once

SMALL = 24  # pixels


@pytest.fixture(scope='module')
def trio(start) -> tuple[list[GaussianCloud], list[Views], list[Views]]:
    """Objects of different colours and numbers of Gaussians and views; the last has larger images."""
    clouds, trains, tests = [start[::3], start[1::4], start[2::5]], [], []
    for i, size in enumerate((SMALL, SMALL, SMALL + 8)):
        surface = sphere(1000)
        true = dataclasses.replace(surface, colors=np.roll(surface.colors, i, 1) * (1 - 0.3 * i)).discs()
        trains.append(views_of(true, ops.sphere_cameras(4 + i, 3.0), size))
        tests.append(views_of(true, ops.sphere_cameras(2, 3.0, elevation=(-20.0, 35.0)), size))
    return clouds, trains, tests


@pytest.mark.parametrize('options', [{}, dict(sh_degree=1), dict(check_every=10, min_gain=1.0),
                                     dict(max_gaussians=150, grow_every=5, grow_until=0.5, opacity_weight=0.1,
                                          scale_weight=0.1)])
def test_an_object_has_the_same_result_in_a_batch_and_alone(trio, options):
    settings, seeds = FitSettings(**dict(num_gaussians=60, iterations=30, check_every=0) | options), [3, 1, 4]
    together = fit_many(*trio, BACKGROUND, settings, seeds)
    alone = [fit(cloud, train, test, BACKGROUND, settings, seed) for cloud, train, test, seed in zip(*trio, seeds)]
    for a, b in zip(together, alone, strict=True):
        assert same_bytes(a.cloud, b.cloud) and a.quality == b.quality and a.iterations == b.iterations
    assert not same_bytes(together[1].cloud, fit_many(*trio, BACKGROUND, settings, [3, 2, 4])[1].cloud)


def test_ssim_in_the_loss_of_a_batch_is_the_sum_over_its_objects(trio):
    settings = FitSettings(iterations=20, ssim_weight=0.5)
    together = fit_many(*trio, BACKGROUND, settings, [0, 0, 0])
    for found, cloud, train, test in zip(together, *trio, strict=True):
        expected = fit(cloud, train, test, BACKGROUND, settings).cloud
        for (name, a), (_, b) in zip(found.cloud.fields(), expected.fields(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-3, msg=name)  # batched matrix products round differently


def test_each_object_of_a_batch_stops_by_itself(trio):
    (clouds, trains, tests), settings = trio, FitSettings(iterations=60, check_every=10, min_gain=0.1)
    blank = dataclasses.replace(tests[1], images=np.concatenate([0 * tests[1].images[..., :3],
                                                                 1 + 0 * tests[1].images[..., 3:]], -1))
    found = fit_many(clouds, trains, [tests[0], blank, tests[2]], BACKGROUND, settings, [0, 0, 0])
    assert found[1].iterations < min(found[0].iterations, found[2].iterations)
    assert found[1].iterations % 10 == 0 and found[1].iterations >= 30


def test_on_cuda_a_step_is_one_call_for_all_objects(monkeypatch, trio):
    pair, settings = [x[:2] for x in trio], FitSettings(iterations=6, check_every=0)
    expected = fit_many(*pair, BACKGROUND, settings, [0, 1])
    gsplat, calls = stand_in()
    monkeypatch.setitem(sys.modules, 'gsplat', gsplat)
    monkeypatch.setattr(rendering, 'load_backend', lambda *_: raster_gsplat)
    found = fit_many(*pair, BACKGROUND, settings, [0, 1])
    assert calls == 6 * [(2,)] + 2 * [()]  # held-out views are rendered object by object
    for a, b in zip(found, expected, strict=True):
        assert a.quality['psnr'] == pytest.approx(b.quality['psnr'], abs=0.01)
        for (name, x), (_, y) in zip(a.cloud.fields(), b.cloud.fields(), strict=True):
            step = {'means': 6e-3, 'quats': 6e-2, 'log_scales': 0.18, 'opacity_logits': 0.3, 'sh': 0.18}[name]
            assert (x - y).abs().mean() < 0.02 * step, name  # six steps of Adam at most move this far


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_a_batch_is_fitted_on_cuda(trio):
    pytest.importorskip('gsplat')
    settings, (clouds, *views) = FitSettings(num_gaussians=60, max_gaussians=150, iterations=60, grow_every=5), trio
    found = fit_many([cloud.cuda() for cloud in clouds], *views, BACKGROUND, settings, [0, 1, 2])
    for a, b in zip(found, fit_many(*trio, BACKGROUND, settings, [0, 1, 2]), strict=True):
        assert a.cloud.device.type == 'cuda' and a.quality['psnr'] == pytest.approx(b.quality['psnr'], abs=0.5)


def test_a_batch_may_be_empty_and_errors_name_the_object(trio):
    clouds, trains, tests = trio
    assert fit_many([], [], [], BACKGROUND, SHORT, []) == []
    with pytest.raises(ValueError, match='have 3, 3, 3 and 1 entries'):
        fit_many(clouds, trains, tests, BACKGROUND, SHORT, [0])
    black = dataclasses.replace(trains[1], images=0 * trains[1].images)
    with pytest.raises(ValueError, match='train of object 1: none of 5 images shows the object'):
        fit_many(clouds, [trains[0], black, trains[2]], tests, BACKGROUND, SHORT, [0, 0, 0])


# Growth

GROWING = FitSettings(num_gaussians=75, max_gaussians=300, iterations=60, check_every=0, grow_every=10,
                      grow_until=0.5)


@pytest.fixture(scope='module')
def few(start) -> GaussianCloud:
    return start[::4]


def test_growth_reaches_its_count_and_improves_the_fit(few, train, test_views):
    fixed = fit(few, train, test_views, BACKGROUND, dataclasses.replace(GROWING, max_gaussians=None))
    grown, again = (fit(few, train, test_views, BACKGROUND, GROWING) for _ in range(2))
    assert len(fixed.cloud) == 75 and len(grown.cloud) == 300
    assert grown.quality['psnr'] > fixed.quality['psnr'] + 0.5
    assert same_bytes(grown.cloud, again.cloud)


def test_growth_stays_within_its_bounds(few, start, train, test_views):
    for most, every, expected in ((76, 10, 76), (100, 30, 100), (500, 10, 500), (75, 10, 75)):
        settings = dataclasses.replace(GROWING, max_gaussians=most, grow_every=every, prune_opacity=0.0)
        assert len(fit(few, train, test_views, BACKGROUND, settings).cloud) == expected
    assert len(fit(start, train, test_views, BACKGROUND, GROWING).cloud) == 300  # the maximum already: no growth
    twofold = dataclasses.replace(GROWING, max_gaussians=150, grow_every=30)
    assert len(fit(few[:10], train, test_views, BACKGROUND, twofold).cloud) == 20  # once, twofold at most


def test_growth_ends_at_the_target_psnr(few, train, test_views):
    counts = [len(fit(few, train, test_views, BACKGROUND, dataclasses.replace(GROWING, target_psnr=target)).cloud)
              for target in (1.0, 22.0, 99.0)]
    assert counts[0] == 75 and counts[2] == 300 and counts == sorted(counts)
    poor = dataclasses.replace(GROWING, target_psnr=1.0, max_gaussians=300)
    assert same_bytes(fit(few, train, test_views, BACKGROUND, poor).cloud,
                      fit(few, train, test_views, BACKGROUND, dataclasses.replace(GROWING, max_gaussians=None)).cloud)


def test_a_growing_object_does_not_stop_early(few, train, test_views):
    settings = dataclasses.replace(GROWING, check_every=5, min_gain=50.0)
    grown = fit(few, train, test_views, BACKGROUND, settings)
    assert grown.iterations == 30 and len(grown.cloud) == 300  # the last growth at 20, a check at 25, the end


def test_the_halves_of_a_split_gaussian_keep_its_moments_and_appearance(few):
    score = torch.arange(75.0)
    grown, kept = grow(few, score, 100, 0.0)
    assert kept.tolist() == list(range(50)) and len(grown) == 100
    assert same_bytes(grown[:50], few[:50])
    for i in range(25):  # moments of the mixture of the two halves of Gaussian 74 - i
        whole, halves = few[74 - i], grown[[50 + i, 75 + i]]
        torch.testing.assert_close(halves.means.mean(0), whole.means[0], rtol=0, atol=1e-6)
        offsets = halves.means - whole.means
        spread = halves.covariances.mean(0) + torch.einsum('ni,nj->ij', offsets, offsets) / 2
        torch.testing.assert_close(spread, whole.covariances[0], rtol=1e-3, atol=1e-9)
        assert torch.equal(halves.sh, whole.sh.expand(2, -1, -1))
        assert torch.equal(halves.opacity_logits, whole.opacity_logits.expand(2))


def test_faded_gaussians_make_room_for_new_ones(few):
    faded = few.opacity_logits.clone()
    faded[5:8] = -9.0
    cloud = few.replace(opacity_logits=faded)
    grown, kept = grow(cloud, torch.arange(75.0), 100, 0.005)
    assert len(grown) == 100 and kept.tolist() == [*range(5), *range(8, 47)]  # 3 fewer, 28 split
    assert bool((grown.opacities > 0.5).all())
    hopeless = few.replace(opacity_logits=torch.full_like(few.opacity_logits, -9.0))
    assert len(grow(hopeless, torch.ones(75), 150, 0.005)[0]) == 150


def test_unchanged_gaussians_keep_their_moments_in_adam(monkeypatch, few, train, test_views):
    seen, stayed = [], []

    class Watched(torch.optim.Adam):
        def step(self):
            super().step()
            means = next(group['params'][0] for group in self.param_groups if group['params'][0].shape[1:] == (3,))
            seen.append({key: value.double() for key, value in self.state[means].items()})

    def watched(*arguments):
        grown, kept = grow(*arguments)
        stayed.append(kept)
        return grown, kept

    monkeypatch.setattr(torch.optim, 'Adam', Watched)
    monkeypatch.setattr(optimise, 'grow', watched)
    fit(few, train, test_views, BACKGROUND, dataclasses.replace(GROWING, max_gaussians=100, iterations=20))
    (kept,), before, after = stayed, seen[9], seen[10]
    assert len(before['exp_avg']) == 75 and len(after['exp_avg']) == 100 and after['step'] == 11
    first, second = torch.zeros(2, 100, 3, dtype=torch.float64)
    first[:len(kept)], second[:len(kept)] = before['exp_avg'][kept], before['exp_avg_sq'][kept]
    gradient = (after['exp_avg'] - 0.9 * first) / 0.1
    expected = 0.999 * second + 0.001 * gradient ** 2
    torch.testing.assert_close(after['exp_avg_sq'], expected, rtol=1e-4, atol=1e-14)
    assert bool(before['exp_avg_sq'][kept].any())


@pytest.mark.parametrize(('option', 'value'), [
    ('num_gaussians', 0), ('iterations', 0), ('sh_degree', 4), ('ssim_weight', 1.5), ('prune_opacity', -0.1),
    ('opacity_weight', -1.0), ('means_rate', -1e-3), ('decay', 0.0), ('grow_until', 1.5), ('grow_every', 0),
    ('max_gaussians', 9_999), ('max_gaussians', 4_000_000), ('target_psnr', 30.0)])
def test_settings_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f'{option}={value}'):
        dataclasses.replace(PRESETS['default'], **{option: value})
