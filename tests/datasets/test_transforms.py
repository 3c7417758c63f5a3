import math

import numpy as np
import pytest
import torch
from conftest import duplicated, grid

from clipgs_plugin import GaussianCloud, write_gaussians
from clipgs_plugin.datasets import transforms as T
from clipgs_plugin.registry import TRANSFORMS


def apply(transform, cloud: GaussianCloud, seed: int = 0) -> GaussianCloud:
    return transform(dict(gaussians=cloud, rng=np.random.default_rng(seed)))['gaussians']


def moved(before: GaussianCloud, after: GaussianCloud) -> np.ndarray:
    """Return the matrix that maps the means, by least squares, (3, 3) float64."""
    solution = np.linalg.lstsq(before.means.double().numpy(), after.means.double().numpy(), rcond=None)[0]
    return solution.T


def rows(cloud: GaussianCloud) -> list[list[float]]:
    """Return the Gaussians as rows, sorted."""
    return sorted(torch.cat([value.flatten(1) if value.ndim > 1 else value[:, None] for _, value in cloud.fields()],
                            dim=1).tolist())


def covariances(cloud: GaussianCloud) -> np.ndarray:
    return cloud.to(torch.float64).covariances.numpy()


def assert_turned(before: GaussianCloud, after: GaussianCloud, matrix: np.ndarray) -> None:
    """Check that means, covariances and colours from any direction follow the matrix."""
    assert np.allclose(after.means.numpy(), before.means.double().numpy() @ matrix.T, atol=1e-5)
    assert np.allclose(covariances(after), matrix @ covariances(before) @ matrix.T, atol=1e-6)
    directions = np.random.default_rng(0).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    unit = matrix / abs(np.linalg.det(matrix)) ** (1 / 3)
    assert np.allclose(degree_one_colours(after, directions @ unit.T), degree_one_colours(before, directions),
                       atol=1e-5)


def degree_one_colours(cloud: GaussianCloud, directions: np.ndarray) -> np.ndarray:
    """Return the colours of SH bands 0 and 1 along unit directions, (V, N, 3), as the INRIA code defines them."""
    sh = cloud.sh.double().numpy()
    x, y, z = (directions[:, None, i, None] for i in range(3))
    return 0.28209479177387814 * sh[:, 0] + 0.4886025119029199 * (-y * sh[:, 1] + z * sh[:, 2] - x * sh[:, 3])


@pytest.mark.parametrize('axis, column', [('x', 0), ('y', 1), ('z', 2)])
def test_rotation_about_an_axis_rotates_everything_and_keeps_the_axis(random_cloud, axis, column):
    cloud = random_cloud(60, sh_degree=1)
    angles = []
    for seed in range(30):
        turned = apply(T.RotateGaussians(axis, max_angle=50), cloud, seed)
        matrix = moved(cloud, turned)
        assert_turned(cloud, turned, matrix)
        assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-5) and np.linalg.det(matrix) > 0
        assert np.allclose(matrix[:, column], np.eye(3)[column], atol=1e-5)
        angles.append(math.degrees(math.acos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))))
    assert max(angles) <= 50.01 and max(angles) > 35 and min(angles) < 15


def test_rotations_about_any_axis_are_uniform(random_cloud):
    cloud = random_cloud(8)
    matrices = np.stack([moved(cloud, apply(T.RotateGaussians('any'), cloud, seed)) for seed in range(800)])
    # Haar measure: entries average 0 with variance 1/3, and the angle has density (1 - cos) / pi, mean pi/2 + 2/pi.
    assert np.abs(matrices.mean(0)).max() < 4 * math.sqrt(1 / 3 / 800)
    assert np.abs((matrices ** 2).mean(0) - 1 / 3).max() < 0.05
    angles = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.08)


def test_small_rotations_about_any_axis_are_small(random_cloud):
    cloud = random_cloud(8)
    for seed in range(20):
        matrix = moved(cloud, apply(T.RotateGaussians('any', max_angle=10), cloud, seed))
        assert math.degrees(math.acos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))) <= 10.01


AXES = {'x': (1, 0, 0), 'y': (0, 1, 0), 'z': (0, 0, 1), '-x': (-1, 0, 0), '-y': (0, -1, 0), '-z': (0, 0, -1)}


@pytest.mark.parametrize('source', AXES)
@pytest.mark.parametrize('target', AXES)
def test_change_up_is_the_smallest_rotation_between_the_axes(random_cloud, source, target):
    matrix = T.up_matrix(source, target).numpy()
    assert np.array_equal(matrix @ AXES[source], AXES[target])
    assert np.array_equal(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)
    # The trace of a rotation by an angle a is 1 + 2 cos(a), and the angle is that between the axes.
    assert np.trace(matrix) == pytest.approx(1 + 2 * np.dot(AXES[source], AXES[target]))
    cloud = random_cloud(20, sh_degree=1)
    assert_turned(cloud, apply(T.ChangeUp(source, target), cloud), matrix)


