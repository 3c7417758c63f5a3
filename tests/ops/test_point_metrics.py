import math

import pytest
import torch

from clipgs_plugin.ops.point_metrics import chamfer_distance, color_error, implied_normals, nearest, normal_error


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 3, generator=generator), torch.rand(70, 3, generator=generator)


def test_chamfer_distance_equals_the_formula_over_all_pairs(sets):
    a, b = sets
    forward = sum(min(math.dist(x, y) for y in b.tolist()) for x in a.tolist()) / 40
    backward = sum(min(math.dist(x, y) for x in a.tolist()) for y in b.tolist()) / 70
    assert chamfer_distance(a, b) == pytest.approx((forward + backward) / 2, rel=1e-5)
    assert chamfer_distance(a, b) == pytest.approx(chamfer_distance(b, a), rel=1e-12)
    assert chamfer_distance(a, a) == 0


def test_nearest_finds_index_and_distance():
    index, distance = nearest(torch.tensor([[0.0, 0, 0], [5, 0, 0]]), torch.tensor([[4.0, 0, 0], [0, 3, 0]]))
    assert index.tolist() == [1, 0] and distance.tolist() == [3, 1]


def test_color_error_compares_with_the_nearest_target(sets):
    a, b = sets
    colors, targets = a.flip(1), b.flip(1)
    pairs = torch.cdist(a.double(), b.double()).argmin(1)
    assert color_error(a, colors, b, targets) == pytest.approx(float((colors - targets[pairs]).abs().mean()), rel=1e-5)
    red, green = torch.tensor([[1.0, 0, 0]]).expand(40, 3), torch.tensor([[0.0, 1, 0]]).expand(70, 3)
    assert color_error(a, red, b, green) == pytest.approx(2 / 3)


def test_implied_normals_of_a_plane_are_its_normal(sets):
    flat = sets[1] * torch.tensor([1.0, 1, 0])
    assert torch.allclose(implied_normals(flat).abs(), torch.tensor([0.0, 0, 1], dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize('degrees', [0, 30, 90, 150])
def test_normal_error_is_the_angle_without_sign(sets, degrees):
    flat, angle = sets[1] * torch.tensor([1.0, 1, 0]), math.radians(degrees)
    normals = torch.tensor([[math.sin(angle), 0, math.cos(angle)]]).expand(70, 3)
    assert normal_error(flat, flat, normals) == pytest.approx(min(degrees, 180 - degrees), abs=0.05)
