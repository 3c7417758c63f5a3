"""Readers of foreign checkpoints, one module per family, and the initialiser that applies them."""
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.converting import convert_checkpoint, export_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints.family import Architecture, Family, Rule
from clipgs_plugin.models.checkpoints.initializer import PointCloudPretrained
from clipgs_plugin.models.checkpoints.loading import (
    FAMILIES,
    ForeignCheckpoint,
    detect_family,
    load_point_cloud_weights,
    open_point_cloud_checkpoint,
)
from clipgs_plugin.models.checkpoints.plain import (
    LoadedCheckpoint,
    build_point_cloud_model,
    load_point_cloud_checkpoint,
)
from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.checkpoints.report import LoadReport

__all__ = [
    'FAMILIES', 'Architecture', 'Contract', 'Family', 'ForeignCheckpoint', 'LoadReport', 'LoadedCheckpoint',
    'PointCloudPretrained', 'Rule', 'build_point_cloud_model', 'convert_checkpoint', 'detect_family',
    'export_point_cloud_checkpoint', 'load_point_cloud_checkpoint', 'load_point_cloud_weights',
    'open_point_cloud_checkpoint', 'read_checkpoint',
]
