"""Specifications, objects, captions and views of the toy world."""
from collections import Counter

import numpy as np
import pytest
import torch

from clipgs_plugin.structures import FIELDS
from clipgs_plugin.toy_world import (
    CATEGORIES,
    COLORS,
    PATTERNS,
    TONES,
    WEARS,
    ObjectSpec,
    make_object,
    object_specs,
    render_views,
    world,
)

SHAPED = [name for name, category in CATEGORIES.items() if category.group is None]
GROUPED = [name for name in CATEGORIES if name not in SHAPED]


def spec_of(category: str, look: tuple[str, str] | None = None, seed: tuple[int, ...] = (11, 0, 3)) -> ObjectSpec:
    default = ('red', 'plain') if category in SHAPED else ('natural', 'clean')
    return ObjectSpec('x', 'train', category, look or default, seed)


# Specs

def test_world_has_enough_categories_and_groups():
    groups = Counter(category.group for category in CATEGORIES.values() if category.group)
    assert len(SHAPED) >= 24 and len(groups) >= 3 and min(groups.values()) >= 4


def test_held_out_looks_are_not_in_training_but_their_words_are():
    specs = {split: object_specs(3000, 0, split) for split in ('train', 'val', 'test')}
    looks = {split: {(s.category, *s.look) for s in made} for split, made in specs.items()}
    assert not looks['test'] & (looks['train'] | looks['val'])
    for split, made in looks.items():
        assert {category for category, *_ in made} == set(CATEGORIES), split
    for side in (1, 2):
        for names in (SHAPED, GROUPED):
            words = set((COLORS, PATTERNS)[side - 1] if names is SHAPED else (TONES, WEARS)[side - 1])
            for made in looks.values():
                assert {look[side] for look in made if look[0] in names} == words
    # Training has every category with every colour and every pattern, but not a quarter of its looks.
    for name in SHAPED:
        seen = {look[1:] for look in looks['train'] if look[0] == name}
        assert {color for color, _ in seen} == set(COLORS) and {pattern for _, pattern in seen} == set(PATTERNS)
        held_out = {look[1:] for look in looks['test'] if look[0] == name}
        assert len(held_out) == len(COLORS) * len(PATTERNS) / 4 and len(seen) == 50


def test_held_out_looks_are_the_same_for_every_seed():
    train = {(s.category, *s.look) for s in object_specs(2000, 1, 'train')}
    assert not train & {(s.category, *s.look) for s in object_specs(2000, 2, 'test')}


def test_lists_are_balanced_prefixes_without_repetition():
    specs = object_specs(10 * len(CATEGORIES), 5)
    assert specs[:77] == object_specs(77, 5) and specs != object_specs(len(specs), 6)
    assert set(Counter(s.category for s in specs).values()) == {10}
    assert len({s.uid for s in specs}) == len({s.seed for s in specs}) == len(specs)
    repeated = Counter((s.category, *s.look) for s in specs)
    assert set(repeated.values()) == {1}


def test_wrong_specs_are_named():
    with pytest.raises(ValueError, match="split='dev'"):
        object_specs(3, split='dev')
    with pytest.raises(ValueError, match='num_objects=-1'):
        object_specs(-1)
    with pytest.raises(ValueError, match="category='sword'"):
        ObjectSpec('x', 'train', 'sword', ('red', 'plain'), (0,))
    with pytest.raises(ValueError, match="not 'tartan'"):
        ObjectSpec('x', 'train', 'chair', ('red', 'tartan'), (0,))
    with pytest.raises(ValueError, match='num_gaussians=0'):
        make_object(spec_of('chair'), 0)


# Objects

@pytest.fixture(scope='module')
def objects():
    """One object of each category, with varied looks."""
    return {spec.category: (spec, make_object(spec)) for spec in object_specs(len(CATEGORIES), 3)}


def same_bytes(a, b) -> bool:
    return all(torch.equal(getattr(a.gaussians, name), getattr(b.gaussians, name)) for name in FIELDS)


