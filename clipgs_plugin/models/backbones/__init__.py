"""Transformers over tokens."""
from clipgs_plugin.models.backbones.point_bert import PointBERT
from clipgs_plugin.models.backbones.uni3d import Uni3D

__all__ = ['PointBERT', 'Uni3D']
