"""Losses that align 3DGS embeddings with those of a teacher."""
from clipgs_plugin.models.losses.contrastive import ContrastiveLoss
from clipgs_plugin.models.losses.image_voting import ImageVotingLoss

__all__ = ['ContrastiveLoss', 'ImageVotingLoss']
