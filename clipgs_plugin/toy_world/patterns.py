"""Colours, materials, and patterns of two colours."""
from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

# sRGB of each colour and of its partner in patterns. Partners of black, white and grey keep the brightness, so that a
# checkered black object and a checkered white one stay distinguishable.
COLORS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    'red': ((0.84, 0.10, 0.11), (0.97, 0.95, 0.92)),
    'orange': ((0.96, 0.50, 0.06), (0.98, 0.95, 0.90)),
    'yellow': ((0.98, 0.83, 0.12), (0.36, 0.24, 0.10)),
    'green': ((0.13, 0.58, 0.20), (0.95, 0.96, 0.90)),
    'turquoise': ((0.12, 0.73, 0.71), (0.96, 0.97, 0.95)),
    'blue': ((0.11, 0.26, 0.80), (0.94, 0.95, 0.98)),
    'purple': ((0.47, 0.16, 0.64), (0.95, 0.91, 0.97)),
    'pink': ((0.97, 0.53, 0.70), (0.99, 0.96, 0.96)),
    'brown': ((0.45, 0.26, 0.13), (0.90, 0.80, 0.64)),
    'black': ((0.09, 0.09, 0.10), (0.45, 0.45, 0.47)),
    'grey': ((0.52, 0.53, 0.55), (0.27, 0.28, 0.30)),
    'white': ((0.96, 0.96, 0.95), (0.66, 0.71, 0.77)),
}

# Materials keep their colour in every look.
MATERIALS: dict[str, tuple[float, float, float]] = {
    'wood': (0.62, 0.42, 0.23), 'darkwood': (0.40, 0.25, 0.14), 'rubber': (0.13, 0.13, 0.14),
    'metal': (0.68, 0.70, 0.73), 'steel': (0.45, 0.47, 0.51), 'glass': (0.60, 0.80, 0.91),
    'skin': (0.93, 0.74, 0.60), 'carrot': (0.95, 0.48, 0.10), 'leaf': (0.20, 0.52, 0.19), 'soil': (0.32, 0.21, 0.14),
    'clay': (0.74, 0.42, 0.28), 'gold': (0.88, 0.69, 0.22), 'cream': (0.95, 0.91, 0.81), 'white': (0.95, 0.95, 0.94),
    'black': (0.08, 0.08, 0.09), 'red': (0.80, 0.12, 0.12), 'lamplight': (1.00, 0.90, 0.55), 'sand': (0.87, 0.74, 0.50),
    'blue': (0.16, 0.34, 0.72), 'brick': (0.66, 0.31, 0.24), 'yellow': (0.97, 0.81, 0.20), 'stone': (0.62, 0.61, 0.58),
}

# A pattern returns the share of the partner's colour, (n,) in [0, 1], from
#   uv (n, 2): lengths along the surface in units of the tile; on round solids u closes after whole units
#   height (n,): 0 at the object's foot, 1 at its top


def _plain(uv: ndarray, height: ndarray) -> ndarray:
    return np.zeros(len(uv))


def _striped(uv: ndarray, height: ndarray) -> ndarray:
    return (uv[:, 0] % 1.0 < 0.5).astype(float)


def _ringed(uv: ndarray, height: ndarray) -> ndarray:
    return (uv[:, 1] % 1.0 < 0.5).astype(float)


def _checkered(uv: ndarray, height: ndarray) -> ndarray:
    return ((uv[:, 0] % 1.0 < 0.5) ^ (uv[:, 1] % 1.0 < 0.5)).astype(float)


def _dotted(uv: ndarray, height: ndarray) -> ndarray:
    cell = (uv + 0.5) % 1.0 - 0.5
    return (np.hypot(cell[:, 0], cell[:, 1]) < 0.30).astype(float)


def _zigzag(uv: ndarray, height: ndarray) -> ndarray:
    wave = np.abs(uv[:, 0] % 1.0 - 0.5)
    return ((uv[:, 1] + wave) % 1.0 < 0.45).astype(float)


def _gradient(uv: ndarray, height: ndarray) -> ndarray:
    return np.clip(1.3 * height - 0.35, 0.0, 0.85)


PATTERNS = {'plain': _plain, 'striped': _striped, 'ringed': _ringed, 'checkered': _checkered, 'dotted': _dotted,
            'zigzag': _zigzag, 'gradient': _gradient}


def paint(color: str, pattern: str, uv: ndarray, around: float, tile: float, height: ndarray) -> ndarray:
    """Return the colours of a patterned surface.

    Args:
        color: Key of ``COLORS``.
        pattern: Key of ``PATTERNS``.
        uv: Lengths along the surface, (n, 2).
        around: Length after which u closes, or 0. The pattern is stretched to close with it.
        tile: Size of the pattern, in the unit of ``uv``.
        height: Height from 0 at the object's foot to 1 at its top, (n,).

    Returns:
        sRGB, (n, 3).
    """
    scale = np.array([max(1, round(around / tile)) / around if around else 1 / tile, 1 / tile])
    share = PATTERNS[pattern](uv * scale, height)[:, None]
    own, partner = (np.array(c) for c in COLORS[color])
    return own * (1 - share) + partner * share


LIGHT = np.array([0.38, 0.80, 0.46]) / math.sqrt(0.38 ** 2 + 0.80 ** 2 + 0.46 ** 2)


def shade(rgb: ndarray, normals: ndarray) -> ndarray:
    """Return colours (n, 3) with a soft light from above baked in, as in scans."""
    return np.clip(rgb * (0.76 + 0.26 * (normals @ LIGHT))[:, None], 0, 1)
