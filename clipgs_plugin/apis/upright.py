"""Estimate of the up axis of an object, which no splat format stores."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.upright_cues import CUES, up_cues
from clipgs_plugin.ops.rotations import AXES, axis_change
from clipgs_plugin.structures import GaussianCloud

# Fitted by tools/benchmark.py upright. Cues without a weight add nothing, or help one kind of objects and harm another.
WEIGHTS = dict(support=3.44, symmetry=26.53)
# Of the cue of a model. The toy model was measured and misleads; no published model could be, so theirs counts little.
MODEL_WEIGHT = 0.25
MODEL_WEIGHTS = {'clipgs_toy': 0.0}
TURNS = 4


class UpEstimate(NamedTuple):
    """Estimated up axis of an object.

    Attributes:
        axis: Name of the axis, one of ``ops.rotations.AXES``.
        confidence: Probability of the axis, from 1/6 to 1.
        scores: Probabilities of all axes, which sum to 1.
    """

    axis: str
    confidence: float
    scores: dict[str, float]


def estimate_up(cloud: GaussianCloud, model: CLIPGSInferencer | None = None) -> UpEstimate:
    """Estimate which coordinate axis of a file points up.

    A linear model over cues of the geometry gives the six axes their probabilities.

    Args:
        cloud: Object in the frame of its file.
        model: Inferencer whose embeddings are a further cue: around the right axis they change less with a turn.

    Example:
        >>> axis, confidence, scores = estimate_up(read_gaussians('chair.ply'))
    """
    return up_estimates(cloud, model)['all']


def up_estimates(cloud: GaussianCloud, model: CLIPGSInferencer | None = None) -> dict[str, UpEstimate]:
    """Estimate the up axis as :func:`estimate_up`, with the opinions that it joins.

    Returns:
        The estimate as ``'all'``, that of the ``'geometry'`` alone, and if given that of the ``'model'`` alone. The
        model's weight in all is by its name (``MODEL_WEIGHTS``, else ``MODEL_WEIGHT``); alone it has ``MODEL_WEIGHT``.
    """
    geometry = up_cues(cloud) @ np.array([WEIGHTS.get(name, 0.0) for name in CUES])
    if model is None:
        return dict.fromkeys(('all', 'geometry'), _estimate(geometry))
    cue = model_cue(cloud, model)
    weight = MODEL_WEIGHTS.get(model.name, MODEL_WEIGHT)
    return dict(all=_estimate(geometry + weight * cue), geometry=_estimate(geometry),
                model=_estimate(MODEL_WEIGHT * cue))


def _estimate(logits: ndarray) -> UpEstimate:
    """Return the estimate of logits, (6,)."""
    scores = softmax(logits)
    best = int(scores.argmax())
    return UpEstimate(AXES[best], float(scores[best]), dict(zip(AXES, scores.tolist())))


def model_cue(cloud: GaussianCloud, model: CLIPGSInferencer, turns: int = TURNS) -> ndarray:
    """Measure how little the embedding changes with turns about each axis.

    Returns:
        Length of the mean of the unit embeddings over the turns, (6,) float64, standardised over the axes.
    """
    lengths = np.array([float(model.embed_turns(cloud.transform(axis_change(axis, 'y')), turns).mean(0).norm())
                        for axis in AXES])
    return (lengths - lengths.mean()) / max(lengths.std(), 1e-9)


def softmax(logits: ndarray) -> ndarray:
    """Return probabilities of logits along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
