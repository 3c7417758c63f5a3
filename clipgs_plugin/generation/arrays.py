"""Array operations that sources, renderers and builders share."""
from __future__ import annotations

import numpy as np
from numpy import ndarray


def unit_vectors(vectors: ndarray) -> ndarray:
    """Scale vectors (..., n) of floats to length 1.

    A vector whose length is zero or not finite becomes zero, so ``unit.any(-1)`` marks the vectors with a direction.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=(lengths > 0) & np.isfinite(lengths))
