"""DGCNN, a backbone over the Gaussians themselves."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from clipgs_plugin import ops
from clipgs_plugin.models.backbones.base import CloudBackbone
from clipgs_plugin.models.backbones.blocks import masked_max, masked_mean
from clipgs_plugin.models.tokenizers.inference import fold_batch_norm, in_chunks, is_inference
from clipgs_plugin.models.tokenizers.patches import XYZ
from clipgs_plugin.ops.sampling import check_count
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch

SLOPE = 0.2  # of the leaky ReLUs
# Number of distances in a block of queries: 4 MB on a CPU.
BLOCK = {'cpu': 1 << 20}
DEFAULT_BLOCK = 1 << 26


@MODELS.register_module()
class DGCNN(CloudBackbone):
    """Classification network of DGCNN (Wang et al., "Dynamic Graph CNN", TOG 2019), without the classifier.

    Each edge convolution links every Gaussian to its k nearest, including itself. The first one finds them by
    position, whatever the input attributes are (the paper's points are positions). Later ones find them by the
    features of the previous layer. A final layer takes the outputs of all edge convolutions; its maximum and its mean
    over the object are the feature.

    Evaluation processes the objects one by one. Rounding depends on the shape of a batch, and must not select
    different neighbours when other objects are in the batch. Memory then is that of one object. Graphs and edges are
    float32.

    Args:
        k: Number of neighbours of a Gaussian; an object with fewer Gaussians repeats them.
        widths: Output widths of the edge convolutions.
        embed_dims: D, width of the final layer.
        common: Arguments of :class:`CloudBackbone`. The attribute ``'xyz'`` is the position in the object.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, 2 D)
    """

    def __init__(self, k: int = 20, widths: Sequence[int] = (64, 64, 128, 256), embed_dims: int = 1024,
                 **common) -> None:
        check_count('k', k)
        if not widths:
            raise ValueError(f'widths={widths}: expected at least one')
        super().__init__(2 * embed_dims, **common)
        self.k = k
        inputs = [self.in_channels, *widths[:-1]]
        self.convs = nn.ModuleList([EdgeConv(channels, width) for channels, width in zip(inputs, widths)])
        self.embed = nn.Sequential(nn.Linear(sum(widths), embed_dims, bias=False), nn.BatchNorm1d(embed_dims),
                                   nn.LeakyReLU(SLOPE, inplace=True))

    def extra_repr(self) -> str:
        return f'k={self.k}, attributes={self.attributes}, scale={self.scale!r}'

    def forward(self, batch: GaussianBatch) -> Tensor:
        if self.training:
            return super().forward(batch)
        return torch.cat([self.pool(self._encode(one)[None]) for one in self._one_by_one(batch)])

    def forward_features(self, batch: GaussianBatch) -> Tensor:
        """Return the features of the Gaussians, sorted by content, (B, N, D), zero at padding."""
        features = [self._encode(part) for part in ([batch] if self.training else self._one_by_one(batch))]
        padded = pad_sequence(torch.cat(features).split(batch.lengths.tolist()), batch_first=True)
        return F.pad(padded, (0, 0, 0, batch.means.shape[1] - padded.shape[1]))

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """Return the mask of Gaussians in the result of :meth:`forward_features`, (B, N) bool."""
        return batch.mask

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Concatenate the maximum and the mean over the Gaussians, (B, 2 D)."""
        return torch.cat([masked_max(features, mask), masked_mean(features, mask)], dim=-1)

    def _one_by_one(self, batch: GaussianBatch) -> Iterator[GaussianBatch]:
        """Yield each object as its own batch, without padding."""
        self.check(batch)
        return (GaussianBatch.from_clouds([cloud]) for cloud in batch.to_clouds())

    def _encode(self, batch: GaussianBatch) -> Tensor:
        """Return the features of all Gaussians without padding, object after object, (P, D)."""
        raw, mask, lengths = self.canonical(batch), batch.mask, batch.lengths
        neighbors = ops.knn(raw[..., XYZ], raw[..., XYZ], self.k, lengths)[0]
        neighbors = (neighbors + (lengths.cumsum(0) - lengths)[:, None, None])[mask]
        x, lengths = self.linearise(raw[mask]), lengths.tolist()
        outputs = []
        for conv in self.convs:
            if outputs:
                neighbors = feature_knn(x, self.k, lengths)
            x = conv(x, neighbors)
            outputs.append(x)
        return self.embed(torch.cat(outputs, dim=-1).to(self.dtype))


class EdgeConv(nn.Module):
    """Maximum over the edges of a point of ``leaky(norm(W [x_j - x_i; x_i]))``.

    ``W [x_j - x_i; x_i] = W_1 x_j + (W_2 - W_1) x_i``, so the products are computed once per point instead of once
    per edge, in float32. Evaluation folds the batch norm into ``W`` and takes the maximum of ``W_1 x_j`` alone.

    Shapes:
        - input: x (P, in_channels) float32, neighbors (P, K) int64
        - output: (P, out_channels) float32
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, neighbors: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if self.training:
                return self._train(x, neighbors)
            weight, bias = fold_batch_norm(self.linear, self.norm)
            ends, starts = self._products(x, weight.float())

            def max_over_edges(neighbors: Tensor) -> Tensor:
                return _gather(ends, neighbors).max(1).values

            pooled = in_chunks(max_over_edges, neighbors) if is_inference(self) else max_over_edges(neighbors)
            return F.leaky_relu(pooled + (starts + bias.float()), SLOPE)

    def _train(self, x: Tensor, neighbors: Tensor) -> Tensor:
        ends, starts = self._products(x, self.linear.weight.float())
        edges = (_gather(ends, neighbors) + starts[:, None]).flatten(0, 1)
        edges = self.norm(edges.to(self.norm.weight.dtype)).float()
        # The activation is increasing, so the maximum can be taken first.
        return F.leaky_relu(edges.unflatten(0, neighbors.shape).max(1).values, SLOPE)

    @staticmethod
    def _products(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of the end and the start of an edge, (P, out_channels) each."""
        difference_weight, start_weight = weight.chunk(2, dim=1)
        return F.linear(x, difference_weight), F.linear(x, start_weight - difference_weight)


@torch.no_grad()
def feature_knn(features: Tensor, k: int, lengths: Sequence[int]) -> Tensor:
    """Find the k rows nearest to each row within its own cloud, in features of any width.

    Args:
        features: Rows of all clouds, cloud after cloud, (P, C).
        k: Number of neighbours. A row is its own neighbour unless k other rows are equal to it. A cloud with fewer
            rows repeats them.
        lengths: Number of rows of each cloud; they sum to P.

    Returns:
        Indices into all rows, (P, K), int64, nearest first.
    """
    neighbors, start = [], 0
    with torch.autocast(features.device.type, enabled=False):
        for cloud in features.float().split(lengths):
            cloud = cloud - cloud.mean(0)  # smaller numbers, smaller errors
            squared = cloud.square().sum(1)
            for block in cloud.split(max(1, BLOCK.get(features.device.type, DEFAULT_BLOCK) // len(cloud))):
                # |x - y|^2 without |x|^2, which does not change the order of y.
                distance = torch.addmm(squared, block, cloud.T, alpha=-2)
                nearest = distance.topk(min(k, len(cloud)), dim=1, largest=False).indices
                neighbors.append(nearest[:, torch.arange(k, device=nearest.device) % len(cloud)] + start)
            start += len(cloud)
    return torch.cat(neighbors)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Index rows (P, C) by (P, K), giving (P, K, C)."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)