def test_z_up_to_y_up_keeps_x(random_cloud):
    cloud = random_cloud(5)
    means = apply(T.ChangeUp('z', 'y'), cloud).means
    assert torch.allclose(means, cloud.means[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0]))


def test_swapping_axes_mirrors_the_object_and_keeps_rotations_proper(random_cloud):
    cloud = random_cloud(40, sh_degree=1)
    swapped = apply(T.ChangeUp('y', 'z', swap=True), cloud)
    assert torch.allclose(swapped.means, cloud.means[:, [0, 2, 1]])
    assert_turned(cloud, swapped, np.eye(3)[[0, 2, 1]])
    assert torch.allclose(torch.linalg.det(swapped.rotations), torch.ones(40), atol=1e-5)
    back = apply(T.ChangeUp('y', 'z', swap=True), swapped)
    assert_turned(cloud, back, np.eye(3))


@pytest.mark.parametrize('arguments', [('up', 'y'), ('y', 'y', True), ('-y', 'z', True)])
def test_invalid_up_axes_are_refused(arguments):
    with pytest.raises(ValueError, match=r'expected one of|expected two different axes'):
        T.ChangeUp(*arguments)


def test_scaling_scales_extents_and_stays_in_range(random_cloud):
    cloud = random_cloud(30)
    factors = []
    for seed in range(200):
        scaled = apply(T.ScaleGaussians(0.5, 2.0), cloud, seed)
        factor = float((scaled.means / cloud.means).median())
        assert np.allclose(covariances(scaled), factor ** 2 * covariances(cloud), rtol=1e-4)
        factors.append(factor)
    assert min(factors) >= 0.5 * (1 - 1e-5) and max(factors) <= 2 * (1 + 1e-5)
    assert np.mean(np.array(factors) < 1) == pytest.approx(0.5, abs=0.15)


def test_jitter_moves_only_positions_and_at_most_by_the_clip(random_cloud):
    cloud = random_cloud(3000)
    moved_cloud = apply(T.JitterGaussians(sigma=0.01, clip=0.02), cloud)
    step = (moved_cloud.means - cloud.means).double()
    assert step.abs().max() <= 0.02 + 1e-6
    # Standard deviation of a normal variable clipped at 2 sigma: 0.0096.
    assert step.std().item() == pytest.approx(0.0096, abs=3e-4)
    assert torch.equal(moved_cloud.quats, cloud.quats) and torch.equal(moved_cloud.log_scales, cloud.log_scales)


def test_dropped_colour_is_grey_with_the_given_probability(random_cloud):
    cloud = random_cloud(5, sh_degree=2)
    grey = [apply(T.DropColor(0.3), cloud, seed) for seed in range(400)]
    dropped = [g for g in grey if not torch.equal(g.sh, cloud.sh)]
    assert len(dropped) == pytest.approx(120, abs=35)
    assert torch.allclose(dropped[0].rgb, torch.full((5, 3), 0.4)) and not dropped[0].sh[:, 1:].any()


def test_opacity_filter_keeps_opaque_gaussians_in_order(random_cloud):
    cloud = random_cloud(200)
    expected = [i for i in range(200) if 1 / (1 + math.exp(-float(cloud.opacity_logits[i]))) >= 0.5]
    assert torch.equal(apply(T.FilterOpacity(0.5), cloud).means, cloud.means[expected])


def test_opacity_filter_keeps_the_threshold_itself(random_cloud):
    cloud = random_cloud(3).replace(opacity_logits=torch.tensor([0.0, -1e-3, 1e-3]))  # the first opacity is 0.5
    assert torch.equal(apply(T.FilterOpacity(0.5), cloud).means, cloud.means[[0, 2]])


@pytest.mark.parametrize('minimum', [1, 3, 50])
def test_opacity_filter_never_empties_an_object(random_cloud, minimum):
    cloud = random_cloud(20)
    kept = apply(T.FilterOpacity(1.0, minimum), cloud)
    expected = sorted(range(20), key=lambda i: -float(cloud.opacity_logits[i]))[:minimum]
    assert torch.equal(kept.means, cloud.means[sorted(expected)])


