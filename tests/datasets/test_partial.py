"""Random parts of objects."""
import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud
from clipgs_plugin.datasets.transforms import CutGaussians, OccludeGaussians, ShadeGaussians, build_pipeline
from clipgs_plugin.datasets.transforms.partial import behind_ball, nearest_from
from clipgs_plugin.engine.table_spec import load_table
from clipgs_plugin.ops.cameras import sphere_directions


def cloud_at(points) -> GaussianCloud:
    points = torch.as_tensor(points, dtype=torch.float32)
    n = len(points)
    return GaussianCloud(points, torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), torch.full((n, 3), -3.0), torch.zeros(n),
                         torch.zeros(n, 1, 3))


SPHERE = sphere_directions(2000).numpy()


def applied(transform, cloud: GaussianCloud, seed: int = 0) -> GaussianCloud:
    return transform(dict(gaussians=cloud, rng=np.random.default_rng(seed)))['gaussians']


def test_a_plane_cut_keeps_its_share_on_one_side():
    cloud = cloud_at(SPHERE)
    for seed in range(5):
        left = applied(CutGaussians(1, (0.4, 0.4), ('plane',)), cloud, seed).means
        assert len(left) == 800
        # The cap of a sphere with 40 % of its area is the set within a height of 0.2 of the least; its middle is -0.6.
        axis = -torch.nn.functional.normalize(left.mean(0), dim=0)
        assert float((left @ axis).max()) == pytest.approx(-0.2 + 0.4, abs=0.45) and float(left.mean(0).norm()) > 0.5
        gone = {tuple(x) for x in cloud.means.tolist()} - {tuple(x) for x in left.tolist()}
        assert float((torch.tensor(sorted(gone)) @ axis).min()) > float((left @ axis).max()) - 0.1


def test_a_box_cut_keeps_what_is_inside_a_box():
    cloud = cloud_at(np.random.default_rng(0).uniform(-1, 1, (3000, 3)))
    left = applied(CutGaussians(1, (0.3, 0.3), ('box',)), cloud, 4).means
    low, high = left.amin(0), left.amax(0)
    inside = ((cloud.means >= low) & (cloud.means <= high)).all(1)
    assert len(left) == 900 == int(inside.sum())


def test_shares_are_within_their_bounds_and_probability_is_kept():
    cloud = cloud_at(SPHERE[:200])
    counts = [len(applied(CutGaussians(0.5, (0.3, 0.9)), cloud, seed)) for seed in range(300)]
    cut = [count for count in counts if count < 200]
    assert 0.4 < len(cut) / 300 < 0.6 and min(cut) >= 60 and max(cut) <= 180 and len(set(cut)) > 40


def test_a_camera_sees_the_near_side_of_a_sphere():
    eye = np.array([0, 0, 3.0])
    seen, true = nearest_from(SPHERE, eye), SPHERE[:, 2] > 1 / 3  # from 3 radii a third of the surface is in sight
    assert seen[true].mean() > 0.9
    assert seen[SPHERE[:, 2] < -0.3].mean() < 0.03
    inner = np.concatenate([SPHERE, 0.3 * SPHERE[:500]])
    assert nearest_from(inner, eye)[2000:].mean() < 0.02


def test_a_ball_hides_what_is_behind_it_and_not_what_is_before_it():
    points = np.array([[0, 0, 0], [0, 0.9, 0], [0, 0, 2.5], [0.05, 0, -1]])
    hidden = behind_ball(points, np.array([0, 0, 3.0]), np.array([0, 0, 1.5]), 0.3)
    assert hidden.tolist() == [True, False, False, True]


def test_occlusion_keeps_one_side_and_more_cameras_keep_more():
    cloud = cloud_at(SPHERE)
    shares = [np.mean([len(applied(OccludeGaussians(1, (n, n), ball=(0, 0)), cloud, seed)) for seed in range(8)]) / 2000
              for n in (1, 4)]
    assert 0.3 < shares[0] < 0.5 and shares[1] > shares[0] + 0.1
    hidden = np.mean([len(applied(OccludeGaussians(1, (1, 1), ball=(0.6, 0.6)), cloud, seed)) for seed in range(8)])
    assert hidden / 2000 < shares[0] - 0.02


