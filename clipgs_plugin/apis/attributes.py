"""Attributes of the objects that a model was trained on: their quantiles, which later objects are compared with."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clipgs_plugin.io.checked_json import check_types
from clipgs_plugin.structures import GaussianCloud

LEVELS = (0.05, 0.5, 0.95)  # quantiles over the Gaussians of an object
NAMES = ('opacity', 'log scale, longest axis', 'log scale, middle axis', 'log scale, shortest axis', 'brightness',
         'saturation of colour')
Ranges = dict[str, dict[str, list[float]]]


def attribute_quantiles(cloud: GaussianCloud) -> dict[str, dict[str, float]]:
    """Compute the quantiles over the Gaussians of a prepared object, by attribute and level.

    Args:
        cloud: Object as the model receives it, centred and in the unit sphere. Scales are natural logarithms of
            standard deviations in its radius.
    """
    log_scales = np.sort(cloud.log_scales.double().numpy(), axis=1)
    rgb = cloud.rgb.double().numpy()
    values = (cloud.opacities.double().numpy(), *log_scales.T[::-1], rgb.mean(1), np.ptp(rgb, axis=1))
    return {name: {str(level): float(np.quantile(value, level)) for level in LEVELS}
            for name, value in zip(NAMES, values, strict=True)}


def attribute_ranges(clouds: Iterable[GaussianCloud]) -> dict[str, int | Ranges]:
    """Compute the smallest and largest quantile of any object, by attribute and level.

    Args:
        clouds: Prepared objects, see :func:`attribute_quantiles`. Each counts alike, however many Gaussians it has.

    Returns:
        Number of ``objects``, and ``attributes``: ranges as pairs, with four significant digits.

    Raises:
        ValueError: There is no object.
    """
    found = [attribute_quantiles(cloud) for cloud in clouds]
    if not found:
        raise ValueError('there are no objects to take quantiles of; give a split or folder that holds some')
    return {'objects': len(found), 'attributes': {
        name: {level: [float(f'{bound(item[name][level] for item in found):.4g}') for bound in (min, max)]
               for level in found[0][name]} for name in NAMES}}


def checked_ranges(quantiles: dict, name: str) -> Ranges:
    """Check and return the ranges in the card of a shared model; nothing if it states none.

    Raises:
        ValueError: They are no pairs of numbers by attribute and level.
    """
    pair = {str(level): [float, float] for level in LEVELS}
    check_types(quantiles, {'attributes?': {f'{each}?': pair for each in NAMES}}, name)
    ranges = quantiles.get('attributes', {})
    return {each: ranges[each] for each in NAMES if each in ranges}
