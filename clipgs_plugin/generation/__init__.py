"""Generation of triplets from meshes, point clouds, posed images, splats and manifests."""
from clipgs_plugin.generation.builders import make_triplet
from clipgs_plugin.generation.fitting import FitSettings
from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart, Points, PosedImages, Triplet
from clipgs_plugin.generation.parts import join_parts
from clipgs_plugin.generation.rendering import ViewRule
from clipgs_plugin.generation.run import Progress, generate
from clipgs_plugin.generation.settings import Execution, GenerationSettings
from clipgs_plugin.generation.sources import SOURCES, Source, detect_source

__all__ = ['SOURCES', 'Execution', 'FitSettings', 'GenerationSettings', 'Listed', 'Mesh', 'MeshPart', 'Points',
           'PosedImages', 'Progress', 'Source', 'Triplet', 'ViewRule', 'detect_source', 'generate', 'join_parts',
           'make_triplet']