def test_an_object_of_which_little_is_seen_and_a_point_stay_as_they_are():
    cloud = cloud_at(SPHERE)
    assert applied(OccludeGaussians(1, (1, 1), ball=(0, 0), share=0.9), cloud) is cloud
    point = cloud_at(np.zeros((3, 3)))
    assert applied(OccludeGaussians(1), point) is point


def test_parts_do_not_depend_on_the_frame_and_repeat_for_a_seed():
    cloud = cloud_at(SPHERE * [1, 0.5, 0.7])
    moved = cloud.replace(means=4 * cloud.means + 1)
    for transform in (CutGaussians(1), OccludeGaussians(1)):
        first, again, other = (applied(transform, x, 2).means for x in (cloud, cloud, moved))
        assert torch.equal(first, again) and torch.allclose(4 * first + 1, other, atol=1e-5)


def test_light_is_the_gain_where_it_comes_from_everywhere(random_cloud):
    cloud = random_cloud(50, sh_degree=1)
    after = applied(ShadeGaussians(1, (1, 1), (0.5, 0.5), 0), cloud)
    assert torch.allclose(after.rgb, 0.5 * cloud.rgb, atol=1e-6)
    assert torch.allclose(after.sh[:, 1:], 0.5 * cloud.sh[:, 1:])
    assert torch.equal(after.means, cloud.means) and torch.equal(after.opacity_logits, cloud.opacity_logits)


def test_a_lamp_lights_the_upper_side_of_a_ball_and_leaves_the_lower_dark():
    points = torch.from_numpy(SPHERE).float()
    quats = torch.cat([1 + points[:, 2:], -points[:, 1:2], points[:, :1], torch.zeros(2000, 1)], 1)  # z to the point
    scales = torch.tensor([-3.0, -3, -6]).expand(2000, 3)
    ball = cloud_at(points).replace(quats=torch.nn.functional.normalize(quats, dim=1), log_scales=scales.contiguous())
    assert torch.allclose((ball.normals * points).sum(1).abs(), torch.ones(2000), atol=1e-4)
    for seed in range(5):
        light = applied(ShadeGaussians(1, (0.2, 0.2), (1, 1), 0), ball, seed).rgb[:, 0] / ball.rgb[:, 0]
        lamp = torch.nn.functional.normalize((light[:, None] * points).sum(0), dim=0)
        assert lamp[1] > -0.05 and float(light.max()) == pytest.approx(1, abs=0.01)
        expected = 0.2 + 0.8 * (points @ lamp).clamp_min(0)
        assert torch.allclose(light, expected, atol=0.05)


@pytest.mark.parametrize('settings', [
    dict(type='CutGaussians', probability=2), dict(type='CutGaussians', share=(0, 0.5)),
    dict(type='CutGaussians', cuts=('ball',)), dict(type='OccludeGaussians', probability=-1),
    dict(type='OccludeGaussians', cameras=(0, 1)), dict(type='OccludeGaussians', spread=200),
    dict(type='OccludeGaussians', ball=(1, 0.5)),
    dict(type='ShadeGaussians', tint=1), dict(type='ShadeGaussians', gain=(0, 1))])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match='expected'):
        build_pipeline([settings])


def test_the_table_trains_and_tests_on_parts():
    table = load_table('partial')
    steps = {row.title: [step['type'].rpartition('.')[2] for step in row.options['train_dataloader.dataset.pipeline']]
             for row in table.rows if row.trained}
    assert steps['cuts and occlusion'][3:5] == ['CutGaussians', 'OccludeGaussians']
    assert steps['whole objects'] == steps['cuts and occlusion'][:3] + steps['cuts and occlusion'][5:]
    for name, options in table.tests.items():
        pipeline = options['test_dataloader.dataset.pipeline']
        build_pipeline(pipeline)
        assert name == 'whole' or pipeline[3]['probability'] == 1
