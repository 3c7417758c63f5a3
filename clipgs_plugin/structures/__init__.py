"""Gaussians as data: one object, a padded batch of objects, and the channels that networks take."""
from clipgs_plugin.structures.discs import surface_discs
from clipgs_plugin.structures.gaussian_batch import GaussianBatch
from clipgs_plugin.structures.gaussian_cloud import FIELDS, MISSING_COLOR, SH_C0, GaussianCloud
from clipgs_plugin.structures.stacking import stack_values

__all__ = ['FIELDS', 'MISSING_COLOR', 'SH_C0', 'GaussianBatch', 'GaussianCloud', 'stack_values', 'surface_discs']
