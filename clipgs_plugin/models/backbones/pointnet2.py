"""PointNet++ over the Gaussians themselves."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from clipgs_plugin import ops
from clipgs_plugin.models.backbones.blocks import masked_max
from clipgs_plugin.models.backbones.clouds import CloudBackbone
from clipgs_plugin.models.tokenizers.inference import in_chunks, is_inference
from clipgs_plugin.models.tokenizers.patches import XYZ, extract
from clipgs_plugin.ops.sampling import check_count
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch


@MODELS.register_module()
class PointNet2(CloudBackbone):
    """PointNet++ with single-scale grouping, as it classifies (Qi et al., NeurIPS 2017), without the classifier.

    A layer of set abstraction takes some points as centres, the points around each as its patch, and the maximum over
    the patch of an MLP on positions relative to the centre beside features. The last one takes all points that are
    left, where they are in the object, as one patch.

    Centres are farthest point samples from the one farthest from the centroid on. Those of a later layer are the
    first of those of the layer before, which are what sampling from these would find again. Where more than K
    points are within the radius, the K nearest are the patch; the paper takes the first K in the order of the file,
    which here does not matter. Where fewer are, the nearest one, that is the centre, fills the patch.

    Args:
        num_centers: Centres of each layer but the last, never more than the layer before has. An object with fewer
            Gaussians has all of them as centres.
        radii: Radius of each layer's patches, in the unit of the object; a point at this very distance is within it.
        group_sizes: K, points of a patch, of each layer.
        widths: Widths of the MLPs, of each layer and of the last one.
        common: As :class:`CloudBackbone` takes them. ``'xyz'`` among the attributes is the position relative to the
            centre of the first layer's patch, ``'position'`` that in the object.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, widths[-1][-1])
    """

    def __init__(self, num_centers: Sequence[int] = (512, 128), radii: Sequence[float] = (0.2, 0.4),
                 group_sizes: Sequence[int] = (32, 64),
                 widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024)),
                 **common) -> None:
        _check_layers(num_centers, radii, group_sizes, widths)
        super().__init__(widths[-1][-1], **common)
        self.num_centers = tuple(num_centers)
        self.radii = tuple(radii)
        self.group_sizes = tuple(group_sizes)
        inputs = [self.in_channels, *(3 + layer[-1] for layer in widths[:-1])]
        self.mlps = nn.ModuleList([_mlp(channels, layer) for channels, layer in zip(inputs, widths)])

    def extra_repr(self) -> str:
        return (f'num_centers={self.num_centers}, radii={self.radii}, group_sizes={self.group_sizes}, '
                f'attributes={self.attributes}, scale={self.scale!r}')

    def forward_features(self, batch: GaussianBatch) -> Tensor:
        """Features of the last centres, (B, num_centers[-1], D), zero where an object has fewer Gaussians."""
        points, lengths = self.canonical(batch), batch.lengths
        center_idx = ops.farthest_point_sample(points[..., XYZ], self.num_centers[0], lengths, start='farthest')
        layers = zip(self.mlps, self.num_centers, self.radii, self.group_sizes)
        for i, (mlp, num_centers, radius, group_size) in enumerate(layers):
            center_idx = center_idx[:, :num_centers]
            neighbor_idx = nearest_within(points[..., XYZ], center_idx, radius, group_size, lengths)
            patches = extract(points, center_idx, neighbor_idx, lengths)
            seen = self.see(patches.raw, patches.offsets[:, None]) if i == 0 else patches.raw
            features = _to_batch(self._abstract(seen, mlp), patches.mask, center_idx.shape)
            points = torch.cat([patches.centers, features.float()], dim=-1)  # (B, G, 3 + C), positions stay float32
            lengths = lengths.clamp(max=num_centers)
            center_idx = torch.arange(num_centers, device=points.device).expand(len(points), -1)
        rows = points.flatten(0, 1) if patches.mask is None else points[patches.mask]
        return _to_batch(self.mlps[-1](rows.to(self.dtype)), patches.mask, center_idx.shape)

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """True where :meth:`forward_features` has a centre, (B, num_centers[-1]) bool."""
        return torch.arange(self.num_centers[-1], device=batch.device) < batch.lengths[:, None]

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maximum over the centres, (B, D)."""
        return masked_max(features, mask)

    def _abstract(self, patches: Tensor, mlp: nn.Module) -> Tensor:
        """The feature of each patch, (P, K, C) to (P, D)."""
        def abstract(patches: Tensor) -> Tensor:
            # max, not amax: the gradient of amax is shared among ties, which costs a pass over all rows.
            return mlp(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).max(1).values

        patches = patches.to(self.dtype)
        return in_chunks(abstract, patches) if is_inference(self) else abstract(patches)


def nearest_within(points: Tensor, center_idx: Tensor, radius: float, k: int, lengths: Tensor) -> Tensor:
    """The k points nearest to each centre, of those within a radius of it.

    Args:
        points: Positions, (B, N, 3).
        center_idx: Points that are centres, (B, G).
        radius: In the unit of the points.
        k: Points of each patch. Where fewer are within the radius, they are followed by the nearest of them.
        lengths: Points of each cloud, (B,).

    Returns:
        Indices, (B, G, K), int64, nearest first.
    """
    centers = torch.take_along_dim(points, center_idx[..., None], dim=1)
    index, squared = ops.knn(points, centers, k, lengths)
    return torch.where(squared <= radius ** 2, index, index[..., :1])


def _mlp(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Layers over rows (R, in_channels): convolutions of kernel 1, batch norms and ReLUs."""
    layers = []
    for width in widths:
        layers += [nn.Linear(in_channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        in_channels = width
    return nn.Sequential(*layers)


def _to_batch(features: Tensor, mask: Tensor | None, shape: Sequence[int]) -> Tensor:
    """A list of features (P, C) at the places they have in a batch, (B, G, C), zero elsewhere."""
    if mask is None:
        return features.unflatten(0, shape)
    return features.new_zeros(*shape, features.shape[-1]).index_put((mask,), features)


def _check_layers(num_centers: Sequence[int], radii: Sequence[float], group_sizes: Sequence[int],
                  widths: Sequence[Sequence[int]]) -> None:
    count = len(num_centers)
    if count < 1 or len(radii) != count or len(group_sizes) != count or len(widths) != count + 1:
        raise ValueError(f'num_centers={num_centers}, radii={radii}, group_sizes={group_sizes}, widths={widths}: '
                         'expected one of the first three for each layer, and widths for one layer more')
    for centers, group_size in zip(num_centers, group_sizes):
        check_count('num_centers', centers)
        check_count('group_sizes', group_size)
    if any(later > earlier for earlier, later in pairwise(num_centers)):
        raise ValueError(f'num_centers={num_centers}: expected no layer to have more than the one before')
    if not all(radius > 0 for radius in radii):
        raise ValueError(f'radii={radii}: expected distances above 0')
    if not all(widths):
        raise ValueError(f'widths={widths}: expected at least one width for each layer')
