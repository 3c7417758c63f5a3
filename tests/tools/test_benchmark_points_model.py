"""The benchmark of a model on points of splats: its answers on known embeddings, and a run on four boxes."""
import json
import math

import numpy as np
import pytest
import torch

from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.tools import benchmark
from clipgs_plugin.tools.benchmarks import points, points_model, splat_fits


def test_hits_and_cosines_of_known_embeddings():
    gallery = torch.eye(8)
    own = torch.tensor([0, 1, 2])
    found = torch.zeros(3, 8)
    found[0, 0] = 1                                           # its own
    found[1, [1, 2]] = torch.tensor([0.6, 0.8])               # one is nearer
    found[2, 2:] = torch.tensor([0.0, 0.5, 0.5, 0.4, 0.4, 0.4])  # five are nearer
    expected = [[1, 0, 0], [1, 1, 0], [1, 0.6, 0]]
    assert np.allclose(points_model.answers(found, gallery, own), expected, atol=1e-6)


def test_gain_is_paired_and_given_back_is_its_share_of_the_loss():
    hits = {('mesh', 'sampled'): [[1, 1, 1, 1], [1, 1, 1, 1]], ('a', 'centres'): [[0, 0, 1, 1], [0, 0, 0, 1]],
            ('a', 'SplatsToPoints'): [[1, 0, 1, 1], [1, 0, 1, 1]]}
    hits |= {('a', way): hits['mesh', 'sampled'] for way in points.WAYS if ('a', way) not in hits}
    found = {(name, *key): np.stack([np.array(value, float)] * 3, 1)
             for name in points_model.INPUTS for key, value in hits.items()}
    rows = {(row.input, row.fitter, row.way): row for row in points_model.beside_centers(found)}
    row = rows['colour', 'a', 'SplatsToPoints']
    assert row.top1 == 0.75 and row.top1_spread == 0 and row.objects == 4
    assert row.gain == 0.375                                  # of the objects: 1, 0, 0.5, 0
    assert row.gain_error == pytest.approx(np.std([1, 0, 0.5, 0], ddof=1) / 2)
    assert row.back == pytest.approx(0.375 / 0.625)
    centers = rows['colour', 'a', 'centres']
    assert centers.gain is None and centers.top1_spread == pytest.approx(math.sqrt(2) / 8)
    assert rows['grey', 'all', 'discs'].back == pytest.approx(1)


def test_nothing_is_given_back_where_the_centres_lose_nothing_certain():
    hits = {('mesh', 'sampled'): [[1, 0, 1, 1]], **{('a', way): [[1, 1, 0, 0]] for way in points.WAYS}}
    found = {(name, *key): np.stack([np.array(value, float)] * 3, 1)
             for name in points_model.INPUTS for key, value in hits.items()}
    row, = (row for row in points_model.beside_centers(found) if (row.input, row.fitter, row.way) == (
        'grey', 'a', 'SplatsToPoints'))
    assert row.gain == 0 and row.back is None


def test_yaws_are_rotations_about_y_and_normalised_clouds_fill_the_unit_sphere():
    turns = points_model.yaws(5, torch.Generator().manual_seed(0))
    assert torch.allclose(turns @ turns.mT, torch.eye(3).expand(5, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turns), torch.ones(5), atol=1e-6)
    assert torch.equal(turns[:, 1], torch.tensor([0.0, 1, 0]).expand(5, 3)) and turns[:, 0, 0].unique().numel() == 5
    cloud = points_model.normalised(torch.rand(2, 50, 3) * 7 + 3)
    assert cloud.mean(1).abs().max() < 1e-6 and torch.allclose(cloud.norm(dim=2).amax(1), torch.ones(2))


def test_augmented_draws_lose_their_colours_together():
    grey = torch.tensor([True, False])[:, None, None]
    cloud, colors = points_model.augmented(torch.rand(2, 60, 3), torch.rand(2, 60, 3), 40, grey)
    assert cloud.shape == colors.shape == (2, 40, 3) and cloud.norm(dim=2).max() < 1.25 + 0.1 * math.sqrt(3) + 0.1
    assert (colors[0] == points_model.GREY).all() and colors[1].std() > 0.1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four meshes, and fits that are samples of the surface."""
    trimesh = pytest.importorskip('trimesh')
    (tmp_path / 'meshes').mkdir()
    for i in range(4):
        trimesh.creation.box((1, 0.2 + 0.3 * i, 1.3 - 0.3 * i)).export(tmp_path / f'meshes/box{i}.obj')
    monkeypatch.setattr(splat_fits, 'FITS', {'surface': lambda mesh, size, seed: sample_surface(
        mesh, size.gaussians, seed).discs()})
    monkeypatch.setattr(points_model, 'POOL', 256)
    return tmp_path / 'meshes'


def test_command_prints_every_way_and_input(folder, tmp_path, capsys):
    arguments = ['points-model', '--meshes', str(folder), '--first', '1', '--count', '2', '--cache',
                 str(tmp_path / 'fits'), '--gaussians', '300', '--num-points', '128', '--epochs', '2', '--draws', '1',
                 '--seeds', '0,1', '--fitters', 'surface']
    assert benchmark.main([*arguments, '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['cases']
    assert [(row['input'], row['fitter'], row['way']) for row in rows] == [
        (name, fitter, way) for name in ('colour', 'grey') for fitter, ways in (
            ('mesh', ('sampled', 'sampled, thinned')), ('surface', points.WAYS), ('all', points.WAYS)) for way in ways]
    assert all(row['objects'] == 2 and 0 <= row['top1'] <= row['recall5'] == 1 for row in rows)
    assert benchmark.main(arguments) == 0
    assert 'given back' in capsys.readouterr().out


def test_training_lowers_the_loss_and_repeats_with_its_seed():
    pools = [(torch.rand(64, 3) * torch.tensor([1, 0.1 + 0.3 * i, 1]), torch.rand(1, 3).expand(64, 3))
             for i in range(4)]
    before, after, again = (points_model.train(pools, 48, epochs, 5) for epochs in (0, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters()))
    rng = torch.Generator().manual_seed(0)

    def margin(encoder: points_model.PointEncoder) -> torch.Tensor:
        first, second = (points_model.embed(encoder, pools, True, rng) for _ in range(2))
        return (torch.eye(4) * 4 / 3 - 1 / 3).mul(first @ second.T).sum() / 4
    assert margin(after) > margin(before) + 0.1


def test_too_few_meshes_are_an_error(folder):
    with pytest.raises(ValueError, match='holds 4 meshes, expected 4 and at least 2 for training'):
        points_model.points_model(str(folder), first=1, count=3)
