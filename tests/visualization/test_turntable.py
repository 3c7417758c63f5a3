"""Turntables frame their object; sheets contain all images."""
import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians
from clipgs_plugin.visualization.turntable import robust_extent, turntable, turntable_sheet


def test_stray_and_invisible_gaussians_do_not_move_the_frame(random_cloud):
    cloud = random_cloud(500)
    cloud = cloud.replace(opacity_logits=cloud.opacity_logits.abs())
    center, radius = robust_extent(cloud)
    stray = random_cloud(5).translate_scale(torch.tensor([50.0, 0.0, 0.0]), 1.0)
    ghosts = random_cloud(300, seed=1)
    ghosts = ghosts.replace(means=ghosts.means * 100, opacity_logits=torch.full((300,), -6.0))
    joined = type(cloud)(*(torch.cat([getattr(c, name) for c in (cloud, stray, ghosts)]) for name, _ in cloud.fields()))
    moved_center, moved_radius = robust_extent(joined)
    assert (moved_center - center).norm() < 0.05 and moved_radius == pytest.approx(radius, rel=0.05)
    assert radius == pytest.approx(1.0, abs=0.15)  # the cloud lies around the unit sphere


def test_a_single_gaussian_is_framed_by_its_own_extent(random_cloud):
    cloud = random_cloud(1)
    images = turntable(cloud.replace(opacity_logits=torch.tensor([5.0])), 2, 32, background=(0.0, 0.0, 0.0))
    assert images.max() > 0.01
    assert images[:, [0, -1]].max() == 0 and images[:, :, [0, -1]].max() == 0


@pytest.mark.parametrize('scale, offset', [(1.0, 0.0), (1000.0, 3.0), (1e-3, -5.0)])
def test_the_object_fills_the_image_at_any_size_and_position(random_cloud, scale, offset):
    cloud = random_cloud(400).translate_scale(torch.full((3,), offset), scale)
    images = turntable(cloud, 3, 48)
    assert images.shape == (3, 48, 48, 3)
    drawn = (images < 0.98).any(-1)
    for axis in (1, 2):
        covered = drawn.any(axis).float().mean(1)
        assert (covered > 0.6).all(), covered


def test_the_opposite_up_axis_turns_the_image_upside_down(random_cloud):
    cloud = random_cloud(200)
    upright, inverted = turntable(cloud, 1, 32, 'y', 0.0), turntable(cloud, 1, 32, '-y', 0.0)
    assert torch.allclose(upright, inverted.flip(1, 2), atol=1e-4)


def test_a_sheet_contains_every_image(random_cloud):
    images = torch.rand(2, 20, 30, 3)
    sheet = turntable_sheet([random_cloud(50), images], ['a cloud', 'images'], size=16, num_views=3, gap=5)
    assert sheet.size == (5 + max(3 * (16 + 5), 2 * (30 + 5)), 5 + (14 + 16 + 5) + (14 + 20 + 5))
    found = np.asarray(sheet)[5 + 35 + 14:5 + 35 + 34, 40:70]
    assert np.array_equal(found, (images[1] * 255).round().byte().numpy())
    with pytest.raises(ValueError, match='2 rows with 1 labels'):
        turntable_sheet([images, images], ['one'])


def test_a_real_object_stands_on_its_pot(splats):
    """The plant of the file is green above and dark below with -y up, and upside down with +y up."""
    for up, top_is_green in (('-y', True), ('y', False)):
        image = turntable(read_gaussians(splats / 'potted_plant.splat'), 4, 48, up)
        green = image[..., 1] - image[..., [0, 2]].amax(-1)
        top, bottom = green[:, :24].clamp_min(0).sum(), green[:, 24:].clamp_min(0).sum()
        assert (top > bottom) == top_is_green
