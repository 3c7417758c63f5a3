"""Triplets of Gaussians, views and captions: written and read as shards, with a teacher's features beside them."""
from clipgs_plugin.triplets.encoding import caption_id, decode_gaussians, encode_gaussians
from clipgs_plugin.triplets.features import FeatureWriter, ShardFeatures
from clipgs_plugin.triplets.shards import ShardReader, ShardWriter, rebuild_index

__all__ = ['FeatureWriter', 'ShardFeatures', 'ShardReader', 'ShardWriter', 'caption_id', 'decode_gaussians',
           'encode_gaussians', 'rebuild_index']
