import math
from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians
from clipgs_plugin.structures import FIELDS
from clipgs_plugin.tools import make_toy_world
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
    solids,
    world,
    writing,
)
from clipgs_plugin.toy_world.patterns import paint
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Lathe, Prism, Torus, even_draws
from clipgs_plugin.triplets import ShardReader

SHAPED = [name for name, category in CATEGORIES.items() if category.group is None]
GROUPED = [name for name in CATEGORIES if name not in SHAPED]


def spec_of(category: str, look: tuple[str, str] | None = None, seed: tuple[int, ...] = (11, 0, 3)) -> ObjectSpec:
    default = ('red', 'plain') if category in SHAPED else ('natural', 'clean')
    return ObjectSpec('x', 'train', category, look or default, seed)


# Solids: areas and volumes of the textbook, and the radius of a ball that holds each

TRIANGLE = [(0.0, 0.0), (0.8, 0.0), (0.0, 0.6)]
SOLIDS = {
    'box': (Box(1.0, 0.5, 2.0), 2 * (0.5 + 1.0 + 2.0), 1.0),
    'ball': (Ellipsoid(0.7), 4 * math.pi * 0.49, 4 / 3 * math.pi * 0.343),
    'spheroid': (Ellipsoid(1.0, 0.5, 1.0), 2 * math.pi * (1 + 0.25 / math.sqrt(0.75) * math.atanh(math.sqrt(0.75))),
                 4 / 3 * math.pi * 0.5),
    'capsule': (Capsule(0.3, 0.9), 2 * math.pi * 0.3 * 1.5, math.pi * 0.09 * (0.9 + 0.4)),
    'cylinder': (solids.cylinder(0.5, 1.2), 2 * math.pi * 0.5 * (0.5 + 1.2), math.pi * 0.25 * 1.2),
    'cone': (solids.cone(0.6, 0.8), math.pi * 0.6 * (0.6 + 1.0), math.pi * 0.36 * 0.8 / 3),
    'pipe': (Lathe([(0.4, 0.0), (0.6, 0.0), (0.6, 1.0), (0.4, 1.0)]), 2 * math.pi * (1.0 + 0.2),
             math.pi * (0.36 - 0.16)),
    'prism': (Prism(TRIANGLE, 0.5), 2 * 0.24 + 0.5 * 2.4, 0.12 * 2 * 0.5),
    'torus': (Torus(0.8, 0.2), 4 * math.pi ** 2 * 0.16, 2 * math.pi ** 2 * 0.8 * 0.04),
    'arc': (Torus(0.8, 0.2, (-90, 90)), 2 * math.pi ** 2 * 0.16, math.pi ** 2 * 0.8 * 0.04),
}


def sampled(solid, n: int = 4000):
    return solid.sample(even_draws(n, np.array([0.1, 0.7, 0.4])))


@pytest.mark.parametrize('name', SOLIDS)
def test_areas_and_insides_are_those_of_the_textbook(name):
    solid, area, volume = SOLIDS[name]
    assert solid.area == pytest.approx(area, rel=0.012)
    points = np.random.default_rng(0).uniform(-solid.reach, solid.reach, (200_000, 3))
    assert solid.contains(points).mean() * (2 * solid.reach) ** 3 == pytest.approx(volume, rel=0.04)
    assert (np.linalg.norm(points[solid.contains(points)], axis=1) <= solid.reach).all()


@pytest.mark.parametrize('name', SOLIDS)
def test_samples_lie_on_the_surface_and_normals_point_out(name):
    solid = SOLIDS[name][0]
    points, normals, _, rank = sampled(solid)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    assert (np.diff(rank) > 0).all() and rank.min() >= 0 and rank.max() < 1
    assert not solid.contains(points + 1e-4 * normals).any()
    # A point within 1e-4 of an edge may leave through the neighbouring face.
    assert solid.contains(points - 1e-4 * normals).mean() > 0.99


def cells_of_boxes(points, normals):
    """Share of the surface on each side of a box."""
    axis = np.abs(normals).argmax(1)
    return np.bincount(2 * axis + (normals[np.arange(len(axis)), axis] < 0), minlength=6) / len(axis)


