"""Cues of the up axis that the benchmark tries."""
import numpy as np
import pytest

from clipgs_plugin.ops.rotations import AXES
from clipgs_plugin.structures.discs import surface_discs
from clipgs_plugin.tools.benchmarks.upright import Turned, wider_figures
from clipgs_plugin.tools.benchmarks.upright_cues_tried import TRIED, tried_cues


def table():
    """A square top at height 1 on four legs at its corners, of side 1.6."""
    g = np.random.default_rng(0)
    top = np.stack([g.uniform(-0.8, 0.8, 3000), np.full(3000, 1.0), g.uniform(-0.8, 0.8, 3000)], 1)
    legs = np.stack([g.choice([-0.8, 0.8], 1000), g.uniform(0, 1, 1000), g.choice([-0.8, 0.8], 1000)], 1)
    points = np.concatenate([top, legs])
    return surface_discs(points, np.tile([0.0, 1.0, 0.0], (4000, 1)), np.full((4000, 3), 0.5))


def test_cues_of_a_table_have_their_known_values():
    found = {axis: dict(zip(TRIED, row)) for axis, row in zip(AXES, tried_cues(table()))}
    up, down = found['y'], found['-y']
    assert up['contact'] == pytest.approx(1, abs=0.05)  # the legs span the footprint
    assert up['filled'] < 0.1 < 0.8 < up['filled top'] < 1.3
    assert (up['filled'], up['filled top']) == (down['filled top'], down['filled'])
    assert up['centred'] == pytest.approx(0, abs=0.2) and up['second symmetry'] == down['second symmetry']
    assert up['second symmetry'] > -0.05 > found['x']['second symmetry'] - 0.02
    assert up['walls'] == pytest.approx(0.25, abs=0.03)  # the legs
    assert found['x']['walls'] > 0.7  # the top is a wall of the table on its side


def test_categories_are_left_out_of_the_fit():
    """A cue that is right for each category but in the fit of another: opposite signs in two of them."""
    g = np.random.default_rng(0)
    right = g.integers(6, size=16)
    cues = np.zeros((16, 6, 14))
    sign = np.repeat([1, -1], 8)  # two categories of four objects, each turned twice
    cues[np.arange(16), right, 0] = sign
    data = Turned(cues, right, np.tile([0, 1], 8))
    nothing = Turned(np.zeros((2, 6, 14)), right[:2], np.array([0, 1]))
    rows = wider_figures({'meshes': nothing, 'points': data}, {'meshes': nothing, 'points': data}, 4, 4)
    left_out = [row.mean for row in rows if row.what.endswith('left out')]
    assert left_out == [0, 0] and len(rows) == 6