@pytest.mark.parametrize('method', ['random', 'importance', 'fps'])
def test_sampling_selects_distinct_gaussians_in_their_order(random_cloud, method):
    cloud = random_cloud(300)
    sampled = apply(T.SampleGaussians(50, method), cloud)
    where = [int((cloud.means == mean).all(-1).nonzero()) for mean in sampled.means]
    assert where == sorted(set(where)) and len(where) == 50
    assert torch.equal(sampled.sh, cloud.sh[where])
    assert torch.equal(apply(T.SampleGaussians(50, method), cloud).means, sampled.means)
    small = random_cloud(50)
    assert apply(T.SampleGaussians(50, method), small) is small


def test_importance_is_opacity_times_largest_cross_section(random_cloud):
    """First samples follow the weights; the largest section of an ellipsoid has area pi times its two largest axes."""
    cloud = random_cloud(6)
    scales = np.sort(cloud.scales.double().numpy(), axis=-1)
    weights = cloud.opacities.double().numpy() * scales[:, 1] * scales[:, 2]
    expected = weights / weights.sum()
    picks = np.zeros(6)
    for seed in range(1200):
        mean = apply(T.SampleGaussians(1, 'importance'), cloud, seed).means
        picks += (cloud.means == mean).all(-1).numpy()
    assert np.abs(picks / 1200 - expected).max() < 4 * math.sqrt(0.25 / 1200)


def test_random_sampling_is_uniform(random_cloud):
    cloud = random_cloud(6)
    counts = np.zeros(6)
    for seed in range(1000):
        sampled = apply(T.SampleGaussians(3), cloud, seed)
        counts += (cloud.means[:, None] == sampled.means).all(-1).any(1).numpy()
    assert np.abs(counts / 1000 - 0.5).max() < 4 * math.sqrt(0.25 / 1000)


def test_fps_covers_better_than_random_sampling(random_cloud):
    cloud = random_cloud(500)
    radius = {method: torch.cdist(cloud.means, apply(T.SampleGaussians(40, method), cloud).means).min(1).values.max()
              for method in ('random', 'fps')}
    assert radius['fps'] < 0.8 * radius['random']


@pytest.mark.parametrize('kind', ['grid', 'duplicated', 'coincident', 'quantised'])
def test_fps_does_not_depend_on_the_order_of_the_file(random_cloud, kind):
    """Ties between distances are frequent on quantised means; the content of the Gaussians breaks them."""
    cloud = {'grid': grid(), 'duplicated': duplicated(random_cloud(120, seed=5)),
             'coincident': random_cloud(90).replace(means=torch.zeros(90, 3)),
             'quantised': random_cloud(400).replace(means=(random_cloud(400).means * 8).round() / 8)}[kind]
    expected = rows(apply(T.SampleGaussians(60, 'fps'), cloud))
    for seed in range(4):
        shuffled = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))]
        assert rows(apply(T.SampleGaussians(60, 'fps'), shuffled)) == expected


def test_a_file_is_loaded_and_a_loaded_object_is_kept(tmp_path, random_cloud):
    cloud = random_cloud(9, sh_degree=3)
    write_gaussians(cloud, tmp_path / 'a.ply')
    loaded = T.LoadGaussians(sh_degree=0)(dict(path=tmp_path / 'a.ply'))['gaussians']
    assert torch.equal(loaded.means, cloud.means) and torch.equal(loaded.sh, cloud.sh[:, :1])
    assert T.LoadGaussians()(dict(gaussians=cloud))['gaussians'] is cloud


def test_packing_copies_the_keys_that_exist(random_cloud):
    cloud = random_cloud(3)
    packed = T.PackGaussians()(dict(gaussians=cloud, uid='a', label=2, rng=None, index=0))
    assert packed['inputs'].means is cloud.means and packed['data_samples'] == dict(uid='a', label=2)
    packed = T.PackGaussians(keys=['index'])(dict(gaussians=cloud, uid='a', index=0))
    assert packed['data_samples'] == dict(index=0)


@pytest.mark.parametrize('name', ['ChangeUp', 'DropColor', 'DropFloaters', 'FilterOpacity', 'JitterGaussians',
                                  'LoadGaussians', 'NormaliseGaussians', 'PackGaussians', 'RotateGaussians',
                                  'SampleGaussians', 'ScaleGaussians'])
def test_every_transform_is_built_by_name_has_a_repr_and_changes_nothing_in_place(random_cloud, name):
    transform = TRANSFORMS.build(dict(type=name, **(dict(num=5) if name == 'SampleGaussians' else {})))
    assert repr(transform).startswith(name) and ('num=5' in repr(transform)) == (name == 'SampleGaussians')
    cloud, copy = random_cloud(20, sh_degree=1), random_cloud(20, sh_degree=1)
    transform(dict(gaussians=cloud, rng=np.random.default_rng(0)))
    for field, value in copy.fields():
        assert torch.equal(getattr(cloud, field), value)
