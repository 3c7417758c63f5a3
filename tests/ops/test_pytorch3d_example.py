"""The example that renders points with pytorch3d beside the Gaussians."""
import ast

import pytest

from clipgs_plugin import write_gaussians


def test_points_and_gaussians_cover_the_same_pixels(root, tmp_path, random_cloud, monkeypatch):
    pytest.importorskip('pytorch3d.renderer')
    monkeypatch.syspath_prepend(root / 'examples')
    import pytorch3d_points
    cloud = random_cloud(1500)
    means = cloud.means * cloud.means.new_tensor([1.0, 0.3, 0.6])  # no symmetry that hides an exchanged axis
    write_gaussians(cloud.replace(means=means, log_scales=cloud.log_scales - 1), tmp_path / 'object.ply')
    out = tmp_path / 'points.png'
    gaussians, points = pytorch3d_points.main([str(tmp_path / 'object.ply'), '--out', str(out), '--size', '64'])
    assert gaussians.shape == points.shape == (4, 64, 64, 3) and out.is_file()
    drawn, covered = ((views - 1).abs().amax(-1) > 0.1 for views in (points, gaussians))
    assert ((drawn & covered).sum((1, 2)) / (drawn | covered).sum((1, 2))).min() > 0.7


def test_the_example_is_short(root):
    text = (root / 'examples' / 'pytorch3d_points.py').read_text(encoding='utf-8')
    assert text.count('\n') < 80
    assert ast.get_docstring(ast.parse(text))
