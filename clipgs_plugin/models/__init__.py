"""Tokenizers, backbones, losses and the models made of them."""
from clipgs_plugin.models.backbones import ULIP, GaussianMAE, PointBERT, PointMAE, Uni3D
from clipgs_plugin.models.clip_gs import CLIPGS
from clipgs_plugin.models.data_preprocessor import GaussianDataPreprocessor
from clipgs_plugin.models.gs_encoder import GSEncoder
from clipgs_plugin.models.losses import ContrastiveLoss, ImageVotingLoss
from clipgs_plugin.models.point_cloud_model import PointCloudModel
from clipgs_plugin.models.teachers import OpenCLIPTeacher
from clipgs_plugin.models.tokenizers import GSTokenizer, PatchEncoder, PointTokenizer, Tokens

__all__ = [
    'CLIPGS', 'ULIP', 'ContrastiveLoss', 'GSEncoder', 'GSTokenizer', 'GaussianDataPreprocessor', 'GaussianMAE',
    'ImageVotingLoss', 'OpenCLIPTeacher', 'PatchEncoder', 'PointBERT', 'PointCloudModel', 'PointMAE',
    'PointTokenizer', 'Tokens', 'Uni3D',
]
