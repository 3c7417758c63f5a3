"""Format of triplet datasets: Gaussians, views and captions in shards, with an index and cached teacher features.

:mod:`~clipgs_plugin.triplets.layout` lists the files. Any tar tool or ``webdataset`` reads the shards; nothing is
pickled. :mod:`clipgs_plugin.generation` makes datasets, :mod:`~clipgs_plugin.triplets.inspection` checks them.
"""
from clipgs_plugin.triplets.codecs import caption_id, decode_gaussians, encode_gaussians
from clipgs_plugin.triplets.features import FeatureWriter, ShardFeatures
from clipgs_plugin.triplets.index import rebuild_index
from clipgs_plugin.triplets.reader import ShardReader
from clipgs_plugin.triplets.writer import ShardWriter

__all__ = ['FeatureWriter', 'ShardFeatures', 'ShardReader', 'ShardWriter', 'caption_id', 'decode_gaussians',
           'encode_gaussians', 'rebuild_index']