def test_specification_determines_the_object(objects):
    for name in ('train', 'globe', 'pizza', 'tree'):
        spec, toy = objects[name]
        np.random.seed(1)
        torch.manual_seed(1)
        again = make_object(spec)
        assert same_bytes(toy, again) and toy.captions == again.captions and toy.attributes == again.attributes
        other = make_object(ObjectSpec(spec.uid, spec.split, spec.category, spec.look, (3, 0, 9999)))
        assert not torch.equal(toy.gaussians.means, other.gaussians.means)


@pytest.mark.parametrize('name', CATEGORIES)
def test_clouds_are_valid_discs_in_the_unit_sphere(name, objects):
    spec, toy = objects[name]
    cloud = toy.gaussians.validate()
    assert len(cloud) == 1024 and cloud.sh_degree == 0 and toy.category == name == spec.category
    assert cloud.means.mean(0).abs().max() < 1e-6
    assert cloud.means.norm(dim=-1).max().item() == pytest.approx(1, abs=1e-6)
    assert cloud.quats.norm(dim=-1).sub(1).abs().max() < 1e-5
    assert ((cloud.opacities > 0.899) & (cloud.opacities < 0.991)).all()
    assert ((cloud.sh[:, 0] * 0.28209479177387814 + 0.5 > -1e-5) & (cloud.sh[:, 0] * 0.2820948 + 0.5 < 1 + 1e-5)).all()
    # Discs are round, and thin along the third axis.
    assert torch.equal(cloud.log_scales[:, 0], cloud.log_scales[:, 1])
    assert (cloud.scales[:, 2] < 0.1 * cloud.scales[:, 0]).all()
    assert torch.unique(cloud.means, dim=0).shape[0] == 1024


@pytest.mark.parametrize('name', CATEGORIES)
def test_every_gaussian_is_on_the_outer_surface(name, objects):
    spec, toy = objects[name]
    skin, parts = world.make_skin(spec, 1024), world.build_parts(spec)
    normals = toy.gaussians.rotations[:, :, 2].double().numpy()
    assert np.abs(normals - skin.normals).max() < 1e-5
    places = skin.points * skin.radius + skin.centre
    for part in parts:
        assert not part.contains(places + world.CLEARANCE * skin.normals).any()
    below = np.stack([part.contains(places - world.CLEARANCE * skin.normals) for part in parts]).any(0)
    assert below.mean() > 0.97  # the rest is at edges and open ends of arcs


def test_normals_of_a_ball_and_a_box_are_exact():
    ball = make_object(spec_of('basketball')).gaussians
    # Least-squares ball: |p|^2 = 2 p.c + k.
    points = ball.means.double()
    system = torch.cat([2 * points, torch.ones(len(points), 1, dtype=torch.float64)], 1)
    centre = torch.linalg.lstsq(system, (points ** 2).sum(1, keepdim=True)).solution[:3, 0]
    radial = torch.nn.functional.normalize(points - centre, dim=-1)
    assert (ball.rotations[:, :, 2].double() * radial).sum(-1).min() > 0.9999
    box = make_object(spec_of('wooden crate')).gaussians
    thin = box.rotations[:, :, 2]
    # Six directions, opposite or perpendicular, each shared by the discs of one plane.
    cosines = (thin @ thin.T).abs()
    assert ((cosines < 1e-4) | (cosines > 1 - 1e-4)).all()
    offsets = (box.means * thin).sum(-1)
    for i in range(0, 1024, 50):
        side = (thin @ thin[i]) > 0.99
        assert offsets[side].std() < 1e-5 and offsets[i] > 0.3


def test_disc_sizes_follow_the_distances_to_neighbours():
    cloud = make_object(spec_of('teapot'), 300).gaussians
    distances = torch.cdist(cloud.means.double(), cloud.means.double()).sort(dim=1).values[:, 1:4]
    assert torch.allclose(cloud.scales[:, 0].double(), 0.6 * distances.square().mean(1).sqrt(), rtol=1e-4)


def test_proportions_vary_within_a_category():
    def extents(name: str, i: int) -> torch.Tensor:
        means = make_object(spec_of(name, seed=(0, 0, i)), 256).gaussians.means
        return means.amax(0) - means.amin(0)
    for name in SHAPED:
        sizes = torch.stack([extents(name, i) for i in range(4)])
        assert (sizes.amax(0) - sizes.amin(0)).max() > 0.02, name


