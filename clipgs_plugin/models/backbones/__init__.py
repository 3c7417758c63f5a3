"""Transformers over tokens."""
from clipgs_plugin.models.backbones.point_bert import ULIP, GaussianMAE, PointBERT, PointMAE
from clipgs_plugin.models.backbones.uni3d import Uni3D

__all__ = ['ULIP', 'GaussianMAE', 'PointBERT', 'PointMAE', 'Uni3D']
