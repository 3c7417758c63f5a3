"""Objects of a scene as data."""
import pytest
import torch
from composed import random_scene

from clipgs_plugin.scenes import SceneObjects, colored, distinct_colors


@pytest.fixture
def five():
    """Objects 7 (three Gaussians), 2 (two) and 9 (one, too few), and two Gaussians of none."""
    labels = torch.tensor([7, -1, 2, 7, 9, 2, 7, -5])
    return SceneObjects.from_labels(labels, min_gaussians=2)


def test_objects_of_too_few_gaussians_are_none_and_the_largest_is_first(five):
    assert five.ids.tolist() == [7, 2]
    assert five.labels.tolist() == [7, -1, 2, 7, -1, 2, 7, -1]
    assert [members.tolist() for members in five.members] == [[0, 3, 6], [2, 5]]
    assert five.numbers.tolist() == [0, -1, 1, 0, -1, 1, 0, -1]
    assert SceneObjects.from_labels(torch.tensor([7, 2, 2, 7, 7]), 1, max_objects=1).ids.tolist() == [7]
    assert len(SceneObjects.from_labels(torch.tensor([-1, -1]), 1)) == 0
    assert SceneObjects.from_labels(torch.zeros(0, dtype=torch.int64), 1).members == ()


def test_a_cut_and_a_removal_divide_the_scene(five):
    cloud = random_scene(8)
    assert torch.equal(five.cut(cloud, 7).means, cloud.means[[0, 3, 6]])
    assert torch.equal(five.remove(cloud, [7, 2]).means, cloud.means[[1, 4, 7]])
    with pytest.raises(ValueError, match='no object 9; the objects are 7, 2'):
        five.of([2, 9])


def test_gaussians_have_the_scores_of_their_objects(five):
    spread = five.spread(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), fill=-1)
    assert spread[:, 0].tolist() == [1, -1, 3, 1, -1, 3, 1, -1] and spread[2].tolist() == [3, 4]
    with pytest.raises(ValueError, match='for 2 objects'):
        five.spread(torch.zeros(3))


def test_ids_that_a_ply_cannot_store_are_numbered_anew(five):
    assert five.storable() is five
    for labels in ([0, 0, 5, -1], [2 ** 31, 2 ** 31, 5, -1]):
        stored = SceneObjects.from_labels(torch.tensor(labels), 1).storable()
        assert stored.labels.tolist() == [1, 1, 2, -1] and stored.ids.tolist() == [1, 2]


@pytest.mark.parametrize('labels, ids, message', [
    (torch.tensor([1.0]), torch.tensor([1]), 'labels is torch.float32'),
    (torch.tensor([1]), torch.tensor([[1]]), r'ids is torch.int64 of shape \(1, 1\)'),
    (torch.tensor([1]), torch.tensor([1, 1]), 'distinct'), (torch.tensor([3]), torch.tensor([1]), 'labels such as 3')])
def test_objects_that_contradict_themselves_are_refused(labels, ids, message):
    with pytest.raises(ValueError, match=message):
        SceneObjects(labels, ids)
    with pytest.raises(ValueError, match='min_gaussians=0'):
        SceneObjects.from_labels(torch.tensor([1]), 0)


def test_colours_differ_and_keep_the_brightness(five):
    palette = distinct_colors(24)
    assert palette.min() >= 0 and palette.max() <= 1 and (palette.amax(1) - palette.amin(1)).min() > 0.2
    for count, least in ((6, 0.45), (24, 0.2)):
        assert torch.cdist(palette[:count], palette[:count]).fill_diagonal_(9).min() > least
    many = distinct_colors(1000)
    assert len(many) == 1000 and torch.equal(many[:24], palette) and len(many[:250].unique(dim=0)) == 250
    cloud = random_scene(8)
    shown = colored(cloud, five)
    brightness = cloud.rgb @ torch.tensor([0.2126, 0.7152, 0.0722])
    expected = torch.where((five.labels < 0)[:, None], (0.35 * brightness)[:, None].expand(8, 3),
                           0.7 * palette[five.numbers] + 0.3 * brightness[:, None])
    assert torch.allclose(shown.rgb, expected, atol=1e-6) and shown.sh_degree == 0
    assert torch.equal(shown.means, cloud.means)
