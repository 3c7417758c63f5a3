"""Removal of floaters."""
import pytest
import torch

from clipgs_plugin import GaussianCloud, read_gaussians
from clipgs_plugin.datasets.transforms import DropFloaters, FilterOpacity
from clipgs_plugin.datasets.transforms.floaters import isolated
from clipgs_plugin.toy_world.specs import SPLITS, object_specs
from clipgs_plugin.toy_world.world import make_object

CAPTURES = {'camera.ply', 'camera.sog', 'camera.spz', 'fruit_drops_sh3.ply', 'train_1000_sh3.ply'}  # cut from scenes


def join(*clouds: GaussianCloud) -> GaussianCloud:
    return GaussianCloud(**{name: torch.cat([getattr(cloud, name) for cloud in clouds]) for name, _ in
                            clouds[0].fields()})


def floaters(cloud: GaussianCloud, count: int, seed: int = 0) -> GaussianCloud:
    """Return copies of Gaussians at 3 to 30 radii from the centre of the object."""
    g = torch.Generator().manual_seed(seed)
    centre, radius = cloud.bounding_sphere()
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=torch.float64), dim=-1)
    distances = radius * 3 * 10 ** torch.rand(count, 1, generator=g, dtype=torch.float64)
    copies = cloud[torch.randint(len(cloud), (count,), generator=g)]
    return copies.replace(means=(centre + directions * distances).to(cloud.means))


def drop(cloud: GaussianCloud, **options) -> tuple[GaussianCloud, int]:
    results = DropFloaters(**options)(dict(gaussians=cloud))
    return results['gaussians'], results['floaters']


@pytest.mark.parametrize('count', [1024, 10_000])
def test_floaters_are_dropped_and_counted_and_the_object_is_kept(random_cloud, count):
    cloud = random_cloud(count).translate_scale(torch.tensor([3.0, -5.0, 40.0]), 7.0)
    few = max(1, count // 1000)
    dirty = join(floaters(cloud, few), cloud)
    order = torch.randperm(len(dirty), generator=torch.Generator().manual_seed(1))
    kept, dropped = drop(dirty[order])
    assert dropped == few
    assert torch.equal(kept.means, dirty.means[order[order >= few]])
    assert drop(cloud) == (cloud, 0)


def test_gaussians_larger_than_the_object_are_dropped(random_cloud):
    cloud = random_cloud(1000)
    cloud.log_scales[[3, 500], 1] = torch.tensor([1.3, 1.05]).log()  # 90 % lie within 1.1
    kept, dropped = drop(cloud)
    assert dropped == 1 and torch.equal(kept.means, cloud.means[torch.arange(1000) != 3])


def test_thin_and_sparse_parts_stay(random_cloud):
    body = random_cloud(3000)
    antenna = random_cloud(30).replace(means=torch.tensor([[0.0, 1, 0]]) * torch.linspace(1, 3, 30)[:, None])
    assert drop(join(body, antenna))[1] == 0
    # A part of more than 2 % is no dirt, however sparse it is beside a dense detail.
    box = random_cloud(200).translate_scale(torch.zeros(3), 30.0)
    assert drop(join(body, box))[1] == 0 < drop(join(body, box), max_share=0.2)[1]


def test_small_and_degenerate_objects_are_unchanged(random_cloud):
    for cloud in (random_cloud(1), random_cloud(3), random_cloud(45), random_cloud(400).replace(
            means=torch.zeros(400, 3))):
        assert drop(cloud) == (cloud, 0)
    assert drop(random_cloud(3), max_share=0.4, neighbours=100)[1] <= 1


@pytest.mark.parametrize('radius', [1e-3, 0.05, 0.2, 1.0, 10.0])
def test_isolation_equals_a_loop_over_all_pairs(random_cloud, radius):
    points = join(random_cloud(700), floaters(random_cloud(700), 20)).means.double()
    points = torch.cat([points, points[:5], torch.tensor([[1e15, 0, 0]] * 12)])  # duplicates, and beyond any grid
    distances = torch.cdist(points, points, compute_mode='donot_use_mm_for_euclid_dist')
    for neighbours in (1, 8):
        expected = (distances <= radius).sum(1) <= neighbours
        assert torch.equal(torch.from_numpy(isolated(points.numpy(), radius, neighbours)), expected)


def test_no_object_of_the_toy_world_and_no_clean_file_loses_a_gaussian(splats):
    transform, found = DropFloaters(), {}
    for spec in [spec for split in SPLITS for spec in object_specs(60, split=split)]:
        assert transform(dict(gaussians=make_object(spec).gaussians))['floaters'] == 0, spec
    for path in sorted(splats.iterdir()):
        results = FilterOpacity(0.05)(dict(gaussians=read_gaussians(path)))
        count = len(results['gaussians'])
        found[path.name] = transform(results)['floaters'] / count
    assert {name for name, share in found.items() if share} == CAPTURES
    assert max(found.values()) < 0.02


def test_wrong_options_are_refused():
    for options in (dict(isolation=0.0), dict(size=-1.0), dict(neighbours=0), dict(max_share=0.5)):
        with pytest.raises(ValueError, match=f'{next(iter(options))}=.*expected'):
            DropFloaters(**options)
