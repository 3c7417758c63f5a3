"""Preparation of objects for a model, by the pipeline of its config and without its weights."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from clipgs_plugin.io import read_gaussians
from clipgs_plugin.io.files import arrays_from_cloud
from clipgs_plugin.ops.rotations import y_rotation
from clipgs_plugin.structures import GaussianCloud

Gaussians = GaussianCloud | str | PathLike
Transform = Callable[[dict], dict]
Read = Callable[[str], tuple[GaussianCloud, dict]]


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


@dataclass(frozen=True)
class Failed:
    """File that could not be embedded.

    Attributes:
        path: The file.
        error: Type of the error.
        message: The reason, which names the file.
    """

    path: str
    error: str
    message: str


@dataclass(frozen=True)
class Prepared:
    """Object that is ready for the encoder, as arrays: tensors would cross processes in shared memory.

    Attributes:
        path: The file.
        turns: Arrays of the object after each turn, see :func:`~clipgs_plugin.io.files.arrays_from_cloud`.
        notes: Numbers of ``gaussians`` and ``sh_degree``, and what was found when it was read.
        warnings: Texts of warnings.
    """

    path: str
    turns: tuple[dict[str, np.ndarray], ...]
    notes: dict
    warnings: tuple[str, ...]


def read_object(path: str) -> tuple[GaussianCloud, dict]:
    """Read a file with y up, with nothing to note."""
    return read_gaussians(path), {}


def prepare_files(chunk: Sequence[str], begin_step: Callable[[int], None], read: Read, transform: Transform,
                  turns: int) -> list[Prepared | Failed]:
    """Read and prepare files, with their warnings; a file that fails does not stop the others.

    Args:
        chunk: Paths.
        begin_step: Function called before each file with the number of files in the step.
        read: Function that returns an object with y up, and notes on it.
        transform: Test pipeline of a config.
        turns: Number of equal turns about y.
    """
    outcomes = []
    for path in chunk:
        begin_step(1)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter('always', UserWarning)
            try:
                cloud, found = read(path)
                ready = tuple(arrays_from_cloud(prepare_object(transform, each, path))
                              for each in turned(cloud, turns))
            except Exception as error:  # readers of arbitrary files raise anything, and one must not stop the others
                outcomes.append(failure_of(path, error))
                continue
        found = dict(gaussians=len(cloud), sh_degree=cloud.sh_degree, **found)
        outcomes.append(Prepared(path, ready, found, tuple(str(note.message) for note in notes)))
    return outcomes


def failure_of(path: str, error: Exception) -> Failed:
    """Return the failure of a file; the message names it."""
    message = str(error)
    return Failed(path, type(error).__name__, message if path in message else f'{path}: {message}')
