"""Triplets of Gaussians, views and captions: made of anything, stored as shards, with a teacher's features beside."""
from clipgs_plugin.triplets.encoding import caption_id, decode_gaussians, encode_gaussians
from clipgs_plugin.triplets.features import FeatureWriter, ShardFeatures
from clipgs_plugin.triplets.fitting import FitSettings
from clipgs_plugin.triplets.generation import Progress, generate, join_parts
from clipgs_plugin.triplets.inspection import inspect
from clipgs_plugin.triplets.inspection_page import write_page
from clipgs_plugin.triplets.making import make_triplet
from clipgs_plugin.triplets.objects import Listed, Mesh, MeshPart, Points, PosedImages, Triplet
from clipgs_plugin.triplets.pictures import contact_sheet
from clipgs_plugin.triplets.settings import GenerationSettings
from clipgs_plugin.triplets.shards import ShardReader, ShardWriter, rebuild_index
from clipgs_plugin.triplets.sources import SOURCES, Source, detect_source
from clipgs_plugin.triplets.views import ViewRule

__all__ = ['SOURCES', 'FeatureWriter', 'FitSettings', 'GenerationSettings', 'Listed', 'Mesh', 'MeshPart', 'Points',
           'PosedImages', 'Progress', 'ShardFeatures', 'ShardReader', 'ShardWriter', 'Source', 'Triplet', 'ViewRule',
           'caption_id', 'contact_sheet', 'decode_gaussians', 'detect_source', 'encode_gaussians', 'generate',
           'inspect', 'join_parts', 'make_triplet', 'rebuild_index', 'write_page']
