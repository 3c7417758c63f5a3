"""The benchmark of points, on a box and with splats that take no fit."""
import json

import numpy as np
import pytest
import torch

from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.tools import benchmark
from clipgs_plugin.tools.benchmarks import points, robustness, splat_fits
from clipgs_plugin.tools.benchmarks.splat_fits import FitSize, fitted, load_meshes, saturated, with_strays


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    trimesh = pytest.importorskip('trimesh')
    folder = tmp_path_factory.mktemp('meshes')
    for name, sides in (('box', (1, 1, 1)), ('bar', (2, 0.3, 0.4))):
        trimesh.creation.box(sides).export(folder / f'{name}.obj')
    return folder


@pytest.fixture
def on_surface(monkeypatch):
    """Fits that are samples of the surface; the list of those made."""
    made = []

    def make(mesh, size, seed):
        made.append(seed)
        return sample_surface(mesh, size.gaussians, seed).discs()
    monkeypatch.setattr(splat_fits, 'FITS', {'surface': make})
    return made


def test_meshes_are_in_the_unit_sphere_and_too_few_are_an_error(folder):
    meshes = load_meshes(str(folder), 'y', 0, 2)
    assert set(meshes) == {'box', 'bar'}
    corners = meshes['bar'].parts[0].triangles.reshape(-1, 3)
    assert np.linalg.norm(corners, axis=1).max() == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match='holds 2 meshes, expected at least 3'):
        load_meshes(str(folder), 'y', 1, 2)


def test_fits_are_made_once(folder, on_surface, tmp_path):
    mesh, size = load_meshes(str(folder), 'y', 0, 1).popitem()[1], FitSize(gaussians=200)
    first, again = (fitted('box', mesh, 'surface', tmp_path, size, 3) for _ in range(2))
    assert on_surface == [3] and torch.equal(first.means, again.means)
    fitted('box', mesh, 'surface', tmp_path, size, 4)
    assert on_surface == [3, 4]


def test_changes_of_fits_have_the_statistics_they_name(folder):
    mesh = load_meshes(str(folder), 'y', 0, 1).popitem()[1]
    cloud = sample_surface(mesh, 400, 0).discs()
    flat = saturated(cloud, 0)
    assert flat.opacities.min() > 0.999
    assert torch.allclose(flat.log_scales.amin(1), cloud.log_scales.amin(1) - np.log(100), atol=1e-4)
    assert torch.equal(flat.log_scales.amax(1), cloud.log_scales.amax(1))
    strays = with_strays(cloud, 0)
    assert len(strays) == 406 and torch.equal(strays.means[:400], cloud.means)
    assert 1e-3 < strays.means[400:].norm(dim=1).max() <= 1.5


def test_the_table_divides_by_a_second_sampling_and_compares_with_centres():
    found = {('a', 'centres'): [np.array([3.0, 1, 1]), np.array([2.0, 1, 1])],
             ('a', 'SplatsToPoints'): [np.array([1.5, 1, 1]), np.array([2.0, 1, 1])],
             ('a', 'discs'): [np.ones(3)] * 2, ('a', 'centres, thinned'): [np.ones(3)] * 2}
    rows = {(row.fitter, row.way): row for row in points.beside_centers(found)}
    assert rows['a', 'centres'].chamfer == 2.5 and rows['a', 'centres'].left is None
    assert rows['a', 'SplatsToPoints'].left == pytest.approx(0.5)
    assert rows['a', 'SplatsToPoints'].chamfer_spread == 0.25
    assert rows['all', 'SplatsToPoints'].chamfer == 1.75


def test_command_prints_all_ways_of_a_fitter(folder, on_surface, tmp_path, capsys):
    arguments = ['points', '--meshes', str(folder), '--first', '0', '--count', '2', '--cache', str(tmp_path),
                 '--gaussians', '300', '--num-points', '128', '--reference', '500', '--seeds', '0',
                 '--fitters', 'surface,saturated']
    assert benchmark.main([*arguments, '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['cases']
    assert {(row['fitter'], row['way']) for row in rows} == {
        ('mesh', 'sampled, thinned'), *((f, way) for f in ('surface', 'saturated', 'all') for way in points.WAYS)}
    assert all(row['count'] == 2 and row['chamfer'] > 0.5 and row['colors'] < 1 for row in rows)  # one colour
    assert benchmark.main(arguments) == 0
    assert 'SplatsToPoints' in capsys.readouterr().out


def test_embeddings_of_other_fits_are_compared_with_those_of_the_surface(folder, on_surface, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, 'FITTERS', ('surface', 'saturated'))
    monkeypatch.setattr(robustness, 'FitSize', lambda: FitSize(gaussians=300))
    rows = {(row.what, row.way): row for row in robustness.fitters(str(folder), count=2, cache=str(tmp_path))}
    assert set(rows) == {(f'saturated{way}', figure) for way in ('', ', SplatsToPoints')
                         for figure in ('cosine', 'top-1 kept')}
    for (what, figure), row in rows.items():  # discs of a surface are opaque and flat already
        assert row.mean == pytest.approx(1, abs=0.01) and (figure == 'cosine' or row.mean == 1), what
        assert row.objects == 2
    with pytest.raises(ValueError, match='--meshes FOLDER'):
        robustness.fitters()
