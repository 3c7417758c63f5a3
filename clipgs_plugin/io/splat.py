"""The ``.splat`` of antimatter15's viewer: 32 bytes per Gaussian, no header, colour without view dependence.

Positions and linear scales are float32. Colour and alpha have 8 bits, the wxyz quaternion 8 bits per component.
Hand-written: no Python package documents both a byte-exact round trip and errors that name the damaged field.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise
from clipgs_plugin.io.files import arrays_from_cloud, cloud_from_arrays, write_whole
from clipgs_plugin.structures import GaussianCloud

_RECORD = np.dtype([('means', '<f4', 3), ('scales', '<f4', 3), ('rgb', 'u1', 3), ('alpha', 'u1'), ('quats', 'u1', 4)])
_UNIT_TOLERANCE = 1 / 64  # error of the norm if components are truncated, not rounded, to 8 bits
_PLAUSIBLE_TOLERANCE = 1 / 16


def read(path: Path) -> GaussianCloud:
    """Read a file and check its plausibility, because the format has no signature.

    Raises:
        ValueError: The size is not a multiple of 32, or most quaternions are not unit, as in text, zeros or images.
    """
    data = path.read_bytes()
    if len(data) % _RECORD.itemsize:
        raise ValueError(f'{path}: {len(data)} bytes are not a whole number of {_RECORD.itemsize}-byte Gaussians; it '
                         'is truncated or not a .splat, download or export it again')
    table = np.frombuffer(data, _RECORD)
    quats = (table['quats'].astype(np.float64) - 128) / 128
    norms = np.linalg.norm(quats, axis=1)
    implausible = int(((np.abs(norms - 1) > _PLAUSIBLE_TOLERANCE) & (norms > 0)).sum())  # validation reports zeros
    if implausible > len(table) / 2:
        raise ValueError(f'{path}: quats are far from unit in {implausible} of {len(table)} Gaussians, expected unit '
                         'quaternions; it is damaged or another format')
    return cloud_from_arrays(
        means=table['means'],
        quats=quats,
        log_scales=quantise.log_scales(table['scales']),
        opacity_logits=quantise.logits_from_bytes(table['alpha']),
        sh=quantise.dc_from_rgb(table['rgb'] / 255)[:, None])


def write(cloud: GaussianCloud, path: Path) -> None:
    """Write in the cloud's order, dropping SH bands above the constant one."""
    raw = arrays_from_cloud(cloud)
    table = np.zeros(len(cloud), _RECORD)
    table['means'] = raw['means']
    table['scales'] = np.exp(raw['log_scales'].astype(np.float64))
    table['rgb'] = np.rint(quantise.rgb_from_dc(raw['sh'][:, 0]).clip(0, 1) * 255)
    table['alpha'] = quantise.bytes_from_logits(raw['opacity_logits'])
    norms = np.linalg.norm(raw['quats'].astype(np.float64), axis=1, keepdims=True)
    # Quaternions that are unit up to the format's resolution stay, so that a file keeps its bytes.
    quats = raw['quats'] / np.where(np.abs(norms - 1) <= _UNIT_TOLERANCE, 1, norms)
    table['quats'] = np.rint(quats * 128 + 128).clip(0, 255)
    write_whole(path, [table.data])
