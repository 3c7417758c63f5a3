"""The seam between a tokenizer and a backbone."""
from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """Patches of a batch of objects as a transformer takes them.

    Where an object has fewer patches than the batch is wide, the others are marked in ``mask`` and hold zeros; a
    backbone must not let them change any result.
    """

    features: Tensor             # (B, G, C)
    centers: Tensor              # (B, G, 3), in the frame of the object
    mask: Tensor | None = None   # (B, G) bool, True where a patch is; None where all are
