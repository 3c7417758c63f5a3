"""From a cloud to patches, and from a patch to a sequence: the parts of the tokenizer without weights."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clipgs_plugin import ops
from clipgs_plugin.structures.attributes import RAW_SLICES, linearise

XYZ = RAW_SLICES['xyz']


class Patches(NamedTuple):
    """The patches that exist, in one list, and the places they have in the batch."""

    raw: Tensor                 # (P, K, 14) raw channels, positions relative to the patch's centre
    centers: Tensor             # (B, G, 3)
    offsets: Tensor             # (P, 3) centres of the patches that exist
    mask: Tensor | None = None  # (B, G) bool, True for the P patches of the list; None where P = B * G


def canonicalise(raw: Tensor, lengths: Tensor) -> Tensor:
    """The Gaussians of each object sorted by what they are, so that no later tie is broken by the order of a file.

    Args:
        raw: Raw channels, (B, N, 14).
        lengths: Gaussians of each object, (B,).

    Returns:
        The rows of ``raw``, sorted by position, then colour, opacity and shape; padding stays at the end. Signs of
        quaternions do not matter, nor, up to rounding, does the labelling of a Gaussian's axes.
    """
    shape = linearise(raw, ('log_covariance',))
    # Rounded first: relabelled axes give the same covariance but for the last bits, which must not decide.
    content = torch.cat([linearise(raw, ('xyz', 'rgb', 'opacity')), shape.round(decimals=3), shape,
                         linearise(raw, ('rotation',))], dim=-1)
    order = ops.canonical_order(content, lengths)
    return torch.take_along_dim(raw, order[..., None], dim=1)


def group_points(points: Tensor, num_groups: int, group_size: int, lengths: Tensor | None = None,
                 start: int | str = 0, rule: str = 'exact', radius: float | None = None) -> tuple[Tensor, Tensor]:
    """Centres (B, G) by farthest point sampling and the points (B, G, K) of the patch around each.

    Args:
        points: Positions, (B, N, 3).
        num_groups, group_size, lengths, start, rule: As :func:`clipgs_plugin.ops.group` takes them.
        radius: First K points within this distance, by :func:`clipgs_plugin.ops.ball_query`; None takes the nearest.
    """
    if radius is None:
        return ops.group(points, num_groups, group_size, lengths, start, rule=rule)
    center_idx = ops.farthest_point_sample(points, num_groups, lengths, start, rule=rule)
    centers = torch.take_along_dim(points, center_idx[..., None], dim=1)
    return center_idx, ops.ball_query(points, centers, radius, group_size, lengths)


def extract(raw: Tensor, center_idx: Tensor, neighbor_idx: Tensor, lengths: Tensor | None = None) -> Patches:
    """Patches at given indices.

    Args:
        raw: Raw channels, (B, N, 14).
        center_idx: Gaussian at the centre of each patch, (B, G).
        neighbor_idx: Gaussians of each patch, (B, G, K).
        lengths: Gaussians of each object, (B,). An object with fewer than G has that many patches; the others are
            repeats and are left out. Every object has G where None.
    """
    b, g = center_idx.shape
    centers = torch.take_along_dim(raw[..., XYZ], center_idx[..., None], dim=1)
    objects = torch.arange(b, device=raw.device)[:, None]
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
