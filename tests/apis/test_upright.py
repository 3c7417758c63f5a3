"""Estimate of the up axis."""
import numpy as np
import pytest
import torch

from clipgs_plugin import GaussianCloud, ops, read_gaussians
from clipgs_plugin.apis.upright import MODEL_WEIGHT, estimate_up, model_cue, up_estimates
from clipgs_plugin.apis.upright_cues import CUES, up_cues
from clipgs_plugin.ops.rotations import AXES, y_rotation
from clipgs_plugin.structures.discs import surface_discs


def cone() -> GaussianCloud:
    """Return a closed cone of height 2 and radius 1 with its tip at +y."""
    g = np.random.default_rng(0)
    angle, radius = g.uniform(0, 2 * np.pi, 4000), np.sqrt(g.random(4000))
    height = np.where(np.arange(4000) < 2760, 2 * (1 - radius), 0)  # areas of side and base are as sqrt(5) to 1
    points = np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], 1)
    return surface_discs(points, np.tile([0.0, 1.0, 0.0], (4000, 1)), np.full((4000, 3), 0.5))


@pytest.mark.parametrize('axis', AXES)
def test_a_cone_stands_on_its_base_in_any_frame(axis):
    found = estimate_up(cone().transform(1e3 * ops.axis_change('y', axis)))
    assert found.axis == axis and found.confidence > 0.8
    assert list(found.scores) == list(AXES) and sum(found.scores.values()) == pytest.approx(1)
    assert found.scores[axis] == found.confidence == max(found.scores.values())


def test_cues_of_a_cone_have_their_known_values():
    row = dict(zip(CUES, up_cues(cone())[AXES.index('y')]))
    assert row['support'] == pytest.approx(1, abs=0.02)
    assert row['stability'] == pytest.approx(np.arctan(1 / (2 / 3 * 0.69)), abs=0.05)  # centre at 0.46, edge at 1
    assert row['low_mass'] == pytest.approx(0.5 - 0.46 / 2, abs=0.02)
    assert row['height'] == pytest.approx(np.log(2 / 2), abs=0.02)
    assert row['base'] > 0.3 and row['taper'] > 0 and abs(row['detail']) < 1e-6


def test_cues_turn_with_the_object(random_cloud):
    cloud = random_cloud(1500)
    before = up_cues(cloud)
    for axis in AXES[1:]:
        turned = up_cues(cloud.transform(ops.axis_change('x', axis)))
        columns = [CUES.index(name) for name in ('support', 'stability', 'height', 'low_mass', 'base', 'detail')]
        assert np.allclose(turned[AXES.index(axis), columns], before[0, columns], atol=1e-3)


@pytest.mark.parametrize('name', ['angel.sog', 'guitar.compressed.ply', 'potted_plant.splat', 'sneaker_white.splat',
                                  'trumpet_statue.sog'])
def test_captured_objects_have_minus_y_up(splats, name):
    assert estimate_up(read_gaussians(splats / name)).axis == '-y'


@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_degenerate_objects_have_an_estimate(random_cloud, count):
    for cloud in (random_cloud(count), random_cloud(count).replace(means=torch.zeros(count, 3))):
        found = estimate_up(cloud)
        assert found.axis in AXES and 0 < found.confidence <= 1


class ByHeight:
    """A published model: its embedding is constant under turns about y if the object has x and z alike."""

    name = 'uni3d-b'

    def embed_turns(self, cloud, turns):
        rows = [cloud.transform(y_rotation(2 * np.pi * i / turns)).means.var(0) for i in range(turns)]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def test_a_model_prefers_axes_about_which_turns_change_little():
    cue = model_cue(cone().transform(ops.axis_change('y', 'z')), ByHeight())
    assert set(np.argsort(cue)[-2:]) == {AXES.index('z'), AXES.index('-z')}
    assert cue.mean() == pytest.approx(0, abs=1e-9) and cue.std() == pytest.approx(1)


def test_a_model_joins_the_geometry_by_the_weight_of_its_name():
    cloud, model = cone().transform(ops.axis_change('y', 'z')), ByHeight()
    found, cue = up_estimates(cloud, model), MODEL_WEIGHT * model_cue(cloud, model)
    assert found['geometry'] == estimate_up(cloud) == up_estimates(cloud)['all']
    assert found['all'] == estimate_up(cloud, model)
    # Probabilities of the model alone are the factor between those of all and of the geometry.
    scores = {by: np.array(list(each.scores.values())) for by, each in found.items()}
    np.testing.assert_allclose(scores['model'], np.exp(cue) / np.exp(cue).sum(), rtol=1e-9)
    joined = scores['geometry'] * scores['model']
    np.testing.assert_allclose(scores['all'], joined / joined.sum(), rtol=1e-9)

    model.name = 'clipgs_toy'  # measured, and left out
    without = up_estimates(cloud, model)
    assert without['all'] == found['geometry'] and without['model'] == found['model']
