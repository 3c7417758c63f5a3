"""3D Gaussians in torch-geometric; nothing else in the library imports this package.

``custom_imports=dict(imports=['clipgs_plugin.geometric'])`` makes its backbones known to configs.
"""
try:
    import torch_geometric  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("clipgs_plugin.geometric needs torch-geometric; pip install torch-geometric",
                              name=error.name) from error

from clipgs_plugin.geometric.conversion import (
    channels_to_batch,
    from_gaussian_batch,
    node_channels,
    to_gaussian_batch,
)
from clipgs_plugin.geometric.data import GaussianData
from clipgs_plugin.geometric.datasets import GaussianDataset, GaussianOnDiskDataset
from clipgs_plugin.geometric.edge_conv import GaussianEdgeConv, GaussianGraphNet
from clipgs_plugin.geometric.edges import gaussian_edges
from clipgs_plugin.geometric.encoder import GaussianEncoder, GaussianTokenizer
from clipgs_plugin.geometric.neighbors import farthest_points, knn, knn_graph
from clipgs_plugin.geometric.set_abstraction import GraphPointNet2, SetAbstraction
from clipgs_plugin.geometric.transforms import (
    DropOpacity,
    GaussianFeatures,
    NormalizeGaussians,
    RandomRotateGaussians,
    SampleGaussians,
)

__all__ = [
    'DropOpacity', 'GaussianData', 'GaussianDataset', 'GaussianEdgeConv', 'GaussianEncoder', 'GaussianFeatures',
    'GaussianGraphNet', 'GaussianOnDiskDataset', 'GaussianTokenizer', 'GraphPointNet2', 'NormalizeGaussians',
    'RandomRotateGaussians', 'SampleGaussians', 'SetAbstraction', 'channels_to_batch', 'farthest_points',
    'from_gaussian_batch', 'gaussian_edges', 'knn', 'knn_graph', 'node_channels', 'to_gaussian_batch',
]
