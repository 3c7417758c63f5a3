"""From what a source lists to a triplet."""
from clipgs_plugin.generation.builders.build import make_triplet

__all__ = ['make_triplet']
