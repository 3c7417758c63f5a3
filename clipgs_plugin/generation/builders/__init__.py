"""Triplets of loaded objects, one module for each kind of content."""
from clipgs_plugin.generation.builders.base import ToFit
from clipgs_plugin.generation.builders.build import build_model, fit_together, make_triplet, prepare

__all__ = ['ToFit', 'build_model', 'fit_together', 'make_triplet', 'prepare']