def test_samples_are_even_by_area():
    points, normals, *_ = sampled(Box(1.0, 0.5, 2.0))
    assert np.allclose(cells_of_boxes(points, normals), np.array([1, 1, 2, 2, 0.5, 0.5]) / 7, atol=0.004)
    points, *_ = sampled(Torus(0.8, 0.3))
    # Pappus: the outer half of a tube has 1/2 + r / (pi R) of the area.
    assert (np.hypot(points[:, 0], points[:, 1]) > 0.8).mean() == pytest.approx(0.5 + 0.3 / (math.pi * 0.8), abs=0.006)
    points, normals, *_ = sampled(solids.frustum(0.8, 0.2, 1.0))
    side = np.hypot(points[:, 0], points[:, 2])[np.abs(normals[:, 1]) < 0.9]
    # The part of a cone's side beyond radius x has the share (R^2 - x^2) / (R^2 - r^2).
    assert (side > 0.5).mean() == pytest.approx((0.64 - 0.25) / (0.64 - 0.04), abs=0.006)
    # An ellipsoid, against a sum over a fine grid of latitudes and longitudes.
    radii = np.array([1.0, 0.3, 0.6])
    height, angle = (x.ravel() for x in np.meshgrid(np.linspace(-0.9995, 0.9995, 2000), np.linspace(0, 2 * np.pi, 200)))
    ball = np.stack([np.sqrt(1 - height ** 2) * np.cos(angle), height, np.sqrt(1 - height ** 2) * np.sin(angle)], 1)
    weight = np.linalg.norm(ball / radii, axis=1)
    expected = (weight[:, None] * (ball * radii) ** 2).sum(0) / weight.sum()
    points, *_ = sampled(Ellipsoid(*radii), 20_000)
    assert np.allclose((points ** 2).mean(0), expected, rtol=0.02)


def test_prism_refuses_corners_in_clockwise_order():
    with pytest.raises(ValueError, match='clockwise'):
        Prism(TRIANGLE[::-1], 0.5)


def test_parts_are_placed_turned_and_joined():
    rod = Capsule(0.1, 1.0).between((1, 0, 0), (1, 2, 0))
    assert rod.contains(np.array([[1, 1.5, 0], [1, 0.35, 0]])).tolist() == [True, False]
    quarter = Box(1.0, 0.2, 0.2).at(2, 0, 0).orbit('y', 90)  # x goes to -z
    assert np.allclose(quarter.position, [0, 0, -2])
    assert quarter.contains(np.array([[0, 0, -2.4], [0.4, 0, -2]])).tolist() == [True, False]


# Patterns

@pytest.mark.parametrize('pattern', PATTERNS)
def test_patterns_close_around_round_solids(pattern):
    rng = np.random.default_rng(0)
    uv, around, height = rng.uniform(0, 5, (500, 2)), 2.345, rng.uniform(0, 1, 500)
    once, again = (paint('red', pattern, uv + [turns * around, 0], around, 0.4, height) for turns in (0, 1))
    # Rounding flips single points on an edge of the pattern.
    assert (np.abs(once - again).max(1) > 1e-6).mean() < 0.005


def test_colours_and_patterns_are_told_apart():
    assert len(COLORS) >= 10 and len(PATTERNS) >= 6
    own = [np.array(own) for own, _ in COLORS.values()]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(own) for b in own[:i]) > 0.2
    grid = np.stack(np.meshgrid(np.linspace(0, 4, 40), np.linspace(0, 4, 40)), -1).reshape(-1, 2)
    painted = {name: paint('blue', name, grid, 0.0, 1.0, grid[:, 1] / 4) for name in PATTERNS}
    for a, b in product(PATTERNS, PATTERNS):
        assert a == b or np.abs(painted[a] - painted[b]).max(1).mean() > 0.1
    assert {name for name, rgb in painted.items() if np.allclose(rgb, COLORS['blue'][0])} == {'plain'}


# Specs

def test_the_world_is_as_large_as_it_says():
    groups = Counter(category.group for category in CATEGORIES.values() if category.group)
    assert len(SHAPED) >= 24 and len(groups) >= 3 and min(groups.values()) >= 4


def test_no_test_look_is_in_training_and_every_word_is():
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
    # Every category is seen in training with every colour and every pattern, and a quarter of its looks never is.
    for name in SHAPED:
        seen = {look[1:] for look in looks['train'] if look[0] == name}
        assert {color for color, _ in seen} == set(COLORS) and {pattern for _, pattern in seen} == set(PATTERNS)
        held_out = {look[1:] for look in looks['test'] if look[0] == name}
        assert len(held_out) == len(COLORS) * len(PATTERNS) / 4 and len(seen) == 50


def test_other_seeds_share_no_test_look_with_training_either():
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
    """Each category once, with varied looks."""
    return {spec.category: (spec, make_object(spec)) for spec in object_specs(len(CATEGORIES), 3)}


