"""What several objects have of one kind, as one value."""
from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor


def stack_values(key: str, values: Sequence) -> Tensor | Sequence:
    """Tensors and arrays of numbers stacked, whole numbers as int64, other numbers as float32; else what was given.

    Args:
        key: What the values are, for the error.
        values: One of each object, at least one.

    Raises:
        ValueError: Tensors of different shapes.
    """
    if all(isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in 'biuf')
           for value in values):
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(f'{key!r} has the shapes {sorted(shapes)} in one batch; batch equal ones only')
        return torch.stack([torch.as_tensor(value) for value in values])
    if all(isinstance(value, Integral) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    if all(isinstance(value, Real) for value in values):
        return torch.tensor(values, dtype=torch.float32)
    return values
