"""Splits of made scenes whose objects are known."""
import numpy as np
import pytest
import torch
from composed import compose, floaters, floor, joined, random_scene, recall_and_purity, toys
from scipy.spatial import cKDTree

from clipgs_plugin.ops import axis_change
from clipgs_plugin.ops.rotations import y_rotation
from clipgs_plugin.scenes import find_floor, find_room, find_walls, split_by_clusters, split_by_spheres
from clipgs_plugin.scenes.cells import Cells

SPLITS = {'clusters': split_by_clusters, 'spheres': split_by_spheres}


@pytest.fixture(scope='module')
def scene():
    """Nine toys on a floor, 10 % of their number floaters, and the object of each Gaussian."""
    return compose(toys(9, seed=5), seed=11, stray=0.1)


def test_the_floor_is_found_without_the_objects(scene):
    cloud, truth = scene
    found = find_floor(cloud)
    at_floor = (truth == 0) & (cloud.means[:, 1].abs() < 0.02)
    assert found[at_floor].float().mean() > 0.85 and found[truth > 0].float().mean() < 0.03
    turned = find_floor(cloud.transform(axis_change('y', '-z')), '-z')
    assert (turned == found).float().mean() > 0.99


def test_what_is_no_floor_stays(scene):
    cloud, _ = scene
    assert not find_floor(cloud, 'x').any()                       # a wall, where the floor would be
    objects, _ = compose(toys(4, seed=5), seed=11, ground=0, stray=0)
    assert not find_floor(objects).any()
    assert not find_floor(random_scene(3)).any() and not find_floor(random_scene(0)).any()
    with pytest.raises(ValueError, match='thickness=0'):
        find_floor(cloud, thickness=0)


def test_walls_are_found_by_their_line_from_above(scene):
    cloud, truth = scene
    assert not find_walls(cloud, find_floor(cloud)).any()
    rng = np.random.default_rng(0)
    turn = y_rotation(0.4)
    half = float(cloud.means[truth == 0, 0].abs().max())
    walls = []
    for axis in (0, 2):  # two walls, one of which an object nearly touches
        wall = floor(2 * half, 5000, rng)
        points = wall.means[:, [1, 2, 0]] if axis == 0 else wall.means[:, [0, 2, 1]]
        points = points + torch.tensor([-half if axis == 0 else 0, half, -half if axis == 2 else 0])
        walls.append(wall.replace(means=points))
    room = joined([cloud, *walls]).transform(turn)
    objects = torch.cat([truth, torch.full((10_000,), -1)])
    found = find_room(room)
    assert found[objects < 0].float().mean() > 0.95 and found[objects > 0].float().mean() < 0.03
    at_floor = (objects == 0) & (room.means[:, 1].abs() < 0.02)  # which the outline of both walls would hold
    assert found[at_floor].float().mean() > 0.85
    labels = split_by_clusters(room)
    assert recall_and_purity(labels, objects.clamp_min(0))[0] == 1
    assert not find_walls(room, torch.zeros(len(room), dtype=torch.bool)).any()
    with pytest.raises(ValueError, match='min_width=0'):
        find_walls(room, found, min_width=0)


@pytest.mark.parametrize('name, purity', [('clusters', 0.9), ('spheres', 0.9)])
def test_objects_of_a_scene_are_found(scene, name, purity):
    cloud, truth = scene
    labels = SPLITS[name](cloud)
    assert labels.dtype == torch.int64 and labels.shape == (len(cloud),)
    recall, found = recall_and_purity(labels, truth)
    assert recall == 1 and found > purity
    ids, counts = labels[labels >= 0].unique(return_counts=True)
    assert ids.tolist() == list(range(1, len(ids) + 1)) and counts.min() >= 200
    assert len(ids) <= 11


def test_numbers_follow_the_size(scene):
    counts = torch.bincount(split_by_clusters(scene[0]).clamp_min(0))[1:]
    assert torch.equal(counts, counts.sort(descending=True).values)


def test_the_order_of_the_gaussians_and_the_unit_do_not_matter(scene):
    cloud, _ = scene
    order = torch.randperm(len(cloud))
    labels = split_by_clusters(cloud)
    other = split_by_clusters(cloud.transform(0.01 * torch.eye(3))[order])
    assert (other == labels[order]).float().mean() > 0.99


