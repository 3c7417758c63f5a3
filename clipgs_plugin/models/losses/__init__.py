"""Losses that align 3DGS embeddings with a teacher's features."""
from clipgs_plugin.models.losses.contrastive import ContrastiveLoss
from clipgs_plugin.models.losses.image_voting import ImageVotingLoss

__all__ = ['ContrastiveLoss', 'ImageVotingLoss']
