"""Embeddings of the objects of a scene."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgs_plugin.ops import axis_change
from clipgs_plugin.structures import GaussianCloud

if TYPE_CHECKING:
    from clipgs_plugin.apis import CLIPGSInferencer

BATCH_SIZE = 16
Track = Callable[[Sequence, str], Iterable]  # passes a sequence on and shows how far it is, with a word on the task


def silent(items: Sequence, task: str) -> Iterable:
    """Pass a sequence on and show nothing."""
    return items


def embed_objects(clipgs: CLIPGSInferencer, cloud: GaussianCloud, members: Sequence[Tensor], up: str = 'y',
                  turns: int = 1, batch_size: int = BATCH_SIZE, track: Track = silent,
                  task: str = 'embedding') -> Tensor:
    """Embed objects of a scene, turned so that y is up.

    Args:
        clipgs: Inferencer of the model.
        cloud: Scene.
        members: Indices of the Gaussians of each object, M of (n,).
        up: Up axis of the scene.
        turns: Number of equal turns about the up axis whose embeddings are averaged.
        batch_size: Number of objects in a forward pass.
        track: Function that shows the progress.
        task: Name of the task for it.

    Returns:
        Unit vectors, (M, E). They do not depend on the batch size.
    """
    turn, rows = axis_change(up, 'y'), []
    batches = [members[start:start + batch_size] for start in range(0, len(members), batch_size)]
    for batch in track(batches, task):
        rows.append(clipgs.embed_gaussians([cloud[inside].transform(turn) for inside in batch], batch_size,
                                           turns=turns))
    return torch.cat(rows)