def same_bytes(a, b) -> bool:
    return all(torch.equal(getattr(a.gaussians, name), getattr(b.gaussians, name)) for name in FIELDS)


def test_an_object_is_a_function_of_its_spec(objects):
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
    # Flat: as long as wide, and thin along the third axis.
    assert torch.equal(cloud.log_scales[:, 0], cloud.log_scales[:, 1])
    assert (cloud.scales[:, 2] < 0.1 * cloud.scales[:, 0]).all()
    assert torch.unique(cloud.means, dim=0).shape[0] == 1024


@pytest.mark.parametrize('name', CATEGORIES)
def test_every_gaussian_is_on_the_outside_of_the_object(name, objects):
    spec, toy = objects[name]
    skin, parts = world.make_skin(spec, 1024), world.build_parts(spec)
    normals = toy.gaussians.rotations[:, :, 2].double().numpy()
    assert np.abs(normals - skin.normals).max() < 1e-5
    places = skin.points * skin.radius + skin.centre
    for part in parts:
        assert not part.contains(places + world.CLEARANCE * skin.normals).any()
    below = np.stack([part.contains(places - world.CLEARANCE * skin.normals) for part in parts]).any(0)
    assert below.mean() > 0.97  # the rest is at an edge, or at the open end of an arc


def test_normals_of_a_ball_and_a_box_are_those_of_geometry():
    ball = make_object(spec_of('basketball')).gaussians
    # The least-squares ball: |p|^2 = 2 p.c + k.
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


def test_discs_are_as_large_as_their_neighbours_are_far():
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


def test_small_clouds_and_large_ones_show_the_same_object():
    for n in (1, 2, 5, 3000):
        assert len(make_object(spec_of('windmill'), n).gaussians.validate()) == n
    few, many = (make_object(spec_of('chair'), n).gaussians.means for n in (800, 4000))
    assert torch.cdist(few, many).min(1).values.max() < 0.1


# Captions

def test_captions_name_the_category_and_the_look(objects):
    for spec, toy in objects.values():
        first, *rest = toy.captions
        assert len(set(toy.captions)) == len(toy.captions) >= 4
        said = [word for word in spec.look if word not in ('plain', 'natural', 'clean')]
        assert first.split(' ', 1)[1] == ' '.join([*said, spec.category])
        for caption in toy.captions:
            assert spec.category in caption
            words = caption.split()
            for i, word in enumerate(words):
                if word in ('a', 'an'):
                    assert (word == 'an') == (words[i + 1][0] in 'aeiou'), caption
        # The paraphrases name the colour or tone, the last sentence none.
        assert all(word in caption for word in said if word == spec.look[0] for caption in rest[:3])
        assert not said or not set(said) & set(rest[-1].split())
        assert list(toy.attributes.values()) == list(spec.look)


def test_names_are_file_names():
    assert spec_of('teddy bear', ('orange', 'striped')).name == 'orange_striped_teddy_bear'
    assert spec_of('globe').name == 'globe'


# Pictures

def test_pictures_show_the_object_in_its_colour_on_light_grey():
    for color, strongest in (('red', 0), ('green', 1), ('blue', 2)):
        views = render_views(spec_of('vase', (color, 'plain')), num_views=3, size=48)
        assert views.shape == (3, 48, 48, 3) and views.dtype == np.uint8
        grey = round(0.93 * 255)
        assert np.abs(views[:, ::47, ::47].astype(int) - grey).max() <= 1
        shown = np.abs(views.astype(int) - grey).max(-1) > 40
        assert 0.1 < shown.mean() < 0.7
        mean = views[shown].mean(0)
        assert mean.argmax() == strongest and mean[strongest] > 1.5 * np.sort(mean)[1]


def test_up_is_up_in_pictures():
    """A mushroom's cap has the object's colour and is above its cream stem."""
    row, seen = np.arange(48)[:, None] * np.ones(48), 0
    for view in render_views(spec_of('mushroom', ('blue', 'plain')), num_views=6, size=48).astype(int):
        cap, stem = view[..., 2] > view[..., 0] + 40, view[..., 0] > view[..., 2] + 12
        if stem.sum() > 30:  # from high above the cap hides it
            seen += 1
            assert row[cap].mean() < row[stem].mean() - 5
    assert seen >= 3


