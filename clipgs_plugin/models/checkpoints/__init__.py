"""Readers of foreign checkpoints, one module per family, and the initialiser that applies them."""
from clipgs_plugin.models.checkpoints.family import Family, Rule
from clipgs_plugin.models.checkpoints.initializer import (
    FAMILIES,
    LoadReport,
    PointCloudPretrained,
    detect_family,
    load_point_cloud_weights,
)
from clipgs_plugin.models.checkpoints.reading import read_checkpoint

__all__ = [
    'FAMILIES', 'Family', 'LoadReport', 'PointCloudPretrained', 'Rule', 'detect_family', 'load_point_cloud_weights',
    'read_checkpoint',
]
