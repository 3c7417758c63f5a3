"""Triplets of Gaussians, views and captions on disk: shards, their index, and a teacher's features beside them.

:mod:`clipgs_plugin.generation` makes them.
"""
from clipgs_plugin.triplets.codecs import caption_id, decode_gaussians, encode_gaussians
from clipgs_plugin.triplets.features import FeatureWriter, ShardFeatures
from clipgs_plugin.triplets.shards import ShardReader, ShardWriter, rebuild_index

__all__ = ['FeatureWriter', 'ShardFeatures', 'ShardReader', 'ShardWriter', 'caption_id', 'decode_gaussians',
           'encode_gaussians', 'rebuild_index']
