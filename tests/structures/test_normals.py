"""Normals of surfaces whose normals are known."""
import numpy as np

from clipgs_plugin.structures.normals import estimate_normals


def test_normals_of_a_sphere_are_its_points():
    points = np.random.default_rng(0).normal(size=(4000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    normals = estimate_normals(points, points[:50])
    assert normals.dtype == np.float32 and (normals * points[:50]).sum(1).min() > 0.98
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_points_without_a_surface_have_a_direction():
    assert np.array_equal(estimate_normals(np.zeros((5, 3)), np.zeros((2, 3))), [[0, 1, 0]] * 2)
    assert np.isfinite(estimate_normals(np.ones((1, 3)), np.ones((1, 3)))).all()
