"""Edge convolution over Gaussians, and a network of them."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, MessagePassing

from clipgs_plugin.geometric.edges import EDGE_FEATURES, Shapes, edge_width, gaussian_edges
from clipgs_plugin.geometric.graph_backbone import GraphBackbone
from clipgs_plugin.geometric.neighbors import knn_graph
from clipgs_plugin.models.backbones.blocks import masked_max, masked_mean
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import RAW_SLICES


class GaussianEdgeConv(MessagePassing):
    r"""Edge convolution of "Dynamic Graph CNN for Learning on Point Clouds" (arXiv 1801.07829) with features of edges.

    .. math:: \mathbf{x}'_i = \max_{j \in \mathcal{N}(i)} h_\Theta(\mathbf{x}_i \, \Vert \, \mathbf{x}_j - \mathbf{x}_i
        \, \Vert \, \mathbf{e}_{ji})

    with :math:`\mathbf{e}_{ji}` from :func:`gaussian_edges`, so that the message knows how two Gaussians lie to each
    other and not only where.

    Args:
        nn: Network :math:`h_\Theta` from (E, 2 C + edge width) to (E, D).
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(N, C)`, edges :math:`(2, E)`, edge features :math:`(E, W)`
        - **output:** node features :math:`(N, D)`
    """

    def __init__(self, nn: nn.Module, **kwargs) -> None:
        super().__init__(**{'aggr': 'max', **kwargs})
        self.nn = nn

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, edge_attr=edge_attr)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return self.nn(torch.cat([x_i, x_j - x_i, edge_attr], dim=-1))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(nn={self.nn})'


@MODELS.register_module()
class GaussianGraphNet(GraphBackbone):
    """Edge convolutions on the graph of nearest Gaussians, with anisotropic features of edges.

    The layout of DGCNN's classifier (arXiv 1801.07829): a final layer takes the outputs of all edge convolutions, and
    its maximum and mean over the object are the feature. The graph is that of positions in all layers. With
    ``attributes`` of colour and opacity alone the result does not depend on rotations of the object.

    Args:
        k: Number of neighbours of a Gaussian, itself included.
        widths: Output widths of the edge convolutions.
        embed_dims: D, width of the final layer.
        edges: Features of the edges, see :func:`gaussian_edges`. ``('mahalanobis', 'overlap')`` do not depend on the
            labelling of a Gaussian's axes.
        backend: Kernel of the neighbours, see :func:`knn`.
        common: Arguments of :class:`~clipgs_plugin.models.backbones.base.CloudBackbone`. The attribute ``'xyz'`` is the
            position in the object.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, 2 D)
    """

    def __init__(self, k: int = 16, widths: Sequence[int] = (64, 64, 128), embed_dims: int = 256,
                 edges: Sequence[str] = tuple(EDGE_FEATURES), backend: str = 'auto', **common) -> None:
        super().__init__(2 * embed_dims, **common)
        self.k = k
        self.edges = tuple(edges)
        self.backend = backend
        inputs = [self.in_channels, *widths[:-1]]
        self.convs = nn.ModuleList([GaussianEdgeConv(_mlp(2 * channels + edge_width(edges), width))
                                    for channels, width in zip(inputs, widths)])
        self.embed = _mlp(sum(widths), embed_dims)

    def extra_repr(self) -> str:
        return f'k={self.k}, edges={self.edges}, attributes={self.attributes}, scale={self.scale!r}'

    def encode(self, raw: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        shapes = Shapes(*(raw[:, RAW_SLICES[name]] for name in ('xyz', 'quat', 'scale')))
        edge_index = knn_graph(shapes.pos, self.k, batch, self.backend)
        edge_attr = gaussian_edges(shapes, shapes, edge_index, self.edges).to(self.dtype)
        x, outputs = self.linearise(raw).to(self.dtype), []
        for conv in self.convs:
            x = conv(x, edge_index, edge_attr)
            outputs.append(x)
        return self.embed(torch.cat(outputs, dim=1)), batch

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """Return the mask of Gaussians in the result of :meth:`forward_features`, (B, N) bool."""
        return batch.mask

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate the maximum and the mean over the Gaussians, (B, 2 D)."""
        return torch.cat([masked_max(features, mask), masked_mean(features, mask)], dim=-1)


def _mlp(in_channels: int, out_channels: int) -> MLP:
    return MLP([in_channels, out_channels], plain_last=False, bias=False)
