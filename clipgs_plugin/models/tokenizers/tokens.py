"""Interface between tokenizers and backbones."""
from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """Tokens of the patches of a batch of objects.

    An object with fewer than G patches is padded with zeros, and ``mask`` marks the real patches. A backbone must not
    let padding change any result.
    """

    features: Tensor             # (B, G, C)
    centers: Tensor              # (B, G, 3) in the frame of the object
    mask: Tensor | None = None   # (B, G) bool, True for real patches; None without padding
