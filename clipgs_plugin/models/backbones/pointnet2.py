"""PointNet++, a backbone over the Gaussians themselves."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from clipgs_plugin import ops
from clipgs_plugin.models.backbones.base import CloudBackbone
from clipgs_plugin.models.backbones.blocks import masked_max
from clipgs_plugin.models.tokenizers.inference import in_chunks, is_inference
from clipgs_plugin.models.tokenizers.patches import XYZ, extract
from clipgs_plugin.ops.sampling import check_count
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch


@MODELS.register_module()
class PointNet2(CloudBackbone):
    """Classification network of PointNet++ (Qi et al., NeurIPS 2017), single-scale grouping, without the classifier.

    A set abstraction layer samples centres and groups the points around each centre into a patch. An MLP sees the
    positions relative to the centre and the features; its maximum over the patch is the feature of the centre. The
    last layer treats all remaining points as one patch, with positions in the object.

    The first layer samples centres by farthest point sampling, starting at the Gaussian farthest from the centroid.
    A later layer takes the first centres of the previous layer, which is what sampling them again would give. A patch
    holds the K nearest points within the radius; the paper takes the first K in the order of the file, which does not
    matter here. With fewer than K points within the radius, the centre fills the patch.

    Args:
        num_centers: Number of centres of each layer except the last, never increasing. An object with fewer Gaussians
            uses all of them as centres.
        radii: Radius of each layer's patches, in the unit of the object; a point at exactly this distance is inside.
        group_sizes: K, number of points of a patch, for each layer.
        widths: Widths of the MLPs, for each layer including the last.
        common: Arguments of :class:`CloudBackbone`. The attribute ``'xyz'`` is the position relative to the centre of
            the first layer's patch, ``'position'`` the position in the object.

    Shapes:
        - input: :class:`GaussianBatch` of (B, N) Gaussians
        - output: (B, C), C = ``widths[-1][-1]``
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
        self.mlps = nn.ModuleList([row_mlp(channels, layer) for channels, layer in zip(inputs, widths)])

    def extra_repr(self) -> str:
        return (f'num_centers={self.num_centers}, radii={self.radii}, group_sizes={self.group_sizes}, '
                f'attributes={self.attributes}, scale={self.scale!r}')

    def forward_features(self, batch: GaussianBatch) -> Tensor:
        """Return the features of the last centres, (B, num_centers[-1], D), zero at padding."""
        points, lengths = self.canonical(batch), batch.lengths
        center_idx = ops.farthest_point_sample(points[..., XYZ], self.num_centers[0], lengths, start='farthest')
        layers = zip(self.mlps, self.num_centers, self.radii, self.group_sizes)
        for i, (mlp, num_centers, radius, group_size) in enumerate(layers):
            center_idx = center_idx[:, :num_centers]
            neighbor_idx = nearest_within(points[..., XYZ], center_idx, radius, group_size, lengths)
            patches = extract(points, center_idx, neighbor_idx, lengths)
            inputs = self.linearise(patches.raw, patches.offsets[:, None]) if i == 0 else patches.raw
            features = patches.to_batch(self._abstract(inputs, mlp))
            points = torch.cat([patches.centers, features.float()], dim=-1)  # (B, G, 3 + C), positions stay float32
            lengths = lengths.clamp(max=num_centers)
            center_idx = torch.arange(num_centers, device=points.device).expand(len(points), -1)
        rows = points.flatten(0, 1) if patches.mask is None else points[patches.mask]
        return patches.to_batch(self.mlps[-1](rows.to(self.dtype)))

    def feature_mask(self, batch: GaussianBatch) -> Tensor:
        """Return the mask of centres in the result of :meth:`forward_features`, (B, num_centers[-1]) bool."""
        return torch.arange(self.num_centers[-1], device=batch.device) < batch.lengths[:, None]

    def pool(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the maximum over the centres, (B, D)."""
        return masked_max(features, mask)

    def _abstract(self, patches: Tensor, mlp: nn.Module) -> Tensor:
        """Return the feature of each patch, (P, K, C) to (P, D)."""
        def abstract(patches: Tensor) -> Tensor:
            # max, not amax: amax shares the gradient among ties, which costs a pass over all rows.
            return mlp(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).max(1).values

        patches = patches.to(self.dtype)
        return in_chunks(abstract, patches) if is_inference(self) else abstract(patches)


def nearest_within(points: Tensor, center_idx: Tensor, radius: float, k: int, lengths: Tensor) -> Tensor:
    """Find the k points nearest to each centre within a radius.

    Args:
        points: Positions, (B, N, 3).
        center_idx: Indices of the centres, (B, G).
        radius: Radius in the unit of the points.
        k: Number of points of a patch. If fewer are within the radius, the nearest one fills the rest.
        lengths: Number of points of each cloud, (B,).

    Returns:
        Indices, (B, G, K), int64, nearest first.
    """
    centers = torch.take_along_dim(points, center_idx[..., None], dim=1)
    index, squared = ops.knn(points, centers, k, lengths)
    return torch.where(squared <= radius ** 2, index, index[..., :1])


def row_mlp(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers, batch norms and ReLUs over rows (R, in_channels)."""
    layers = []
    for width in widths:
        layers += [nn.Linear(in_channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        in_channels = width
    return nn.Sequential(*layers)


def _check_layers(num_centers: Sequence[int], radii: Sequence[float], group_sizes: Sequence[int],
                  widths: Sequence[Sequence[int]]) -> None:
    count = len(num_centers)
    if count < 1 or len(radii) != count or len(group_sizes) != count or len(widths) != count + 1:
        raise ValueError(f'num_centers={num_centers}, radii={radii}, group_sizes={group_sizes}, widths={widths}: '
                         'expected num_centers, radii and group_sizes of equal length, and one more entry of widths')
    for centers, group_size in zip(num_centers, group_sizes):
        check_count('num_centers', centers)
        check_count('group_sizes', group_size)
    if any(later > earlier for earlier, later in pairwise(num_centers)):
        raise ValueError(f'num_centers={num_centers}: expected no layer with more centres than the previous one')
    if not all(radius > 0 for radius in radii):
        raise ValueError(f'radii={radii}: expected distances above 0')
    if not all(widths):
        raise ValueError(f'widths={widths}: expected at least one width for each layer')
