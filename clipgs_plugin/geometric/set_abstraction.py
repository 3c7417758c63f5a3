"""Set abstraction by message passing, and a network of such layers."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, PointNetConv

from clipgs_plugin.geometric.graph_backbone import GraphBackbone
from clipgs_plugin.geometric.neighbors import farthest_points, knn
from clipgs_plugin.models.backbones.blocks import masked_max
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch
from clipgs_plugin.structures.attributes import RAW_SLICES


class SetAbstraction(nn.Module):
    r"""Set abstraction of "PointNet++: Deep Hierarchical Feature Learning on Point Sets" (arXiv 1706.02413).

    .. math:: \mathbf{x}'_i = \max_{j \in \mathcal{N}(i)} h_\Theta(\mathbf{x}_j \, \Vert \, \mathbf{p}_j - \mathbf{p}_i)

    over the k nearest nodes within a radius of each centre. A number of centres per object, rather than a share of its
    nodes, keeps the cost of an object independent of its size.

    Args:
        num_centers: Number of centres of an object; a smaller object uses all its nodes.
        radius: Radius of a neighbourhood, in the unit of the positions.
        k: Largest number of neighbours.
        nn: Network :math:`h_\Theta` from (E, C + 3) to (E, D).
        backend: Kernel of the neighbours, see :func:`knn`.

    Shapes:
        - **input:** node features :math:`(N, C)`, positions :math:`(N, 3)`, batch vector :math:`(N)`
        - **output:** the same of the centres, :math:`(M, D)`, :math:`(M, 3)`, :math:`(M)`
    """

    def __init__(self, num_centers: int, radius: float, k: int, nn: nn.Module, backend: str = 'auto') -> None:
        super().__init__()
        self.num_centers = num_centers
        self.radius = radius
        self.k = k
        self.backend = backend
        self.conv = PointNetConv(nn, add_self_loops=False)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centers = farthest_points(pos, self.num_centers, batch)
        target, source = knn(pos, pos[centers], self.k, batch, batch[centers], self.backend)
        # A centre is within its own radius, so none is left without a neighbour.
        near = (pos[source] - pos[centers][target]).square().sum(1) <= self.radius ** 2
        edge_index = torch.stack([source[near], target[near]])
        x = self.conv((x, None), (pos, pos[centers]), edge_index)
        return x, pos[centers], batch[centers]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_centers={self.num_centers}, radius={self.radius}, k={self.k})'


@MODELS.register_module()
class GraphPointNet2(GraphBackbone):
    """Classification network of PointNet++ (arXiv 1706.02413) in message passing, without the classifier.

    Args:
        num_centers: Number of centres of each set abstraction.
        radii: Radius of each, in the unit of the object.
        ks: Largest number of neighbours of each.
        widths: Widths of the networks, for each set abstraction and for the last layer, which takes the features and
            the positions of the remaining centres.
        backend: Kernel of the neighbours, see :func:`knn`.
        common: Arguments of :class:`~clipgs_plugin.models.backbones.base.CloudBackbone`. Positions relative to the
            centre are added to the ``attributes``.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, C), C = ``widths[-1][-1]``
    """

    def __init__(self, num_centers: Sequence[int] = (256, 64), radii: Sequence[float] = (0.2, 0.4),
                 ks: Sequence[int] = (32, 32),
                 widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512)),
                 attributes: str | Sequence[str] = ('rgb', 'opacity', 'scale', 'rotation'), backend: str = 'auto',
                 **common) -> None:
        count = len(num_centers)
        if not count == len(radii) == len(ks) == len(widths) - 1:
            raise ValueError(f'num_centers={num_centers}, radii={radii}, ks={ks}, widths={widths}: expected the first '
                             'three of equal length, and one more entry of widths')
        if any(later > earlier for earlier, later in pairwise(num_centers)):
            raise ValueError(f'num_centers={num_centers}: expected no layer with more centres than the previous one')
        super().__init__(widths[-1][-1], attributes=attributes, **common)
        inputs = [self.in_channels, *(layer[-1] for layer in widths[:-1])]
        networks = [MLP([3 + channels, *layer], plain_last=False) for channels, layer in zip(inputs, widths)]
        self.layers = nn.ModuleList([SetAbstraction(*settings, backend)
                                     for settings in zip(num_centers, radii, ks, networks)])
        self.last = networks[-1]

    def extra_repr(self) -> str:
        return f'attributes={self.attributes}, scale={self.scale!r}'

    def encode(self, raw: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        x, pos = self.linearise(raw).to(self.dtype), raw[:, RAW_SLICES['xyz']]
        for layer in self.layers:
            x, pos, batch = layer(x, pos, batch)
        return self.last(torch.cat([x, pos.to(x.dtype)], dim=1)), batch

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """Return the mask of centres in the result of :meth:`forward_features`, (B, M) bool."""
        lengths = batch.lengths.clamp(max=self.layers[-1].num_centers)
        return torch.arange(int(lengths.max()), device=batch.device) < lengths[:, None]

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the maximum over the centres, (B, D)."""
        return masked_max(features, mask)