def test_a_sparse_object_stays_whole_beside_dense_ones():
    one, two, three = toys(3, 6000, seed=4)
    thin = two[torch.arange(len(two)) % 8 == 0]
    cloud, truth = compose([one, thin, three], seed=3, gap=0.5)
    labels = split_by_clusters(cloud)
    assert recall_and_purity(labels, truth)[0] == 1
    assert torch.bincount(labels[truth == 2].clamp_min(0)).max() > 0.9 * len(thin)


def test_faint_floaters_do_not_bridge_objects_and_opaque_ones_would():
    one, two = toys(2, 2000, seed=4)
    cloud, truth = compose([one, two], seed=3, gap=0.2, ground=0, stray=0)
    low, high = cloud.means.amin(0).numpy(), cloud.means.amax(0).numpy()
    mist = floaters(4000, low, high, np.random.default_rng(0))
    truth = torch.cat([truth, torch.zeros(4000, dtype=torch.int64)])
    for logit, recall in ((-3.0, 1.0), (3.0, 0.0)):
        labels = split_by_clusters(joined([cloud, mist.replace(opacity_logits=torch.full((4000,), logit))]))
        assert recall_and_purity(labels, truth)[0] == recall


def test_colours_part_objects_that_touch():
    ball = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    cloud = random_scene(4000, sh_degree=0)
    halves = (ball[:, 0] > 0).float()[:, None, None] * torch.tensor([1.5, -1.5, -1.5])
    cloud = cloud.replace(means=ball, opacity_logits=torch.full((4000,), 2.0), sh=halves)
    assert split_by_clusters(cloud).max() == 1
    labels = split_by_clusters(cloud, color=0.3)
    assert labels.max() == 2 and recall_and_purity(labels, 1 + (ball[:, 0] > 0).long())[0] == 1


@pytest.mark.parametrize('count', [0, 1, 2, 250])
@pytest.mark.parametrize('split', SPLITS.values(), ids=SPLITS)
def test_degenerate_scenes_have_no_objects(split, count):
    assert (split(random_scene(count, seed=2), min_gaussians=300) == -1).all()
    same = random_scene(count).replace(means=torch.ones(count, 3))
    assert split(same).tolist() == [-1] * count


def test_spheres_are_chosen_by_their_scores(scene):
    cloud, _ = scene
    asked = []

    def score(members):
        asked.extend(members)
        return torch.tensor([1.0 if cloud.means[inside, 0].mean() > 0 else 0.01 for inside in members])
    labels = split_by_spheres(cloud, score=score)
    first = cloud.means[labels == 1, 0].mean()
    assert first > 0 and all(len(inside) >= 200 for inside in asked) and len(asked) <= 300
    low = labels[(labels > 0) & (cloud.means[:, 0] < -1.5)]
    high = labels[(labels > 0) & (cloud.means[:, 0] > 1.5)]
    assert high.max() < low.min()


@pytest.mark.parametrize('split, options', [
    (split_by_clusters, dict(cell=0)), (split_by_clusters, dict(min_opacity=1)), (split_by_clusters, dict(color=-1)),
    (split_by_clusters, dict(min_gaussians=0)), (split_by_spheres, dict(radii=())), (split_by_spheres, dict(stride=0)),
    (split_by_spheres, dict(max_overlap=1)), (split_by_spheres, dict(max_spheres=0))])
def test_options_out_of_range_are_refused(split, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        split(random_scene(10), **options)


def test_neighbours_of_cells_are_those_of_a_loop():
    points = np.random.default_rng(0).uniform(-2, 2, (300, 3))
    grid = Cells(points, 0.5)
    cells = np.floor(points / 0.5).astype(int)
    assert grid.counts.sum() == 300 and (cells[grid.first][grid.cell] == cells).all()
    near = cKDTree(cells[grid.first]).query_pairs(1.1, p=np.inf)
    assert {tuple(sorted(pair)) for pair in zip(*map(np.ndarray.tolist, grid.neighbours))} == near
    assert np.allclose(grid.mean(points)[3], points[grid.cell == 3].mean(0))
    with pytest.raises(ValueError, match='side=0'):
        Cells(points, 0)


@pytest.mark.parametrize('count', [1, 400])
def test_progress_is_shown_step_by_step(count):
    shown = []

    def track(items, task):
        for item in items:
            shown.append(task)
            yield item
    cloud = random_scene(count)
    assert torch.equal(split_by_clusters(cloud, track=track), split_by_clusters(cloud))
    assert shown == ['clusters'] * (2 if count == 1 else 4)
