"""Tokenizers, backbones, losses and the models made of them."""
from clipgs_plugin.models.clip_gs import CLIPGS
from clipgs_plugin.models.data_preprocessor import GaussianDataPreprocessor
from clipgs_plugin.models.losses import ContrastiveLoss, ImageVotingLoss

__all__ = ['CLIPGS', 'ContrastiveLoss', 'GaussianDataPreprocessor', 'ImageVotingLoss']