def test_cameras_go_around_between_the_stated_elevations():
    spec = spec_of('car')
    cloud = make_object(spec).gaussians
    cameras = world.view_cameras(cloud, world.viewpoints(spec, 8)).double()
    middle = ((cloud.means.amin(0) + cloud.means.amax(0)) / 2).double()
    eyes = -(cameras[:, :3, :3].transpose(1, 2) @ cameras[:, :3, 3:]).squeeze(-1) - middle
    elevation = torch.rad2deg(torch.asin(eyes[:, 1] / eyes.norm(dim=-1)))
    assert elevation.min() > -10.01 and elevation.max() < 50.01 and elevation.max() - elevation.min() > 30
    azimuth = torch.rad2deg(torch.atan2(eyes[:, 0], eyes[:, 2])).sort().values
    assert torch.allclose(azimuth.diff(), torch.full((7,), 45.0).double(), atol=1e-2)
    # The middle of the object is in the middle of every picture.
    seen = (cameras[:, :3, :3] @ middle) + cameras[:, :3, 3]
    assert seen[:, :2].abs().max() < 1e-5 and (seen[:, 2] > 1).all()


# On disk

SMALL = dict(num_train=9, num_val=2, num_test=4, num_views=2, size=32, num_gaussians=64)


def folder_bytes(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def test_shards_hold_the_world_and_do_not_depend_on_workers(tmp_path):
    for workers in (1, 2):
        assert writing.write_world(tmp_path / str(workers), **SMALL, workers=workers) == 15
    assert folder_bytes(tmp_path / '1') == folder_bytes(tmp_path / '2')
    reader = ShardReader(tmp_path / '1')
    assert Counter(reader.splits) == dict(train=9, val=2, test=4) and reader.num_views == 2
    for split in ('train', 'val', 'test'):
        for spec in object_specs(SMALL[f'num_{split}'], 0, split):
            i = reader.uids.index(spec.uid)
            record, toy = reader.read_record(i), make_object(spec, 64)
            assert [caption['text'] for caption in record['captions']] == toy.captions
            assert record['category'] == spec.category and record['attributes'] == spec.attributes
            assert (reader.read_gaussians(i).means - toy.gaussians.means).abs().max() < 1e-3
            views = render_views(spec, 2, 32).astype(int)
            assert np.abs(reader.read_views(i).astype(int) - views).mean() < 10  # WebP, quality 90
            assert np.allclose(record['source']['viewpoints'], world.viewpoints(spec, 2), atol=1e-3)


def test_an_interrupted_world_is_continued_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'ShardWriter', partial(writing.ShardWriter, objects_per_shard=4))
    assert writing.write_world(tmp_path / 'whole', **SMALL, workers=1) == 15

    def interrupted(specs):
        yield from specs[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.write_world(tmp_path / 'cut', **SMALL, workers=1, track=interrupted)
    assert not (tmp_path / 'cut' / 'index.parquet').exists()
    assert writing.write_world(tmp_path / 'cut', **SMALL, workers=1) == 15 - 4
    assert folder_bytes(tmp_path / 'cut') == folder_bytes(tmp_path / 'whole')
    assert writing.write_world(tmp_path / 'cut', **SMALL, workers=1) == 0
    with pytest.raises(ValueError, match='num_gaussians'):
        writing.write_world(tmp_path / 'cut', **{**SMALL, 'num_gaussians': 65})


def test_program_writes_shards_and_files_named_by_what_they_are(tmp_path, capsys):
    status = make_toy_world.main([str(tmp_path / 'world'), '--num-train', '2', '--num-val', '1', '--num-test', '1',
                                  '--num-views', '1', '--size', '16', '--num-gaussians', '64', '--workers', '1',
                                  '--export', str(tmp_path / 'files'), '--num-export', '4'])
    assert status == 0 and len(ShardReader(tmp_path / 'world')) == 4
    files = sorted((tmp_path / 'files').iterdir())
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in files]
    assert Counter(path.suffix for path in files) == {'.ply': 2, '.splat': 1, '.spz': 1}
    specs = {spec.name: spec for spec in writing.export_specs(4)}
    trained = {(s.category, *s.look) for s in object_specs(6000, 0)}
    for path in files:
        spec = specs[path.stem]
        assert path.stem.startswith(spec.look[0]) and path.stem.endswith(spec.category.replace(' ', '_'))
        assert (spec.category, *spec.look) not in trained
        means, expected = read_gaussians(path).means, make_object(spec, 64).gaussians.means
        assert torch.cdist(means, expected).min(1).values.max() < 0.01


@pytest.mark.parametrize('wrong', [dict(num_train=-1), dict(num_views=0), dict(workers=0)])
def test_wrong_numbers_are_named(tmp_path, wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f'{name}={value}'):
        writing.write_world(tmp_path, **{**SMALL, **wrong})
