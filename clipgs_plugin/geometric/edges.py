"""Features of the edges between Gaussians."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clipgs_plugin.ops import quaternion_to_matrix

# Widths. The last two do not depend on the labelling of a Gaussian's axes.
EDGE_FEATURES = {'offset': 3, 'rotation': 9, 'mahalanobis': 2, 'overlap': 1}


class Shapes(NamedTuple):
    """Positions, orientations and extents of Gaussians in one list."""

    pos: Tensor        # (N, 3)
    rotation: Tensor   # (N, 4) quaternions wxyz
    log_scale: Tensor  # (N, 3)


def edge_width(features: Sequence[str]) -> int:
    """Return the width of edge features by name.

    Raises:
        ValueError: Unknown or no name.
    """
    if not features or set(features) - set(EDGE_FEATURES):
        raise ValueError(f'edge features {tuple(features)}: expected some of {tuple(EDGE_FEATURES)}')
    return sum(EDGE_FEATURES[name] for name in features)


def gaussian_edges(
    source: Shapes,
    target: Shapes,
    edge_index: Tensor,                 # (2, E) j to i
    features: Sequence[str] = tuple(EDGE_FEATURES),
    floor: float = 1e-3,
) -> Tensor:
    r"""Compute anisotropic features of edges from Gaussian j to Gaussian i, invariant to rotation and translation.

    With :math:`\mathbf{d} = \mathbf{p}_i - \mathbf{p}_j`, covariances :math:`\Sigma`, and their mean
    :math:`\Sigma`:

    - ``'offset'``: :math:`\mathbf{R}_j^\top \mathbf{d}`, the position of i in the neighbour's own frame
    - ``'rotation'``: :math:`\mathbf{R}_j^\top \mathbf{R}_i`
    - ``'mahalanobis'``: :math:`\log(1 + \mathbf{d}^\top \Sigma_j^{-1} \mathbf{d})`, and the same with
      :math:`\Sigma_i`
    - ``'overlap'``: the Bhattacharyya coefficient :math:`e^{-D}` in (0, 1], with
      :math:`D = \frac{1}{8} \mathbf{d}^\top \Sigma^{-1} \mathbf{d} + \frac{1}{2} \log \left( \det \Sigma /
      \sqrt{\det \Sigma_i \det \Sigma_j} \right)`

    Args:
        source: Gaussians at the starts of edges.
        target: Gaussians at the ends of edges.
        edge_index: Edges, (2, E).
        features: Names of the features, in this order.
        floor: Standard deviation, in the unit of the positions, that is added to all Gaussians in the last two, so that
            flat ones have an inverse.

    Returns:
        (E, edge_width(features)) float32.

    Source: Bhattacharyya, "On a measure of divergence between two statistical populations", 1943.
    """
    edge_width(features)
    j, i = edge_index
    offset = target.pos[i] - source.pos[j]
    # Cancellation in determinants of flat Gaussians needs double precision.
    axes_j, axes_i = (quaternion_to_matrix(shapes.rotation.double()) for shapes in (source, target))
    variances_j, variances_i = ((2 * shapes.log_scale.double()).exp() + floor ** 2 for shapes in (source, target))
    d = offset.double()
    local_j, local_i = (_apply_transposed(axes[index], d) for axes, index in ((axes_j, j), (axes_i, i)))

    def mahalanobis() -> Tensor:
        squared = [(local.square() / variances[index]).sum(1)
                   for local, variances, index in ((local_j, variances_j, j), (local_i, variances_i, i))]
        return torch.stack(squared, dim=1).log1p()

    def overlap() -> Tensor:
        covariance = (_covariance(axes_j, variances_j)[j] + _covariance(axes_i, variances_i)[i]) / 2
        factor = torch.linalg.cholesky(covariance)
        whitened = torch.linalg.solve_triangular(factor, d[:, :, None], upper=False)[:, :, 0]
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        log_dets = (variances_j.log().sum(1)[j] + variances_i.log().sum(1)[i]) / 2
        return (-whitened.square().sum(1) / 8 - (log_det - log_dets) / 2).exp()[:, None]

    compute = {'offset': lambda: local_j,
               'rotation': lambda: (axes_j[j].transpose(1, 2) @ axes_i[i]).flatten(1),
               'mahalanobis': mahalanobis, 'overlap': overlap}
    return torch.cat([compute[name]() for name in features], dim=1).float()


def _apply_transposed(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices.transpose(1, 2) @ vectors[:, :, None])[:, :, 0]


def _covariance(axes: Tensor, variances: Tensor) -> Tensor:
    """Return R diag(v) R^T, (N, 3, 3)."""
    return (axes * variances[:, None]) @ axes.transpose(1, 2)
