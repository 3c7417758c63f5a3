"""Models and their components: tokenizers, backbones, losses and teachers."""
from clipgs_plugin.models.backbones import (
    DGCNN,
    ULIP,
    GaussianMAE,
    OpenShapePPAT,
    PointBERT,
    PointMAE,
    PointNet2,
    ReCon,
    ReConPlusPlus,
    SerializedTransformer,
    TimmTransformer,
    Uni3D,
)
from clipgs_plugin.models.cached_views import CachedViews
from clipgs_plugin.models.checkpoints import load_point_cloud_checkpoint
from clipgs_plugin.models.classifier_head import ClassifierHead, PublishedHead
from clipgs_plugin.models.clip_gs import CLIPGS
from clipgs_plugin.models.data_preprocessor import GaussianDataPreprocessor
from clipgs_plugin.models.gs_classifier import GSClassifier
from clipgs_plugin.models.gs_encoder import GSEncoder
from clipgs_plugin.models.indexed_encoder import IndexedEncoder, encoder_inputs
from clipgs_plugin.models.losses import ContrastiveLoss, ImageVotingLoss
from clipgs_plugin.models.multi_view_clip import MultiViewCLIP
from clipgs_plugin.models.point_backbone import GSPointBackbone
from clipgs_plugin.models.point_cloud_model import PointCloudModel
from clipgs_plugin.models.query_projection import MixedProjection
from clipgs_plugin.models.teachers import OpenCLIPTeacher
from clipgs_plugin.models.tokenizers import (
    GSTokenizer,
    PatchEncoder,
    PointTokenizer,
    SetAbstraction,
    SoftPatchEncoder,
    Tokens,
)

__all__ = [
    'CLIPGS', 'DGCNN', 'ULIP', 'CachedViews', 'ClassifierHead', 'ContrastiveLoss', 'GSClassifier', 'GSEncoder',
    'GSPointBackbone', 'GSTokenizer', 'GaussianDataPreprocessor', 'GaussianMAE', 'ImageVotingLoss', 'IndexedEncoder',
    'MixedProjection', 'MultiViewCLIP', 'OpenCLIPTeacher', 'OpenShapePPAT', 'PatchEncoder', 'PointBERT',
    'PointCloudModel', 'PointMAE', 'PointNet2', 'PointTokenizer', 'PublishedHead', 'ReCon', 'ReConPlusPlus',
    'SerializedTransformer', 'SetAbstraction', 'SoftPatchEncoder', 'TimmTransformer', 'Tokens', 'Uni3D',
    'encoder_inputs', 'load_point_cloud_checkpoint',
]
