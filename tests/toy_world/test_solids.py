"""Solids against textbook areas and volumes, and patterns on them."""
import math
from itertools import product

import numpy as np
import pytest

from clipgs_plugin.toy_world import COLORS, PATTERNS, solids
from clipgs_plugin.toy_world.patterns import paint
from clipgs_plugin.toy_world.solids import Box, Capsule, Ellipsoid, Lathe, Prism, Torus, even_draws

TRIANGLE = [(0.0, 0.0), (0.8, 0.0), (0.0, 0.6)]
SOLIDS = {  # solid, area, volume
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
def test_areas_and_volumes_match_the_textbook(name):
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
    # A point within 1e-4 of an edge may cross the neighbouring face.
    assert solid.contains(points - 1e-4 * normals).mean() > 0.99


def cells_of_boxes(points, normals):
    """Return the share of the surface on each side of a box."""
    axis = np.abs(normals).argmax(1)
    return np.bincount(2 * axis + (normals[np.arange(len(axis)), axis] < 0), minlength=6) / len(axis)


def test_samples_are_even_by_area():
    points, normals, *_ = sampled(Box(1.0, 0.5, 2.0))
    assert np.allclose(cells_of_boxes(points, normals), np.array([1, 1, 2, 2, 0.5, 0.5]) / 7, atol=0.004)
    points, *_ = sampled(Torus(0.8, 0.3))
    # Pappus: the outer half of a tube is 1/2 + r / (pi R) of the area.
    assert (np.hypot(points[:, 0], points[:, 1]) > 0.8).mean() == pytest.approx(0.5 + 0.3 / (math.pi * 0.8), abs=0.006)
    points, normals, *_ = sampled(solids.frustum(0.8, 0.2, 1.0))
    side = np.hypot(points[:, 0], points[:, 2])[np.abs(normals[:, 1]) < 0.9]
    # The share of a cone's side beyond radius x is (R^2 - x^2) / (R^2 - r^2).
    assert (side > 0.5).mean() == pytest.approx((0.64 - 0.25) / (0.64 - 0.04), abs=0.006)
    # Ellipsoid, against a sum over a fine grid of latitudes and longitudes.
    radii = np.array([1.0, 0.3, 0.6])
    height, angle = (x.ravel() for x in np.meshgrid(np.linspace(-0.9995, 0.9995, 2000), np.linspace(0, 2 * np.pi, 200)))
    ball = np.stack([np.sqrt(1 - height ** 2) * np.cos(angle), height, np.sqrt(1 - height ** 2) * np.sin(angle)], 1)
    weight = np.linalg.norm(ball / radii, axis=1)
    expected = (weight[:, None] * (ball * radii) ** 2).sum(0) / weight.sum()
    points, *_ = sampled(Ellipsoid(*radii), 20_000)
    assert np.allclose((points ** 2).mean(0), expected, rtol=0.02)


def test_clockwise_corners_of_a_prism_raise():
    with pytest.raises(ValueError, match='clockwise'):
        Prism(TRIANGLE[::-1], 0.5)


def test_parts_are_placed_turned_and_joined():
    rod = Capsule(0.1, 1.0).between((1, 0, 0), (1, 2, 0))
    assert rod.contains(np.array([[1, 1.5, 0], [1, 0.35, 0]])).tolist() == [True, False]
    quarter = Box(1.0, 0.2, 0.2).at(2, 0, 0).orbit('y', 90)  # x goes to -z
    assert np.allclose(quarter.position, [0, 0, -2])
    assert quarter.contains(np.array([[0, 0, -2.4], [0.4, 0, -2]])).tolist() == [True, False]


@pytest.mark.parametrize('pattern', PATTERNS)
def test_patterns_close_around_round_solids(pattern):
    rng = np.random.default_rng(0)
    uv, around, height = rng.uniform(0, 5, (500, 2)), 2.345, rng.uniform(0, 1, 500)
    once, again = (paint('red', pattern, uv + [turns * around, 0], around, 0.4, height) for turns in (0, 1))
    # Rounding flips single points at edges of the pattern.
    assert (np.abs(once - again).max(1) > 1e-6).mean() < 0.005


def test_colours_and_patterns_are_distinguishable():
    assert len(COLORS) >= 10 and len(PATTERNS) >= 6
    own = [np.array(own) for own, _ in COLORS.values()]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(own) for b in own[:i]) > 0.2
    grid = np.stack(np.meshgrid(np.linspace(0, 4, 40), np.linspace(0, 4, 40)), -1).reshape(-1, 2)
    painted = {name: paint('blue', name, grid, 0.0, 1.0, grid[:, 1] / 4) for name in PATTERNS}
    for a, b in product(PATTERNS, PATTERNS):
        assert a == b or np.abs(painted[a] - painted[b]).max(1).mean() > 0.1
    assert {name for name, rgb in painted.items() if np.allclose(rgb, COLORS['blue'][0])} == {'plain'}
