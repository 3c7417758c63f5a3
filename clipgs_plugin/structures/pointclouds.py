"""Raw parameters of Gaussians as features of pytorch3d's Pointclouds, and back."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgs_plugin.ops.backends import INSTALL_PYTORCH3D
from clipgs_plugin.ops.spherical_harmonics import MAX_DEGREE

if TYPE_CHECKING:
    from pytorch3d.structures import Pointclouds

    from clipgs_plugin.structures.gaussian_cloud import GaussianCloud

_SIZES = (4, 3, 1)  # of quaternion, log scales and opacity logit; SH coefficients follow
_WIDTHS = tuple(sum(_SIZES) + 3 * (degree + 1) ** 2 for degree in range(MAX_DEGREE + 1))


def join_pointclouds(clouds: Sequence[GaussianCloud], normals: bool) -> Pointclouds:
    """Join objects into one Pointclouds, see :meth:`GaussianBatch.to_pointclouds`."""
    try:
        from pytorch3d.structures import Pointclouds
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'to_pointclouds needs the package pytorch3d: {INSTALL_PYTORCH3D}',
                                  name=error.name) from error
    return Pointclouds(points=[cloud.means for cloud in clouds], features=[_features(cloud) for cloud in clouds],
                       normals=[cloud.normals for cloud in clouds] if normals else None)


def split_pointclouds(pointclouds: Pointclouds) -> list[dict[str, Tensor]]:
    """Split a Pointclouds into the fields of its objects.

    Raises:
        ValueError: The features are not those of Gaussians.
    """
    objects = []
    for points, features in zip(pointclouds.points_list(), pointclouds.features_list() or [None] * len(pointclouds)):
        width = 0 if features is None else features.shape[-1]
        if width not in _WIDTHS:
            raise ValueError(f'the Pointclouds have {width} features a point, expected one of {_WIDTHS}, the raw '
                             'parameters of Gaussians as to_pointclouds writes them')
        quats, log_scales, opacity_logits, sh = features.split((*_SIZES, width - sum(_SIZES)), dim=-1)
        objects.append(dict(means=points, quats=quats, log_scales=log_scales, opacity_logits=opacity_logits[:, 0],
                            sh=sh.unflatten(-1, (-1, 3))))
    return objects


def _features(cloud: GaussianCloud) -> Tensor:
    """Return the raw parameters besides the position, (N, 8 + 3 K)."""
    dtypes = sorted({str(value.dtype) for _, value in cloud.fields()})
    if len(dtypes) > 1:
        raise ValueError(f'the fields of an object are of {", ".join(dtypes)}; features have one dtype, so convert the '
                         'object, for instance with cloud.to(dtype=torch.float32)')
    return torch.cat([cloud.quats, cloud.log_scales, cloud.opacity_logits[:, None], cloud.sh.flatten(1)], dim=-1)
