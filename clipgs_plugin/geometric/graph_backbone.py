"""Base class of the graph networks, which are backbones of CLIP-GS."""
from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from clipgs_plugin.models.backbones.base import CloudBackbone
from clipgs_plugin.structures import GaussianBatch


class GraphBackbone(CloudBackbone):
    """Backbone whose layers pass messages between the Gaussians: ``GSEncoder(tokenizer=None, backbone=...)``.

    A subclass defines :meth:`encode` over one list of nodes, which has no padding, and :meth:`pool`.

    Args:
        common: Arguments of :class:`~clipgs_plugin.models.backbones.base.CloudBackbone`.
    """

    @abstractmethod
    def encode(self, raw: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the remaining nodes, (M, D), and their objects, (M,).

        Args:
            raw: Raw channels of the Gaussians, sorted by content, (P, 14).
            batch: Object of each Gaussian, (P,), sorted.
        """

    def forward(self, batch: GaussianBatch) -> Tensor:
        features, nodes = self._encode(batch)
        return self.pool(*to_dense_batch(features, nodes, batch_size=len(batch)))

    def forward_features(self, batch: GaussianBatch) -> Tensor:
        """Return the features of the remaining nodes of each object, (B, M, D), zero at padding."""
        return to_dense_batch(*self._encode(batch), batch_size=len(batch))[0]

    def _encode(self, batch: GaussianBatch) -> tuple[Tensor, Tensor]:
        raw, mask = self.canonical(batch), batch.mask
        with torch.autocast(raw.device.type, enabled=False):
            return self.encode(raw[mask], mask.nonzero()[:, 0])
