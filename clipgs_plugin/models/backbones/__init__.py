"""Backbones: transformers over tokens, and networks over the Gaussians themselves."""
from clipgs_plugin.models.backbones.dgcnn import DGCNN
from clipgs_plugin.models.backbones.openshape import OpenShapePPAT
from clipgs_plugin.models.backbones.point_bert import ULIP, GaussianMAE, PointBERT, PointMAE
from clipgs_plugin.models.backbones.pointnet2 import PointNet2
from clipgs_plugin.models.backbones.recon import ReCon
from clipgs_plugin.models.backbones.recon_plus_plus import ReConPlusPlus
from clipgs_plugin.models.backbones.serialized_transformer import SerializedTransformer
from clipgs_plugin.models.backbones.timm_transformer import TimmTransformer
from clipgs_plugin.models.backbones.uni3d import Uni3D

__all__ = ['DGCNN', 'ULIP', 'GaussianMAE', 'OpenShapePPAT', 'PointBERT', 'PointMAE', 'PointNet2', 'ReCon',
           'ReConPlusPlus', 'SerializedTransformer', 'TimmTransformer', 'Uni3D']
