"""Right and wrong answers, object by object, from which intervals of differences are estimated."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outcomes:
    """Answers of a metric to the objects of an evaluation."""

    uids: tuple[str, ...]  # of the objects, in the order of the evaluation
    right: Tensor          # (N,) bool
