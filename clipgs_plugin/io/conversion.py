"""Measured errors of a conversion to a lossy format."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipgs_plugin.io.formats import Format
from clipgs_plugin.structures import GaussianCloud


@dataclass(frozen=True)
class Loss:
    """Error of one quantity over all Gaussians."""

    quantity: str
    unit: str
    rms: float
    largest: float


def stored_order(cloud: GaussianCloud, format: Format) -> GaussianCloud:
    """Return the cloud in the storage order of the format."""
    return cloud if format.storage_order is None else cloud[torch.from_numpy(format.storage_order(cloud))]


def measure_losses(cloud: GaussianCloud, written: GaussianCloud) -> list[Loss]:
    """Measure the errors of Gaussians that were written and read back.

    Args:
        cloud: Original Gaussians.
        written: The same Gaussians in the same order, read back. Missing SH bands count as zeros.

    Returns:
        One entry per quantity: positions in file units, extents in per cent, orientations in degrees, opacities and
        colours in [0, 1], SH bands above the constant one as coefficients.

    Raises:
        ValueError: The counts differ.
    """
    if len(cloud) != len(written):
        raise ValueError(f'written has {len(written)} Gaussians, expected the {len(cloud)} of the cloud; '
                         'read the whole file back')
    cloud, written = cloud.to(torch.float64), written.with_sh_degree(cloud.sh_degree).to(torch.float64)
    a, b = (torch.nn.functional.normalize(c.quats, dim=1) for c in (cloud, written))
    half_chord = torch.minimum((a - b).norm(dim=1), (a + b).norm(dim=1)) / 2
    errors = {
        ('position', 'file units'): (cloud.means - written.means).norm(dim=1),
        ('extent', '%'): 100 * (cloud.log_scales - written.log_scales).expm1(),
        ('orientation', 'degrees'): torch.rad2deg(4 * half_chord.clamp(max=1).asin()),
        ('opacity', '0 to 1'): cloud.opacities - written.opacities,
        ('colour', '0 to 1'): cloud.rgb - written.rgb,
        ('SH bands', 'coefficient'): cloud.sh[:, 1:] - written.sh[:, 1:],
    }
    return [_loss(quantity, unit, error) for (quantity, unit), error in errors.items() if error.numel()]


def _loss(quantity: str, unit: str, error: Tensor) -> Loss:
    return Loss(quantity, unit, float(error.square().mean().sqrt()), float(error.abs().max()))
