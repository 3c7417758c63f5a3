"""Objects by labels that are there."""
from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.objects import NONE
from clipgs_plugin.structures import GaussianCloud


def split_by_labels(cloud: GaussianCloud, labels: ndarray | Tensor, background: int = 0,
                    name: str = 'labels') -> Tensor:
    """Take the objects from labels of the Gaussians.

    Args:
        cloud: Scene of N Gaussians.
        labels: One whole number a Gaussian, (N,) or (N, 1); negative numbers are none.
        background: Label of what is no object besides, such as floor and unlabelled Gaussians; -1 has none besides.
        name: Name of the labels in errors, usually a path.

    Returns:
        Id of the object of each Gaussian, (N,) int64, or -1.

    Raises:
        ValueError: The labels have another shape, or hold NaN, fractions or numbers beyond 64 bits.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    count = len(cloud)
    if values.shape not in ((count,), (count, 1)) or values.dtype.kind not in 'iufb':
        raise ValueError(f'{name}: {values.dtype} of shape {values.shape}, expected one number for each of {count} '
                         'Gaussians; they belong to another scene, or the scene was filtered after its segmentation')
    values = values.reshape(count)
    if values.dtype.kind == 'f':
        whole = np.isfinite(values) & (values == np.round(values))
        if not whole.all():
            bad = int(np.argmin(whole))
            raise ValueError(f'{name}: {values[bad]} at Gaussian {bad}, expected whole numbers; are these scores?')
    if count and (values.min() < -2 ** 62 or values.max() > 2 ** 62):
        raise ValueError(f'{name}: from {values.min()} to {values.max()}, expected numbers of at most 62 bits')
    ids = torch.from_numpy(values.astype(np.int64))
    return torch.where((ids < 0) | (ids == background), NONE, ids)
