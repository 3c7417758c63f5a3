"""Conversions that the quantised splat formats share, in numpy.

Reading maps saturated values (alpha 0 and 255, zero scales) to finite values that are written back as the same bytes.
"""
from __future__ import annotations

import numpy as np

from clipgs_plugin.ops.spherical_harmonics import C0

MAX_LOGIT = float(np.log(1e6 - 1))  # alphas 1e-6 and 1 - 1e-6, well inside the first and the last of 256 steps
MAX_FLOAT_LOGIT = 104.0, 17.33     # of the smallest float32 above 0, and halfway from the largest below 1 to 1
MIN_LOG_SCALE = -104.0              # its exp underflows to a float32 zero
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # components that remain after one is dropped


def logits_from_bytes(alpha: np.ndarray) -> np.ndarray:
    """Return the opacity logits of 8-bit alphas."""
    alpha = alpha.astype(np.float64) / 255
    with np.errstate(divide='ignore'):
        return np.clip(np.log(alpha) - np.log1p(-alpha), -MAX_LOGIT, MAX_LOGIT)


def logits(alpha: np.ndarray) -> np.ndarray:
    """Return the logits of float alphas; 0 and 1 become finite, below and above all other alphas in float32."""
    alpha = alpha.astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.clip(np.log(alpha) - np.log1p(-alpha), -MAX_FLOAT_LOGIT[0], MAX_FLOAT_LOGIT[1])


def bytes_from_logits(logits: np.ndarray) -> np.ndarray:
    """Return the 8-bit alphas of opacity logits."""
    return np.rint(255 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700)))).astype(np.uint8)


def log_scales(scales: np.ndarray) -> np.ndarray:
    """Return the logarithms of linear scales; zero becomes finite, negative values become NaN for the validation."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.maximum(np.log(scales.astype(np.float64)), MIN_LOG_SCALE)


def dc_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Return the constant SH coefficients of sRGB colours in [0, 1]."""
    return (rgb.astype(np.float64) - 0.5) / C0


def rgb_from_dc(dc: np.ndarray) -> np.ndarray:
    """Return the sRGB colours of constant SH coefficients, not clamped."""
    return dc.astype(np.float64) * C0 + 0.5


def drop_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalise quaternions, make the component of largest magnitude positive and drop it.

    Args:
        quats: Quaternions, (N, 4), any component order.

    Returns:
        Index of the dropped component, (N,), and the other three in their order, (N, 3), in +-1 / sqrt(2).
    """
    quats = quats.astype(np.float64)
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    largest = np.abs(quats).argmax(1)
    quats = np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -quats, quats)
    return largest, np.take_along_axis(quats, OTHERS[largest], 1)


def fourth_of_unit(three: np.ndarray) -> np.ndarray:
    """Return the non-negative fourth component, (N,), of unit quaternions from the other three."""
    return np.sqrt(np.maximum(0, 1 - (three ** 2).sum(1)))


def restore_largest(largest: np.ndarray, three: np.ndarray) -> np.ndarray:
    """Invert :func:`drop_largest`; the quaternions, (N, 4), are unit up to quantisation.

    The restored component is always the largest. Writing the file again therefore drops the same component and keeps
    the bytes.
    """
    quats = np.empty((len(three), 4))
    np.put_along_axis(quats, OTHERS[largest], three, 1)
    rest = np.maximum(fourth_of_unit(three), np.abs(three).max(1, initial=0) * (1 + 1e-6))
    np.put_along_axis(quats, largest[:, None], rest[:, None], 1)
    return quats


def morton_order(points: np.ndarray) -> np.ndarray:
    """Return indices, (N,), that visit points along the Z curve of their bounding box."""
    low = points.min(0)
    span = np.maximum(points.max(0) - low, np.finfo(np.float64).tiny)
    cells = ((points.astype(np.float64) - low) / span * (2 ** 16 - 1)).astype(np.uint64)
    key = np.zeros(len(points), np.uint64)
    for bit in range(16):
        for axis in range(3):
            key |= (cells[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(key, kind='stable')
