"""Preparation of objects for a model, by the pipeline of its config and without its weights."""
from __future__ import annotations

import math
from collections.abc import Callable
from os import PathLike

import numpy as np

from clipgs_plugin.io import read_gaussians
from clipgs_plugin.ops.rotations import y_rotation
from clipgs_plugin.structures import GaussianCloud

Gaussians = GaussianCloud | str | PathLike
Transform = Callable[[dict], dict]


def prepare_object(transform: Transform, item: Gaussians, name: str = 'cloud') -> GaussianCloud:
    """Prepare an object outside of a dataset; the result depends on the object alone.

    Args:
        transform: Test pipeline of a config: filter, sample, normalise.
        item: Cloud or path.
        name: Name of a cloud in errors; a file is named by its path.

    Raises:
        ValueError: The object holds NaN, infinite values or zero quaternions.
    """
    cloud = item.validate(name) if isinstance(item, GaussianCloud) else read_gaussians(item)
    return transform({'gaussians': cloud, 'rng': np.random.default_rng(0), 'index': 0, 'epoch': 0})['inputs']


def turned(item: Gaussians, turns: int) -> list[GaussianCloud]:
    """Return an object after each of ``turns`` equal turns about y, the first of which is none.

    Raises:
        ValueError: The number of turns is below 1.
    """
    if turns < 1:
        raise ValueError(f'turns={turns}: expected at least 1')
    cloud = item if isinstance(item, GaussianCloud) else read_gaussians(item)
    return [cloud.transform(y_rotation(2 * math.pi * i / turns)) if i else cloud for i in range(turns)]
