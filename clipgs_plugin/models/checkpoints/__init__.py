"""Published checkpoints of point-cloud models: opening, loading, conversion, and the mmengine initialiser.

A path or catalogue name is read (``reading``), its family is detected (``detect``), and its tensors are translated once
into the names of an encoder (``open``, ``families``). The opened checkpoint is then loaded into a module (``load``).
"""
from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.convert import convert_checkpoint, export_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints.detect import detect_family
from clipgs_plugin.models.checkpoints.families import FAMILIES, Architecture, Family, Rule
from clipgs_plugin.models.checkpoints.initializer import PointCloudPretrained
from clipgs_plugin.models.checkpoints.load import (
    LoadedCheckpoint,
    build_point_cloud_model,
    load_point_cloud_checkpoint,
    load_point_cloud_weights,
)
from clipgs_plugin.models.checkpoints.open import ForeignCheckpoint, open_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.checkpoints.report import LoadReport
from clipgs_plugin.models.checkpoints.trained import CLIPGSPretrained

__all__ = [
    'FAMILIES', 'Architecture', 'CLIPGSPretrained', 'Contract', 'Family', 'ForeignCheckpoint', 'LoadReport',
    'LoadedCheckpoint', 'PointCloudPretrained', 'Rule', 'build_point_cloud_model', 'convert_checkpoint',
    'detect_family', 'export_point_cloud_checkpoint', 'load_point_cloud_checkpoint', 'load_point_cloud_weights',
    'open_point_cloud_checkpoint', 'read_checkpoint',
]
