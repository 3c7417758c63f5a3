"""Patches of an object: the steps of a tokenizer without weights."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clipgs_plugin import ops
from clipgs_plugin.structures.attributes import RAW_SLICES, linearise

XYZ = RAW_SLICES['xyz']


class Patches(NamedTuple):
    """List of the real patches of a batch, and their places in the batch."""

    raw: Tensor                 # (P, K, 14) raw channels, positions relative to the patch's centre
    centers: Tensor             # (B, G, 3)
    offsets: Tensor             # (P, 3) centres of the P patches
    mask: Tensor | None = None  # (B, G) bool, True for the P patches of the list; None if P = B * G

    def to_batch(self, features: Tensor) -> Tensor:
        """Put the features of the patches (P, C) at their places in the batch, (B, G, C), zero at padding."""
        shape = self.centers.shape[:2]
        if self.mask is None:
            return features.unflatten(0, shape)
        return features.new_zeros(*shape, features.shape[-1]).index_put((self.mask,), features)


def canonicalise(raw: Tensor, lengths: Tensor) -> Tensor:
    """Sort the Gaussians of each object by content, so that the order of the file breaks no later tie.

    Args:
        raw: Raw channels, (B, N, 14).
        lengths: Number of Gaussians of each object, (B,).

    Returns:
        The rows of ``raw``, sorted by position, then colour, opacity and shape; padding stays at the end. The order
        does not depend on signs of quaternions nor, up to rounding, on the labelling of a Gaussian's axes.
    """
    shape = linearise(raw, ('log_covariance',))
    # Rounded first: relabelled axes change the last bits of a covariance, which must not decide the order.
    content = torch.cat([linearise(raw, ('xyz', 'rgb', 'opacity')), shape.round(decimals=3), shape,
                         linearise(raw, ('rotation',))], dim=-1)
    order = ops.canonical_order(content, lengths)
    return torch.take_along_dim(raw, order[..., None], dim=1)


def start_in_use(start: int | str, training: bool) -> int | str:
    """Return the start of farthest point sampling: a random one is for training, evaluation is deterministic."""
    return 'farthest' if start == 'random' and not training else start


def group_points(points: Tensor, num_groups: int, group_size: int, lengths: Tensor | None = None,
                 start: int | str = 0, rule: str = 'exact', radius: float | None = None) -> tuple[Tensor, Tensor]:
    """Sample centres (B, G) by farthest point sampling and find the points (B, G, K) of each patch.

    Args:
        points: Positions, (B, N, 3).
        num_groups, group_size, lengths, start, rule: See :func:`clipgs_plugin.ops.group`.
        radius: Radius for :func:`clipgs_plugin.ops.ball_query`, which takes the first K points inside; None takes the
            K nearest points.
    """
    if radius is None:
        return ops.group(points, num_groups, group_size, lengths, start, rule=rule)
    center_idx = ops.farthest_point_sample(points, num_groups, lengths, start, rule=rule)
    centers = torch.take_along_dim(points, center_idx[..., None], dim=1)
    return center_idx, ops.ball_query(points, centers, radius, group_size, lengths)


def extract(raw: Tensor, center_idx: Tensor, neighbor_idx: Tensor, lengths: Tensor | None = None) -> Patches:
    """Gather the patches at given indices.

    Args:
        raw: Raw channels, (B, N, 14).
        center_idx: Index of the Gaussian at the centre of each patch, (B, G).
        neighbor_idx: Indices of the Gaussians of each patch, (B, G, K).
        lengths: Number of Gaussians of each object, (B,). An object with n < G Gaussians has n patches; its other
            indices are repeats and are left out. None keeps all G patches of every object.
    """
    b, g = center_idx.shape
    objects = torch.arange(b, device=raw.device)[:, None]
    centers = raw[objects, center_idx][..., XYZ]  # take_along_dim would fix B and N in an exported graph
    mask = None
    if lengths is not None:
        mask = torch.arange(g, device=raw.device) < lengths[:, None]
        mask = None if bool(mask.all()) else mask
    if mask is None:
        patches = raw[objects[..., None], neighbor_idx].flatten(0, 1)
        offsets = centers.flatten(0, 1)
    else:
        patches = raw[objects.expand(b, g)[mask][:, None], neighbor_idx[mask]]
        offsets = centers[mask]
    patches[..., XYZ] = patches[..., XYZ] - offsets[:, None]
    return Patches(patches, centers, offsets, mask)
