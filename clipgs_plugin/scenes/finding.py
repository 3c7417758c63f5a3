"""Objects of a scene by any of the ways to split it."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy import ndarray
from torch import Tensor

from clipgs_plugin.scenes.clusters import split_by_clusters
from clipgs_plugin.scenes.embedding import Track, silent
from clipgs_plugin.scenes.label_files import LabelSource
from clipgs_plugin.scenes.labels import split_by_labels
from clipgs_plugin.scenes.objects import MIN_GAUSSIANS, NONE, SceneObjects
from clipgs_plugin.scenes.scene import Scene
from clipgs_plugin.scenes.spheres import split_by_spheres

WAYS = ('labels', 'clusters', 'spheres')


@dataclass(frozen=True)
class SplitOptions:
    """Way to find the objects of a scene.

    Attributes:
        way: One of ``WAYS``; None takes labels if there are any, else clusters.
        labels: One label a Gaussian (N,), or a source of :func:`~clipgs_plugin.scenes.read_labels`; None takes those
            that are found in the file or beside it.
        background: Label of what is no object, besides negative ones.
        crop: Box that the objects lie in, (x0, y0, z0, x1, y1, z1).
        color: Largest difference of colours within clusters; 0 ignores colours.
        min_gaussians: Least number of Gaussians of an object.
        max_objects: Largest number of objects, the largest ones.

    Raises:
        ValueError: The way is unknown, or does not go with labels.
    """

    way: str | None = None
    labels: ndarray | Tensor | LabelSource | str | Path | None = None
    background: int = 0
    crop: tuple[float, ...] | None = None
    color: float = 0.0
    min_gaussians: int = MIN_GAUSSIANS
    max_objects: int = 1000

    def __post_init__(self) -> None:
        if self.way not in (None, *WAYS):
            raise ValueError(f'way={self.way!r}: expected {", ".join(WAYS)}, or None')
        if self.labels is not None and self.way not in (None, 'labels'):
            raise ValueError(f"labels are for the way 'labels', not {self.way!r}; leave one out")


def find_objects(scene: Scene, options: SplitOptions, up: str = 'y',
                 score: Callable[[Sequence[Tensor]], Tensor] | None = None,
                 track: Track = silent) -> tuple[SceneObjects, str]:
    """Find the objects of a scene.

    Args:
        scene: The scene.
        options: Way to find them.
        up: Up axis of the scene.
        score: Function from the indices of the Gaussians in each of S spheres to a score of each, (S,).
        track: Function that shows the progress of clusters.

    Returns:
        The objects, with ids from 1, and a description of the way.

    Raises:
        OSError: A file of labels cannot be read.
        ValueError: There are no labels, or they do not fit; no Gaussian lies in the crop.
    """
    cloud, inside = scene.cloud, _inside(scene, options.crop)
    labels, name = _labels(scene, options)
    if labels is not None:
        found, way = split_by_labels(cloud, labels, options.background, name)[inside], f'labels ({name})'
    elif options.way == 'spheres':
        def scored(members: Sequence[Tensor]) -> Tensor:
            return score([inside[each] for each in members])
        found, way = split_by_spheres(cloud[inside], up, min_gaussians=options.min_gaussians,
                                      score=None if score is None else scored), 'spheres'
    else:
        found, way = split_by_clusters(cloud[inside], up, color=options.color,
                                       min_gaussians=options.min_gaussians, track=track), 'clusters'
    everywhere = torch.full((len(cloud),), NONE)
    everywhere[inside] = found
    return SceneObjects.from_labels(everywhere, options.min_gaussians, options.max_objects).storable(), way


def _inside(scene: Scene, crop: tuple[float, ...] | None) -> Tensor:
    """Return the indices of the Gaussians in a box, (n,)."""
    everyone = torch.arange(len(scene.cloud))
    if crop is None:
        return everyone
    low, high = torch.tensor(crop).double().split(3)
    inside = everyone[((scene.cloud.means >= low) & (scene.cloud.means <= high)).all(1)]
    if not len(inside):
        ends = [', '.join(f'{x:.4g}' for x in end.tolist()) for end in (scene.cloud.means.amin(0),
                                                                       scene.cloud.means.amax(0))]
        raise ValueError(f'{scene.name}: no Gaussian lies in the crop {",".join(f"{x:g}" for x in crop)}; the scene '
                         f'reaches from ({ends[0]}) to ({ends[1]})')
    return inside


def _labels(scene: Scene, options: SplitOptions) -> tuple[ndarray | Tensor | None, str]:
    """Return the labels of the Gaussians and their name, or None where the scene is split without labels."""
    source = options.labels
    if isinstance(source, (ndarray, Tensor)):
        return source, 'array'
    if source is None and options.way in (None, 'labels'):
        source = scene.find_labels()
    if source is None and options.way == 'labels':
        raise ValueError(f'{scene.name}: no labels in it or beside it; name them with --labels, or choose --split '
                         'clusters')
    return (None, '') if source is None else (scene.read_labels(source), str(source))
