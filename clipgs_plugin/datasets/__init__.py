"""Datasets, samplers and collation; importing the package registers them."""
from clipgs_plugin.datasets import public, transforms
from clipgs_plugin.datasets.base import GaussianDataset, item_rng
from clipgs_plugin.datasets.collate import collate_gaussians
from clipgs_plugin.datasets.episodes import Episode, FewShotEpisodes, load_episodes
from clipgs_plugin.datasets.frozen_features import FrozenFeatures
from clipgs_plugin.datasets.gaussian_folder import GaussianFolder
from clipgs_plugin.datasets.modelnet import ModelNetGaussians
from clipgs_plugin.datasets.prepared_objects import PreparedObjects
from clipgs_plugin.datasets.published_folds import PublishedFold, PublishedFolds, published_episodes
from clipgs_plugin.datasets.samplers import EpochSampler
from clipgs_plugin.datasets.stray_views import StrayViewTriplets
from clipgs_plugin.datasets.triplet_dataset import TripletDataset

__all__ = ['Episode', 'EpochSampler', 'FewShotEpisodes', 'FrozenFeatures', 'GaussianDataset', 'GaussianFolder',
           'ModelNetGaussians', 'PreparedObjects', 'PublishedFold', 'PublishedFolds', 'StrayViewTriplets',
           'TripletDataset', 'collate_gaussians', 'item_rng', 'load_episodes', 'public', 'published_episodes',
           'transforms']
