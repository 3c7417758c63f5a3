"""Transforms of :class:`~clipgs_plugin.geometric.GaussianData`, which compose with those of torch-geometric."""
from clipgs_plugin.geometric.transforms.drop_opacity import DropOpacity
from clipgs_plugin.geometric.transforms.gaussian_features import GaussianFeatures
from clipgs_plugin.geometric.transforms.normalize_gaussians import NormalizeGaussians
from clipgs_plugin.geometric.transforms.random_rotate_gaussians import RandomRotateGaussians
from clipgs_plugin.geometric.transforms.sample_gaussians import SampleGaussians

__all__ = ['DropOpacity', 'GaussianFeatures', 'NormalizeGaussians', 'RandomRotateGaussians', 'SampleGaussians']