def test_categories_of_a_group_differ_in_colour_only():
    groups = {}
    for name in GROUPED:
        groups.setdefault(CATEGORIES[name].group, []).append(world.make_skin(spec_of(name), 500))
    for skins in groups.values():
        for other in skins[1:]:
            assert np.array_equal(skins[0].points, other.points)
            assert np.abs(skins[0].rgb - other.rgb).max(1).mean() > 0.1


def test_small_and_large_clouds_have_the_same_shape():
    for n in (1, 2, 5, 3000):
        assert len(make_object(spec_of('windmill'), n).gaussians.validate()) == n
    few, many = (make_object(spec_of('chair'), n).gaussians.means for n in (800, 4000))
    assert torch.cdist(few, many).min(1).values.max() < 0.1


# Captions

def test_captions_name_the_category_and_the_look(objects):
    for spec, toy in objects.values():
        first, *rest = toy.captions
        assert len(set(toy.captions)) == len(toy.captions) >= 4
        words_of_look = [word for word in spec.look if word not in ('plain', 'natural', 'clean')]
        assert first.split(' ', 1)[1] == ' '.join([*words_of_look, spec.category])
        for caption in toy.captions:
            assert spec.category in caption
            words = caption.split()
            for i, word in enumerate(words):
                if word in ('a', 'an'):
                    assert (word == 'an') == (words[i + 1][0] in 'aeiou'), caption
        # Paraphrases name the colour or tone; the last caption names neither.
        assert all(word in caption for word in words_of_look if word == spec.look[0] for caption in rest[:3])
        assert not words_of_look or not set(words_of_look) & set(rest[-1].split())
        assert list(toy.attributes.values()) == list(spec.look)


def test_names_are_valid_file_names():
    assert spec_of('teddy bear', ('orange', 'striped')).name == 'orange_striped_teddy_bear'
    assert spec_of('globe').name == 'globe'


# Views

def test_views_show_the_object_in_its_colour_on_light_grey():
    for color, strongest in (('red', 0), ('green', 1), ('blue', 2)):
        views = render_views(spec_of('vase', (color, 'plain')), num_views=3, size=48)
        assert views.shape == (3, 48, 48, 3) and views.dtype == np.uint8
        grey = round(0.93 * 255)
        assert np.abs(views[:, ::47, ::47].astype(int) - grey).max() <= 1
        shown = np.abs(views.astype(int) - grey).max(-1) > 40
        assert 0.1 < shown.mean() < 0.7
        mean = views[shown].mean(0)
        assert mean.argmax() == strongest and mean[strongest] > 1.5 * np.sort(mean)[1]


def test_up_axis_points_up_in_views():
    """The cap of a mushroom has the object's colour and is above its cream stem."""
    row, seen = np.arange(48)[:, None] * np.ones(48), 0
    for view in render_views(spec_of('mushroom', ('blue', 'plain')), num_views=6, size=48).astype(int):
        cap, stem = view[..., 2] > view[..., 0] + 40, view[..., 0] > view[..., 2] + 12
        if stem.sum() > 30:  # from high above the cap hides it
            seen += 1
            assert row[cap].mean() < row[stem].mean() - 5
    assert seen >= 3


def test_cameras_surround_the_object_within_the_elevations():
    spec = spec_of('car')
    cloud = make_object(spec).gaussians
    cameras = world.view_cameras(cloud, world.viewpoints(spec, 8)).double()
    middle = ((cloud.means.amin(0) + cloud.means.amax(0)) / 2).double()
    eyes = -(cameras[:, :3, :3].transpose(1, 2) @ cameras[:, :3, 3:]).squeeze(-1) - middle
    elevation = torch.rad2deg(torch.asin(eyes[:, 1] / eyes.norm(dim=-1)))
    assert elevation.min() > -10.01 and elevation.max() < 50.01 and elevation.max() - elevation.min() > 30
    azimuth = torch.rad2deg(torch.atan2(eyes[:, 0], eyes[:, 2])).sort().values
    assert torch.allclose(azimuth.diff(), torch.full((7,), 45.0).double(), atol=1e-2)
    # The centre of the object is in the centre of every view.
    seen = (cameras[:, :3, :3] @ middle) + cameras[:, :3, 3]
    assert seen[:, :2].abs().max() < 1e-5 and (seen[:, 2] > 1).all()
