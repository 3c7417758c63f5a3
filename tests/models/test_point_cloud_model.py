"""Inputs of the published point-cloud models."""
import pytest
import torch
from torch import nn

from clipgs_plugin.models import PointCloudModel, PointTokenizer, Uni3D


@pytest.fixture
def model():
    return PointCloudModel(PointTokenizer(8, 6, 32), Uni3D('ti', 32, 1), nn.Linear(192, 24)).eval()


@pytest.mark.parametrize(('arguments', 'match'), [
    (dict(colors=torch.full((1, 30, 3), 200.0)), r'colors reach 200, expected sRGB in \[0, 1\]'),
    (dict(colors=torch.zeros(1, 30, 3, dtype=torch.uint8)), r'colors are torch\.uint8, expected a tensor of floats'),
    (dict(colors=torch.zeros(1, 29, 3)), r'colors have shape \(1, 29, 3\)'),
    (dict(neighbor_idx=torch.zeros(1, 4, 3, dtype=torch.int64)), 'neighbor_idx is given without center_idx'),
    (dict(center_idx=torch.tensor([[0, 30]])), 'center_idx ranges from 0 to 30, expected indices of points, 0 to 29'),
    (dict(center_idx=torch.tensor([0, 3])), r'center_idx is torch\.int64 of shape \(2,\), expected .* \(1, any\)'),
    (dict(center_idx=torch.tensor([[0, 3]]), neighbor_idx=torch.tensor([[[0, -1], [1, 2]]])),
     'neighbor_idx ranges from -1 to 2'),
    (dict(center_idx=torch.tensor([[0.0, 3.0]])), r'center_idx is torch\.float32'),
])
def test_wrong_inputs_are_named(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model(torch.rand(1, 30, 3), **arguments)


def test_float64_points_and_int32_indices_are_accepted(model):
    points, center_idx = torch.rand(1, 30, 3), torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        expected = model(points, center_idx=center_idx).embedding
        assert torch.equal(model(points.double(), center_idx=center_idx.int()).embedding, expected)
