"""What writing a cloud in a lossy format loses, measured."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipgs_plugin.io.formats import Format
from clipgs_plugin.structures import GaussianCloud


@dataclass(frozen=True)
class Loss:
    """The error of one quantity over all Gaussians."""

    quantity: str
    unit: str
    rms: float
    largest: float


def stored_order(cloud: GaussianCloud, format: Format) -> GaussianCloud:
    """The cloud in the order in which the format stores its Gaussians."""
    return cloud if format.storage_order is None else cloud[torch.from_numpy(format.storage_order(cloud))]


def measure_losses(cloud: GaussianCloud, written: GaussianCloud) -> list[Loss]:
    """Errors between Gaussians and what came of them.

    Args:
        cloud: N Gaussians.
        written: The same N in the same order, read back; fewer SH bands count as zero bands.

    Returns:
        One entry a quantity: positions in the unit of the file, extents in per cent, orientations in degrees, opacities
        and colours in [0, 1], SH bands above the constant one as coefficients.

    Raises:
        ValueError: The counts differ.
    """
    if len(cloud) != len(written):
        raise ValueError(f'{len(written)} Gaussians to compare with {len(cloud)}')
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
